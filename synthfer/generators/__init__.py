"""Generators: plan rows in, pictures out. One protocol with one method; a new generator is one new module here.

A generator module holds a dataclass `Config` (its options) and `build(config) -> Generator`. It is found by its
module name; a dotted name (`my_package.my_generator`) names one outside this package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from synthfer.registry import Registry
from synthfer.sample import Row


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no picture. The row is committed as failed with this reason; its neighbours go on."""

    reason: str


Picture = np.ndarray | Failure


class OutOfMemory(RuntimeError):
    """The device cannot hold a batch of this shape; the job may go on with half of it."""


class Generator(Protocol):
    """Makes pictures of rows. A picture is a function of (weights, row, settings) alone, never of its neighbours.

    Two more methods are used where a generator has them: `prepare(texts)`, called once with all prompts of a plan that
    has few, and `device_notes()`, JSON about the device that is recorded with every shard.
    """

    batch_size: int
    """Rows per call of `make` that keep the device busy; the shape is fixed, short batches are padded inside."""

    def make(self, rows: Sequence[Row]) -> list[Picture]:
        """One picture (uint8, H x W x 3, RGB) or `Failure` per row, in order; at most `batch_size` rows."""
        ...

    def producer(self) -> dict[str, Any]:
        """What makes the pictures, as JSON: options that matter, the weights' sha256, versions. Part of the spec."""
        ...


_MEMBERS = Registry("generator", __name__, __path__)
names, module = _MEMBERS.names, _MEMBERS.module


def build(name: str, **options: Any) -> Generator:
    """A ready generator: weights loaded, warmed up where its options say so."""
    found = module(name)
    return found.build(found.Config(**options))
