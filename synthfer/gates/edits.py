"""The gate of edits: is it the same person, is it the expression that was asked for, was anything else changed?

Four numbers per picture, each against the face that it was made from:

- `identity`: cosine of an embedder's vectors of the two faces, -1..1;
- `expression` and `gain`: the judge's probability p of the expression asked for, and the relative expression gain
  (p(edit) - p(source)) / (1 - p(source)), at most 1. An edit that does nothing gains nothing, however well it keeps the
  person: fidelity alone rewards lazy edits (FED-Bench, arXiv 2603.29697). The judge must not be the teacher that guided
  or selected the edits, or it praises what exploits it;
- `background`: mean absolute change outside the face's box, in levels of 0..255.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from synthfer import embedders
from synthfer.config import ConfigError, option
from synthfer.faces.align import crop_box
from synthfer.generators import Faces, GeneratedImage
from synthfer.sample import Row

if TYPE_CHECKING:
    from synthfer.gates.judge import Judge

IDENTITY, EXPRESSION, GAIN, BACKGROUND = "identity", "expression", "gain", "background"


@dataclass(frozen=True, kw_only=True)
class EditConfig:
    """What made faces are measured by, and what they must reach; null measures nothing."""

    identity: str | None = option(None, "embedder that compares persons, as dlib (the extra identity)")
    judge: str | None = option(None, "checkpoint of a classifier that judges expressions; none that guided the edits")
    min_identity: float | None = option(None, "reject what is less like its face, by cosine", low=-1, high=1)
    min_gain: float | None = option(None, "reject what gains less of its expression", low=-10, high=1)

    def __post_init__(self) -> None:
        for bound, of in (("min_identity", "identity"), ("min_gain", "judge")):
            if getattr(self, bound) is not None and getattr(self, of) is None:
                raise ValueError(f"{bound} needs {of}, which says by what")


class EditGate:
    """Scores pictures against the faces that they were made from. A score depends on no neighbour."""

    def __init__(self, config: EditConfig) -> None:
        """`ConfigError` where embedder or judge are not there."""
        self.config = config
        self._embedder: embedders.Embedder | None = None
        self._judge: Judge | None = _judge(config.judge) if config.judge else None
        if config.identity:
            try:
                self._embedder = embedders.build(config.identity)
            except ValueError as error:
                raise ConfigError(f"gate.identity: {error}") from error

    def score(
        self, rows: Sequence[Row], faces: Sequence[Faces], pictures: Sequence[GeneratedImage]
    ) -> list[dict[str, float]]:
        """The numbers of each picture; `faces[i][0]` is what picture i was made from."""
        scores: list[dict[str, float]] = [{} for _ in rows]
        sources = [face[0] for face in faces]
        before = [_face(source, made) for source, made in zip(sources, pictures, strict=True)]
        after = [_face(made.pixels, made) for made in pictures]
        if self._embedder:
            likeness = (self._embedder.embed(before) * self._embedder.embed(after)).sum(1)
            for told, value in zip(scores, likeness.tolist(), strict=True):
                told[IDENTITY] = float(value)
        if self._judge:
            for told, row, source, made in zip(scores, rows, self._judge(before), self._judge(after), strict=True):
                if row.label is not None:
                    told |= {EXPRESSION: float(made[row.label]), GAIN: gain(source[row.label], made[row.label])}
        for told, source, made in zip(scores, sources, pictures, strict=True):
            change = _background(source, made)
            told |= {} if change is None else {BACKGROUND: change}
        return scores

    def decide(self, scores: dict[str, float]) -> str | None:
        """Why a picture with these scores is rejected; None where it is not."""
        config = self.config
        if config.min_identity is not None and scores[IDENTITY] < config.min_identity:
            return f"identity {scores[IDENTITY]:.3f} is below {config.min_identity:g}"
        if config.min_gain is not None and scores.get(GAIN, np.inf) < config.min_gain:
            return f"gain {scores[GAIN]:.3f} is below {config.min_gain:g}"
        return None

    def producer(self) -> dict[str, Any]:
        """What the scores are a function of, as JSON: embedder and judge with their weights' sha256, and the bounds."""
        told: dict[str, Any] = {"min_identity": self.config.min_identity, "min_gain": self.config.min_gain}
        told["identity"] = self._embedder and {"name": self.config.identity, **self._embedder.producer()}
        told["judge"] = self._judge and self._judge.producer()
        return told


def _judge(uri: str) -> "Judge":
    from synthfer.gates.judge import Judge  # here, so that a config is read without torch

    return Judge(uri)


def gain(before: float, after: float) -> float:
    """The relative expression gain of two probabilities; 0 where nothing was left to gain."""
    return float((after - before) / (1 - before)) if before < 1 else 0.0


def _face(picture: np.ndarray, made: GeneratedImage) -> np.ndarray:
    """The part of a picture where the face is; the whole where no box is known, or the box is of another picture."""
    fits = made.box is not None and picture.shape == made.pixels.shape
    return crop_box(picture, made.box) if fits and made.box else picture


def _background(source: np.ndarray, made: GeneratedImage) -> float | None:
    """The mean absolute change outside the box, where there is a box and an outside."""
    if made.box is None or source.shape != made.pixels.shape:
        return None
    outside = np.ones(source.shape[:2], bool)
    left, top = (max(0, math.floor(edge)) for edge in made.box[:2])
    right, bottom = (max(0, math.ceil(edge)) for edge in made.box[2:])
    outside[top:bottom, left:right] = False  # pixels that the box touches at all are its own
    return float(np.abs(made.pixels[outside].astype(np.int16) - source[outside]).mean()) if outside.any() else None
