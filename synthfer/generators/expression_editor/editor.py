"""The way of a face through an edit: found, cut out, edited, restored, put back. A picture is a function of its row.

Every call of the network has one shape, short batches repeat their last row; arithmetic is float32. A published network
works on BGR, as its authors' code fed it: its card says so, and faces are turned before and after.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

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
    filled,
    run_exactly,
    to_pixels,
)
from synthfer.generators.expression_editor import Config
from synthfer.generators.expression_editor.codes import Plane
from synthfer.generators.expression_editor.networks import Generator, NetworkConfig
from synthfer.sample import Row

log = logging.getLogger(__name__)
ARCHITECTURE = "expression_editor"
LICENCE = "the published weights of GANmut are not for commercial use; if this file is one of them, so are its edits"


@dataclass(frozen=True)
class Cut:
    """A face out of its picture: `pixels` uint8 (size, size, 3), the matrix that took it there, its box and score."""

    pixels: np.ndarray
    matrix: np.ndarray
    box: Box
    score: float | None


@dataclass(frozen=True)
class _Work:
    row: Row
    picture: np.ndarray
    face: Cut
    point: np.ndarray


class ExpressionEditor:
    """A loaded network as a `Generator`. One call at a time: lock it where threads share it."""

    source_type = "compositeWithTrainedAlgorithmicMedia"

    def __init__(self, config: Config) -> None:
        """Loads the weights; see `build` for errors."""
        self._config = config
        self.batch_size = config.batch_size
        self._device = device_of(config.device)
        loaded = weights.read(config.weights, ARCHITECTURE)
        if loaded.card.licence is None and loaded.card.source != weights.OWN:
            log.warning("%s: its card names no licence: %s", config.weights, LICENCE)
        network = weights.options_of(NetworkConfig, loaded.card)
        # Whole: what a card leaves to defaults makes the pictures, too.
        self._facts = weights.facts(loaded) | {"options": asdict(network)}
        self._network = weights.restored(lambda: Generator(network), loaded).to(self._device)
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
        """What makes the pictures, as JSON: weights, the way of a face, versions; no path and no machine."""
        config = self._config
        found = {"margin": config.margin, "min_score": config.min_score}
        detector = {**found, "detector": self._detector.producer()} if self._detector else {}
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
        """What may change from worker to worker, and with it the last bits of a picture: recorded, not hashed."""
        return device_notes(self._device)

    # -- the three parts of the way, which can be timed alone

    def find(self, picture: np.ndarray) -> Cut | None:
        """The face of a picture (uint8, H x W x 3, RGB), stretched to the network's size; None where there is none.

        A found face is cut out as the square about its box.
        """
        if self._detector is None:
            whole = (0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))
            return Cut(*cut(picture, whole, self.size), box=whole, score=None)
        found = self._detector.detect(picture)
        face = next((face for face in found if face.score >= self._config.min_score), None)
        if face is None:
            return None
        ((left, top, right, bottom),) = squared(np.array([face.box])).tolist()
        more = self._config.margin * (right - left)
        box = (left - more, top - more, right + more, bottom + more)
        return Cut(*cut(picture, box, self.size), box=box, score=face.score)

    def edit(self, crops: Sequence[np.ndarray], points: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        """Edited crops (uint8, size x size x 3, RGB), None where values are not finite; at most `batch_size`."""
        pixels, codes = (
            filled([*map(torch.from_numpy, parts)], self.batch_size).to(self._device) for parts in (crops, points)
        )
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
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

    def _make(self, rows: Sequence[Row], faces: Sequence[Faces]) -> list[Picture]:
        cuts: dict[int, Cut | None] = {}  # rows of one face share its pixels, and what is found in them
        results: list[Picture | _Work] = [self._begin(row, given, cuts) for row, given in zip(rows, faces, strict=True)]
        places = [i for i, result in enumerate(results) if isinstance(result, _Work)]
        works = [result for result in results if isinstance(result, _Work)]
        for i, picture in zip(places, self._attempt(works), strict=True):
            results[i] = picture
        return [result for result in results if not isinstance(result, _Work)]

    def _begin(self, row: Row, faces: Faces, cuts: dict[int, Cut | None]) -> "_Work | Failure":
        """What the network needs of a row, or why there is nothing to edit."""
        if len(faces) != 1:
            return Failure(f"an edit is made from one face, the row has {len(faces)}")
        try:
            point = self.plane.point(row)
            if id(faces[0]) not in cuts:
                cuts[id(faces[0])] = self.find(faces[0])
            face = cuts[id(faces[0])]
        except ROW_ERRORS as error:
            if concerns_the_device(error):
                raise
            return Failure(str(error))
        if face is None:
            return Failure(f"no face found with a probability of {self._config.min_score:g} or more")
        return _Work(row, faces[0], face, point)

    def _attempt(self, works: Sequence[_Work]) -> list[Picture]:
        """The pictures of one call; if it raises, each row has a call of its own and only the guilty ones fail."""
        if not works:
            return []
        try:
            return self._finish(works, self.edit([work.face.pixels for work in works], [work.point for work in works]))
        except ROW_ERRORS as error:
            if concerns_the_device(error):
                raise
            if len(works) == 1:
                return [Failure(f"the edit failed: {type(error).__name__}: {error}")]
        return [picture for work in works for picture in self._attempt([work])]

    def _finish(self, works: Sequence[_Work], edits: Sequence[np.ndarray | None]) -> list[Picture]:
        finite = [(work, edit) for work, edit in zip(works, edits, strict=True) if edit is not None]
        done = iter(self._put_back([work for work, _ in finite], [edit for _, edit in finite]))
        not_finite = Failure("the edited face has values that are not finite (NaN)")
        return [
            not_finite if edit is None else _told(work, edit, next(done))
            for work, edit in zip(works, edits, strict=True)
        ]

    def _put_back(self, works: Sequence[_Work], edits: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The pictures with their edits, restored where that is asked for."""
        patches, seeds, restorer = list(edits), [work.row.seed for work in works], self._restorer
        if restorer and works and self._config.restored == "face":
            patches = list(restorer.apply(np.stack(edits), seeds, size=restorer.size))
        found = [
            self.put_back(work.picture, patch, work.face.matrix) for work, patch in zip(works, patches, strict=True)
        ]
        if restorer and self._config.restored == "picture":
            # One by one: sources have sizes of their own.
            boxes = [None if self._detector is None else work.face.box for work in works]
            ready = zip(found, seeds, boxes, strict=True)
            found = [restorer.apply(picture[None], [seed], [box])[0] for picture, seed, box in ready]
        return found


def _told(work: _Work, edit: np.ndarray, pixels: np.ndarray) -> GeneratedImage:
    face = work.face
    change = float(np.abs(edit.astype(np.int16) - face.pixels).mean() / 255)
    scores = {"change": change} | ({} if face.score is None else {"face": face.score})
    return GeneratedImage(pixels=pixels, scores=scores, box=face.box, matrix=face.matrix)
