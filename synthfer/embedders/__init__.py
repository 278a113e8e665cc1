"""Embedders: pictures in, unit vectors out, which are close for near copies. A new one is one new module here.

An embedder module holds a dataclass `Config` (its options) and `build(config) -> Embedder`. It is found by its module
name; a dotted name (`my_package.my_embedder`) names one outside this package.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from synthfer.registry import Registry


class Embedder(Protocol):
    """Describes pictures by vectors. A vector is a function of its picture alone, never of its neighbours."""

    def embed(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """One unit vector for each picture (uint8, H x W x 3, RGB, of any size), in order: float32 (n, d)."""
        ...

    def producer(self) -> dict[str, Any]:
        """What the vectors depend on, as JSON: options, the weights' sha256, versions."""
        ...


_MEMBERS = Registry("embedder", __name__, __path__)
names, module = _MEMBERS.names, _MEMBERS.module


def build(name: str, **options: Any) -> Embedder:
    """A ready embedder."""
    member = module(name)
    return member.build(member.Config(**options))
