"""One edit: the face is detected, cut out, edited, restored and pasted back. A picture is a function of its row.

Every call of the network has one shape, short batches repeat their last row; arithmetic is float32. A published network
works on BGR, as in its authors' code: its card says so, and channels are swapped before and after.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from synthfer.checkpoints import OWN
from synthfer.faces.align import Box
from synthfer.faces.mtcnn import Detector, squared
from synthfer.faces.paste import cut, paste
from synthfer.faces.restoration import Restorer
from synthfer.generators import Faces, Failure, GeneratedImage, Picture, weights
from synthfer.generators._device import (
    ROW_ERRORS,
    concerns_the_device,
    device_notes,
    device_of,
    fail_alone,
    fill_missing,
    padded,
    run_exactly,
    to_pixels,
)
from synthfer.generators.expression_editor import Config
from synthfer.generators.expression_editor.codes import Plane
from synthfer.generators.expression_editor.networks import Generator, NetworkConfig
from synthfer.sample import Row
from synthfer.tensors import to_floats

log = logging.getLogger(__name__)
ARCHITECTURE = "expression_editor"
LICENCE = "the published weights of GANmut are not for commercial use; if this file is one of them, so are its edits"


@dataclass(frozen=True)
class FaceCut:
    """A face cut out of its picture: `pixels` uint8 (size, size, 3), the matrix that did it, its box and score."""

    pixels: np.ndarray
    matrix: np.ndarray
    box: Box
    score: float | None


@dataclass(frozen=True)
class _Edit:
    """What the network needs of a row: the source picture, its face, and the point that the row asks for."""

    row: Row
    picture: np.ndarray
    face: FaceCut
    point: np.ndarray


class ExpressionEditor:
    """A loaded network as a `Generator`. One call at a time: lock it where threads share it."""

    source_type = "compositeWithTrainedAlgorithmicMedia"

    def __init__(self, config: Config) -> None:
        """Loads the weights; see `build` for errors."""
        self._config = config
        self.batch_size = config.batch_size
        self._device = device_of(config.device)
        checkpoint = weights.read(config.weights, ARCHITECTURE)
        if checkpoint.card.licence is None and checkpoint.card.source != OWN:
            log.warning("%s: its card names no licence: %s", config.weights, LICENCE)
        network = weights.options_of(NetworkConfig, checkpoint)
        # All options, since those that a card leaves to the defaults decide over the pictures, too.
        self._facts = weights.facts(checkpoint) | {"options": asdict(network)}
        self._network = weights.restored(lambda: Generator(network), checkpoint).to(self._device)
        self.plane = Plane(self._network)
        self.size = self._network.config.size
        self._detector = Detector() if config.crop == "detect" else None
        self._restorer = Restorer(config.restore, self._device) if config.restore.weights else None

    def make(self, rows: Sequence[Row], faces: Sequence[Faces] = ()) -> list[Picture]:
        """One `GeneratedImage` or `Failure` per row, in order; at most `batch_size` rows, sized as the sources.

        `OutOfMemory` where the device cannot hold a batch; the editor stays usable.
        """
        if len(rows) > self.batch_size or len(rows) != len(faces):
            raise ValueError(
                f"{len(rows)} rows with {len(faces)} sources; expected as many, at most {self.batch_size}."
            )
        return run_exactly(lambda: self._make(rows, faces), self._config.threads, self._device)

    def producer(self) -> dict[str, Any]:
        """What the pictures are a function of, as JSON: weights, steps of an edit, versions; no path, no machine."""
        config = self._config
        detection = {"margin": config.margin, "min_score": config.min_score}
        detector = {**detection, "detector": self._detector.producer()} if self._detector else {}
        restored = {"restored": config.restored, "restore": self._restorer.producer()} if self._restorer else {}
        return {
            "generator": ARCHITECTURE,
            **self._facts,
            "crop": config.crop,
            **detector,
            "paste": config.paste,
            **restored,
            "batch_size": self.batch_size,
            "threads": config.threads if self._device.type == "cpu" else None,
            "versions": {"torch": torch.__version__.partition("+")[0]},
        }

    def device_notes(self) -> dict[str, str]:
        """What may differ between workers, and with it the last bits of a picture: recorded, not hashed."""
        return device_notes(self._device)

    # -- the three steps of an edit, which can be timed alone

    def detect(self, picture: np.ndarray) -> FaceCut | None:
        """The face of a picture (uint8, H x W x 3, RGB), stretched to the network's size; None where there is none.

        A detected face is cut out as the square about its box.
        """
        if self._detector is None:
            whole = (0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))
            return FaceCut(*cut(picture, whole, self.size), box=whole, score=None)
        detected = self._detector.detect(picture)
        face = next((face for face in detected if face.score >= self._config.min_score), None)
        if face is None:
            return None
        ((left, top, right, bottom),) = squared(np.array([face.box])).tolist()
        more = self._config.margin * (right - left)
        box = (left - more, top - more, right + more, bottom + more)
        return FaceCut(*cut(picture, box, self.size), box=box, score=face.score)

    def edit(self, crops: Sequence[np.ndarray], points: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        """Edited crops (uint8, size x size x 3, RGB), None where values are not finite; at most `batch_size`."""
        pixels, codes = (
            padded([*map(torch.from_numpy, parts)], self.batch_size).to(self._device) for parts in (crops, points)
        )
        images = to_floats(pixels.permute(0, 3, 1, 2))
        bgr = self._network.config.channels == "BGR"
        with torch.no_grad():
            edits = self._network(images.flip(1) if bgr else images.contiguous(), codes)
        edits = edits.flip(1) if bgr else edits
        return [None if isinstance(edit, Failure) else edit for edit in to_pixels(edits[: len(crops)])]

    def put_back(self, picture: np.ndarray, patch: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """The picture (uint8, H x W x 3) with the edited crop, of any size, in its place; a whole one is replaced."""
        finer = matrix * (np.array(patch.shape[1::-1])[:, None] / self.size)
        return paste(picture, patch, finer, "hard" if self._config.crop == "whole" else self._config.paste)

    # -- rows

    @torch.inference_mode()
    def _make(self, rows: Sequence[Row], faces: Sequence[Faces]) -> list[Picture]:
        cuts: dict[int, FaceCut | None] = {}  # rows that share a source share its pixels, and the face detected there
        prepared = [self._prepared(row, given, cuts) for row, given in zip(rows, faces, strict=True)]

        def run(indexes: list[int]) -> list[Picture]:
            edits = [edit for edit in prepared if isinstance(edit, _Edit)]
            return fail_alone(self._edited, edits, "the edit")

        return fill_missing([edit if isinstance(edit, Failure) else None for edit in prepared], run)

    def _prepared(self, row: Row, faces: Faces, cuts: dict[int, FaceCut | None]) -> _Edit | Failure:
        """What the network needs of a row, or why there is nothing to edit."""
        if len(faces) != 1:
            return Failure(f"an edit is made from one face, the row has {len(faces)}")
        try:
            point = self.plane.point(row)
            if id(faces[0]) not in cuts:
                cuts[id(faces[0])] = self.detect(faces[0])
            face = cuts[id(faces[0])]
        except ROW_ERRORS as error:
            if concerns_the_device(error):
                raise
            return Failure(str(error))
        if face is None:
            return Failure(f"no face found with a probability of {self._config.min_score:g} or more")
        return _Edit(row, faces[0], face, point)

    def _edited(self, edits: Sequence[_Edit]) -> list[Picture]:
        """The pictures of one call of the network."""
        results = self.edit([edit.face.pixels for edit in edits], [edit.point for edit in edits])
        finite = [(edit, face) for edit, face in zip(edits, results, strict=True) if face is not None]
        pictures = iter(self._pasted([edit for edit, _ in finite], [face for _, face in finite]))
        not_finite = Failure("the edited face has values that are not finite (NaN)")
        return [
            not_finite if face is None else _with_scores(edit, face, next(pictures))
            for edit, face in zip(edits, results, strict=True)
        ]

    def _pasted(self, edits: Sequence[_Edit], faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The source pictures with their edited faces, restored where that is asked for."""
        patches, seeds, restorer = list(faces), [edit.row.seed for edit in edits], self._restorer
        if restorer and edits and self._config.restored == "face":
            patches = list(restorer.apply(np.stack(faces), seeds, size=restorer.size))
        pictures = [
            self.put_back(edit.picture, patch, edit.face.matrix) for edit, patch in zip(edits, patches, strict=True)
        ]
        if restorer and self._config.restored == "picture":
            # One by one: sources have sizes of their own.
            boxes = [None if self._detector is None else edit.face.box for edit in edits]
            ready = zip(pictures, seeds, boxes, strict=True)
            pictures = [restorer.apply(picture[None], [seed], [box])[0] for picture, seed, box in ready]
        return pictures


def _with_scores(edit: _Edit, edited: np.ndarray, pixels: np.ndarray) -> GeneratedImage:
    """The result with its scores: how much the face changed, 0..1, and the detector's probability."""
    face = edit.face
    change = float(np.abs(edited.astype(np.int16) - face.pixels).mean() / 255)
    scores = {"change": change} | ({} if face.score is None else {"face": face.score})
    return GeneratedImage(pixels=pixels, scores=scores, box=face.box, matrix=face.matrix)
