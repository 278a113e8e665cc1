"""Generators: plan rows in, pictures out. One protocol with one method; a new generator is one new module here.

A generator module holds a dataclass `Config` (its options) and `build(config) -> Generator`. It is found by its
module name; a dotted name (`my_package.my_generator`) names one outside this package.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from synthfer.registry import Registry
from synthfer.sample import Row


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no picture. The row is committed as failed with this reason; its neighbours go on."""

    reason: str


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """A picture with what its generator knows of it.

    `pixels` uint8 (H, W, 3), RGB. `scores` are numbers to store with the sample, by name. For a picture in which only a
    face was changed, `box` (left, top, right, bottom in pixels) is where, and `matrix` (float64, 2 x 3) maps the
    picture's coordinates to those of the crop that the network got.
    """

    pixels: np.ndarray
    scores: Mapping[str, float] = field(default_factory=dict)
    box: tuple[float, float, float, float] | None = None
    matrix: np.ndarray | None = None


Picture = np.ndarray | GeneratedImage | Failure
Faces = tuple[np.ndarray, ...]
"""The source pictures of a row, uint8 (H, W, 3) each: its parent's, then its partner's; empty for prompts."""


class OutOfMemory(RuntimeError):
    """The device has too little memory for a batch of this shape; the job tries again with half of it."""


class Generator(Protocol):
    """Turns rows into pictures. A picture is a function of (weights, row, settings) alone, never of its neighbours.

    The module's `PLAN` names the kind of plan that its rows come from (`synthfer.planning`): "prompts" (the
    default), "edits", "variations" or "latents". Rows of edits and variations have source faces: `make(rows, faces)`.

    Optional are the method `prepare(texts)`, called once with all prompts of a plan that has few; `device_notes()`,
    JSON about the device that is recorded with every shard; and `source_type`, the IPTC code of its pictures where it
    is not `images.GENERATED`.
    """

    batch_size: int
    """Rows per call of `make`. The shape on the device is fixed: shorter batches are padded inside."""

    def make(self, rows: Sequence[Row], faces: Sequence[Faces] = ()) -> list[Picture]:
        """One picture (uint8, H x W x 3, RGB) or `Failure` per row, in order; at most `batch_size` rows.

        `faces` has the sources of each row; it is not given where rows have none.
        """
        ...

    def producer(self) -> dict[str, Any]:
        """What the pictures depend on, as JSON: options, the weights' sha256, versions. Part of the dataset's spec."""
        ...


_MEMBERS = Registry("generator", __name__, __path__, shared=("weights",))
names, module = _MEMBERS.names, _MEMBERS.module


def plan_of(name: str) -> str:
    """The kind of plan that a generator's rows come from."""
    return str(getattr(module(name), "PLAN", "prompts"))


def build(name: str, **options: Any) -> Generator:
    """A ready generator: weights loaded, warmed up where its options say so."""
    member = module(name)
    return member.build(member.Config(**options))
