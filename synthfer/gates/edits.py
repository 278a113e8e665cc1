"""The gate of edits: is it the same person, is it the expression that was asked for, was anything else changed?

Four numbers per picture, each against the face that it was made from:

- `identity`: cosine of an embedder's vectors of the two faces, -1..1;
- `expression` and `gain`: a classifier's probability p of the expression asked for, and the relative expression gain
  (p(edit) - p(source)) / (1 - p(source)), at most 1. An edit that does nothing gains nothing, however well it keeps the
  person: fidelity alone rewards lazy edits (FED-Bench, arXiv 2603.29697). The classifier must not be the teacher that
  guided or selected the edits, or it rewards what exploits it;
- `background`: mean absolute change outside the face's box, in levels of 0..255.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from synthfer import embedders
from synthfer.faces.align import crop_box
from synthfer.gates import Verdict
from synthfer.generators import Faces, GeneratedImage
from synthfer.sample import Row
from synthfer.schema import ConfigError, option

if TYPE_CHECKING:
    from synthfer.gates._expression_classifier import ExpressionClassifier

NEEDS_FACES = DEFAULT = True
IDENTITY, EXPRESSION, GAIN, BACKGROUND = "identity", "expression", "gain", "background"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What edited faces are measured by, and the least they must reach; null measures nothing."""

    identity: str | None = option(None, "embedder that compares persons, as dlib (the extra identity)")
    judge: str | None = option(None, "checkpoint of a classifier that scores expressions; none that guided the edits")
    modules: list[str] = option([], "classifiers of your own, as my_package.my_classifier, that judge's card may name")
    min_identity: float | None = option(None, "reject pictures less like their face than this cosine", low=-1, high=1)
    min_gain: float | None = option(None, "reject pictures that gain less of their expression", low=-10, high=1)

    def __post_init__(self) -> None:
        for bound, measure in (("min_identity", "identity"), ("min_gain", "judge")):
            if getattr(self, bound) is not None and getattr(self, measure) is None:
                raise ValueError(f"{bound} needs {measure}, by which it is measured")


def build(config: Config) -> "EditGate":
    """The gate, weights loaded. `ConfigError` where embedder or classifier cannot be loaded."""
    return EditGate(config)


class EditGate:
    """Scores pictures against the faces that they were made from; rows that were made from no face are skipped."""

    def __init__(self, config: Config) -> None:
        """`ConfigError` where embedder or classifier cannot be loaded."""
        self.config = config
        self._embedder: embedders.Embedder | None = None
        self._classifier: ExpressionClassifier | None = _classifier(config) if config.judge else None
        if config.identity:
            try:
                self._embedder = embedders.build(config.identity)
            except ValueError as error:
                raise ConfigError(f"gate.edits.identity: {error}") from error

    def check(self, rows: Sequence[Row], faces: Sequence[Faces], images: Sequence[GeneratedImage]) -> list[Verdict]:
        """The scores of each picture that was made from a face, and why it is rejected."""
        edited = [number for number, face in enumerate(faces) if face]
        scores = self.score([rows[n] for n in edited], [faces[n] for n in edited], [images[n] for n in edited])
        verdicts = [Verdict()] * len(images)
        for number, of_one in zip(edited, scores, strict=True):
            verdicts[number] = Verdict(of_one, self.rejection(of_one))
        return verdicts

    def score(
        self, rows: Sequence[Row], faces: Sequence[Faces], images: Sequence[GeneratedImage]
    ) -> list[dict[str, float]]:
        """The numbers of each picture; `faces[i][0]` is what picture i was made from."""
        scores: list[dict[str, float]] = [{} for _ in rows]
        sources = [face[0] for face in faces]
        before = [_face(source, image) for source, image in zip(sources, images, strict=True)]
        after = [_face(image.pixels, image) for image in images]
        if self._embedder and rows:
            cosines = (self._embedder.embed(before) * self._embedder.embed(after)).sum(1)
            for own, value in zip(scores, cosines.tolist(), strict=True):
                own[IDENTITY] = float(value)
        if self._classifier:
            probabilities = zip(self._classifier(before), self._classifier(after), strict=True)
            for own, row, (source, edit) in zip(scores, rows, probabilities, strict=True):
                if row.label is not None:
                    own |= {EXPRESSION: float(edit[row.label]), GAIN: gain(source[row.label], edit[row.label])}
        for own, source, image in zip(scores, sources, images, strict=True):
            change = _background(source, image)
            own |= {} if change is None else {BACKGROUND: change}
        return scores

    def rejection(self, scores: dict[str, float]) -> str | None:
        """Why a picture with these scores is rejected; None where it is not."""
        config = self.config
        if config.min_identity is not None and scores[IDENTITY] < config.min_identity:
            return f"identity {scores[IDENTITY]:.3f} is below {config.min_identity:g}"
        if config.min_gain is not None and scores.get(GAIN, np.inf) < config.min_gain:
            return f"gain {scores[GAIN]:.3f} is below {config.min_gain:g}"
        return None

    def producer(self) -> dict[str, Any]:
        """What the scores are a function of, as JSON: embedder, classifier with its weights' sha256, and the bounds."""
        return {
            "min_identity": self.config.min_identity,
            "min_gain": self.config.min_gain,
            "identity": self._embedder and {"name": self.config.identity, **self._embedder.producer()},
            "judge": self._classifier and self._classifier.producer(),
        }


def _classifier(config: Config) -> "ExpressionClassifier":
    from synthfer.gates._expression_classifier import ExpressionClassifier  # a config is read without torch

    return ExpressionClassifier(str(config.judge), "gate.edits.judge", config.modules)


def gain(before: float, after: float) -> float:
    """The relative expression gain of two probabilities; 0 where nothing was left to gain."""
    return float((after - before) / (1 - before)) if before < 1 else 0.0


def _face(picture: np.ndarray, image: GeneratedImage) -> np.ndarray:
    """The part of a picture where the face is; the whole where no box is known, or the box is of another picture."""
    fits = image.box is not None and picture.shape == image.pixels.shape
    return crop_box(picture, image.box) if fits and image.box else picture


def _background(source: np.ndarray, image: GeneratedImage) -> float | None:
    """The mean absolute change outside the box; None where there is no box or nothing is outside it."""
    if image.box is None or source.shape != image.pixels.shape:
        return None
    outside = np.ones(source.shape[:2], bool)
    left, top = (max(0, math.floor(edge)) for edge in image.box[:2])
    right, bottom = (max(0, math.ceil(edge)) for edge in image.box[2:])
    outside[top:bottom, left:right] = False  # a pixel that the box touches counts as inside
    return float(np.abs(image.pixels[outside].astype(np.int16) - source[outside]).mean()) if outside.any() else None
