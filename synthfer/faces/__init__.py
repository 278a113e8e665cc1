"""The face step of an import: detect the face, align it, crop it, and record where it was.

    step = FaceStep(FaceConfig(align=True, size=224, margin=0.1))     once per worker
    crop = step.apply(pixels)                                         None: no face

A changed crop can be pasted back: the matrix says where each of its pixels comes from.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synthfer.faces.align import SIDE, Box, align, crop_box, visible, warp, widened
from synthfer.limits import MAX_MARGIN, MAX_SIDE
from synthfer.schema import option

if TYPE_CHECKING:
    from synthfer.faces.mtcnn import Face

_AROUND = 0.5  # of a box's longer side, shown to the detector around it: given boxes often cut off the chin


@dataclass(frozen=True, kw_only=True)
class FaceConfig:
    """How faces are detected and cropped before a picture is stored; the defaults leave it as it is."""

    align: bool = option(False, "detect the face (MTCNN) and align it by five points")
    size: int | None = option(
        None,
        f"side of the square crop in pixels; null: {SIDE} when aligning, else pictures keep their size",
        low=1,
        high=MAX_SIDE,
    )
    margin: float = option(
        0.0,
        "added on each side: of the 112-pixel template when aligning, else of the given box's longer side",
        low=0,
        high=MAX_MARGIN,
    )
    min_score: float = option(
        0.9, "probability from which a detected face counts; none below 0.7 is detected", low=0, high=1
    )
    weights: str | None = option(
        None, "folder with pnet.pt, rnet.pt and onet.pt; null: those of the installed facenet-pytorch 2.6.0"
    )


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """A face cut out of a picture.

    `pixels` are uint8, H x W x 3; `box` is the face's (left, top, right, bottom) in the picture, detected or given,
    or the whole picture; `matrix` (float64, 2 x 3) maps the picture's coordinates to the crop's; `score` is the
    detector's, 0..1, None where no face was detected but the box was given.
    """

    pixels: np.ndarray
    box: Box
    matrix: np.ndarray
    score: float | None


class FaceStep:
    """Built once per worker; the detector is loaded only for aligning. One picture's crop depends on no other."""

    def __init__(self, config: FaceConfig) -> None:
        """`ConfigError` says what to do where the detector's weights are missing or not the published ones."""
        self.config = config
        self._detector = None
        if config.align:
            # Here, so that reading a config does not wait for torch.
            from synthfer.faces.mtcnn import Detector

            self._detector = Detector(Path(config.weights) if config.weights else None)

    def apply(self, pixels: np.ndarray, box: Box | None = None) -> FaceCrop | None:
        """The face of a picture (uint8, H x W x 3, RGB); None where aligning finds none.

        `box` is the collection's own (left, top, right, bottom). Aligning takes the detected face that overlaps most
        with it. Without aligning, the visible part of the box, or without a box the whole picture, is cut out: as it
        is, or with a `size` as the square about it, edges replicated. `ValueError` names a box that is empty or
        outside the picture.
        """
        if self._detector is None:
            return self._cut(pixels, box)
        face = self._detect(pixels, box)
        if face is None:
            return None
        crop, matrix = align(pixels, face.points, self.config.size or SIDE, self.config.margin)
        return FaceCrop(crop, face.box, matrix, face.score)

    def producer(self) -> dict[str, Any]:
        """What the crops depend on, as JSON: options, and the detector with its weights."""
        config = self.config
        if self._detector is None:
            return {"align": False, "size": config.size, "margin": config.margin}
        detection = {"min_score": config.min_score, "detector": self._detector.producer()}
        return {"align": True, "size": config.size or SIDE, "margin": config.margin, **detection}

    def _detect(self, pixels: np.ndarray, box: Box | None) -> "Face | None":
        """The face that is taken: the first by the detector's order, or the one that overlaps most with the box."""
        assert self._detector is not None
        if box is None:
            return next((face for face in self._detector.detect(pixels) if face.score >= self.config.min_score), None)
        left, top, right, bottom = widened(box, _AROUND, pixels.shape[1], pixels.shape[0])
        faces = [face.shifted(left, top) for face in self._detector.detect(pixels[top:bottom, left:right])]
        good = [face for face in faces if face.score >= self.config.min_score and overlap(face.box, box) > 0]
        return max(good, key=lambda face: overlap(face.box, box), default=None)

    def _cut(self, pixels: np.ndarray, box: Box | None) -> FaceCrop:
        height, width = pixels.shape[:2]
        margin, size = (0.0 if box is None else self.config.margin), self.config.size
        box = box or (0.0, 0.0, float(width), float(height))
        if size is None:
            corner = np.array(widened(box, margin, width, height)[:2])
            matrix = np.column_stack([np.eye(2), -corner])
            return FaceCrop(crop_box(pixels, box, margin), box, matrix, None)
        left, top, right, bottom = visible(box, width, height)
        scale = size / (max(right - left, bottom - top) * (1 + 2 * margin))
        centre = np.array([left + right, top + bottom]) / 2
        matrix = np.column_stack([np.eye(2) * scale, size / 2 - scale * centre])
        return FaceCrop(warp(pixels, matrix, size), box, matrix, None)


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return shared / (areas - shared)
