"""Drawn faces with exact labels: every attribute decides what is drawn, so that no annotation can be wrong.

Most parts are the avataaars set by Pablo Stanley as packaged in py-avataaars-no-png; what makes expressions differ at
64 pixels is drawn here, because there the stock set leaves several of them too alike. All persons are adults.

Two pure functions: `sample_attributes(seed)` decides, `draw(attributes, size)` rasterises. As a source (`find`) it
needs no download, only the extra `avatars` (py-avataaars-no-png, resvg-py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from synthfer.expressions import EXPRESSIONS
from synthfer.sample import seed_of
from synthfer.schema import option
from synthfer.sources.avatars.attributes import (
    HAIR_COLORS,
    HAIR_LENGTH,
    SKIN_TONES,
    AvatarAttributes,
    appearance_half,
    sample_attributes,
)
from synthfer.sources.avatars.drawing import draw
from synthfer.sources.entry import Collection, Entry, ImageRef, SourceError

__all__ = [
    "HAIR_COLORS",
    "HAIR_LENGTH",
    "SKIN_TONES",
    "AvatarAttributes",
    "Config",
    "appearance_half",
    "draw",
    "find",
    "picture",
    "sample_attributes",
]

_PACKAGES = ("py_avataaars_no_png", "resvg_py")


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many faces to draw, and which."""

    total: int = option(700, "faces, spread evenly over the expressions", low=1, high=10_000_000)
    size: int = option(64, "side in pixels", low=16, high=2048)
    seed: int = option(0, "other faces for another seed", low=0)


def find(path: Path | None, config: Config) -> Collection:
    """Drawn faces as a collection; there is no path. `SourceError`: a package to draw with is not installed."""
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise SourceError(
            f"source avatars needs packages that are not installed ({', '.join(missing)}); run: pip install "
            "'py-avataaars-no-png>=1.0,<2' 'resvg-py>=0.5,<1' (the extra avatars)"
        )
    return Collection(
        layout="drawn by code",
        entries=_entries(config),
        licence="MIT (py-avataaars-no-png); the avataaars design by Pablo Stanley is free for any use",
        kind="synthetic",
        source_type="algorithmicMedia",
    )


def _entries(config: Config) -> Iterator[Entry]:
    for index in range(config.total):
        seed, label = seed_of(config.seed, "avatar", index), index % len(EXPRESSIONS)
        face = sample_attributes(seed, EXPRESSIONS[label])
        yield Entry(
            key=f"{config.seed}/{index}/{config.size}",
            image=ImageRef("avatars", start=seed, length=config.size, name=EXPRESSIONS[label]),
            label=label,
            attributes={name: getattr(face, name) for name in ("gender", "age", "race", "pose", "intensity")},
        )


def picture(ref: ImageRef) -> np.ndarray:
    """The face that a reference of this source stands for: uint8, size x size x 3."""
    return draw(sample_attributes(ref.start, ref.name), ref.length)
