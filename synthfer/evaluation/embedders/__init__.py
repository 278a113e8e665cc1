"""Embedders: pictures in, unit vectors out, near for near copies. A new one is one new module here.

An embedder module holds a dataclass `Config` (its options) and `build(config) -> Embedder`. It is found by its module
name; a dotted name (`my_package.my_embedder`) names one outside this package.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from synthfer.nearest import nearest


class Embedder(Protocol):
    """Describes pictures by vectors. A vector is a function of its picture alone, never of its neighbours."""

    def embed(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """One unit vector for each picture (uint8, H x W x 3, RGB, of any size), in order: float32 (n, d)."""
        ...

    def producer(self) -> dict[str, Any]:
        """What makes the vectors, as JSON: options that matter, the weights' sha256, versions."""
        ...


def names() -> list[str]:
    """The embedders that ship, by name."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def module(name: str) -> ModuleType:
    """The module of an embedder; `ValueError` names the nearest known one."""
    if "." not in name and name not in names():
        hint = nearest(name, names()) or "."
        raise ValueError(f"unknown embedder {name!r}{hint} Known: {', '.join(names())}, or a dotted module name.")
    return importlib.import_module(name if "." in name else f"{__name__}.{name}")


def build(name: str, **options: Any) -> Embedder:
    """A ready embedder."""
    found = module(name)
    return found.build(found.Config(**options))
