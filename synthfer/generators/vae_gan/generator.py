"""Rows of variations to pictures: encode the source faces, change their codes as the row says, decode under its label.

The networks are called in one shape, `batch_size` rows filled by repeating the last picture, and have no layer that
looks at neighbours; the arithmetic on codes is done row by row, in float32 on the CPU, with random numbers from the
row's seed alone. So a picture is a function of weights, row and sources.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from synthfer import images
from synthfer.generators import Faces, Failure, Picture, weights
from synthfer.generators._device import (
    check_batch,
    device_notes,
    device_of,
    fill_missing,
    padded,
    run_exactly,
    to_pixels,
)
from synthfer.generators.vae_gan import Config
from synthfer.generators.vae_gan.networks import CardOptions, VaeGan
from synthfer.generators.vae_gan.operations import Classes, Encoded, codes, refusal
from synthfer.sample import Row
from synthfer.tensors import to_floats

ARCHITECTURE = "vae_gan"


class VaeGanGenerator:
    """A loaded VAE-GAN as a `Generator`. One call at a time: lock it where threads share it."""

    def __init__(self, config: Config) -> None:
        """Loads the weights; see `build` for errors."""
        # CUDA reads it when it starts; without it cuBLAS may choose other kernels from run to run.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self._config, self.batch_size = config, config.batch_size
        self._device = device_of(config.device)
        checkpoint = weights.read(config.weights, ARCHITECTURE)
        self._facts = weights.facts(checkpoint)
        self._network: CardOptions = weights.options_of(CardOptions, checkpoint)
        net = weights.restored(lambda: VaeGan(self._network), checkpoint)
        self._classes = Classes.of(net.means, net.covariances, net.counts)
        self._net = net.to(self._device)

    def make(self, rows: Sequence[Row], faces: Sequence[Faces] = ()) -> list[Picture]:
        """One picture (uint8, size x size x 3, RGB) or `Failure` per row, in order; at most `batch_size` rows.

        A source of any size and shape is cut to the square in its middle and resized to the network's size.
        `OutOfMemory` where the device cannot hold a batch; the generator stays usable.
        """
        check_batch(rows, self.batch_size)
        given = list(faces) or [()] * len(rows)

        def run(indexes: list[int]) -> list[Picture]:
            some, theirs = [rows[i] for i in indexes], [given[i] for i in indexes]
            return run_exactly(lambda: self._vary(some, theirs), self._config.threads, self._device)

        return fill_missing([self._refusal(row, own) for row, own in zip(rows, given, strict=True)], run)

    def producer(self) -> dict[str, Any]:
        """What the pictures depend on, as JSON: the network, its weights' sha256, the batch size, torch's version."""
        return {
            "generator": ARCHITECTURE,
            **self._facts,
            "batch_size": self.batch_size,
            # Kernels of a GPU do not depend on the number of CPU threads.
            "threads": self._config.threads if self._device.type == "cpu" else None,
            "versions": {"torch": torch.__version__.partition("+")[0]},
        }

    def device_notes(self) -> dict[str, str]:
        """What may differ between workers, and with it the last bits of a picture: recorded, not hashed."""
        return device_notes(self._device)

    def _refusal(self, row: Row, faces: Faces) -> Failure | None:
        """Why no picture can be made of a row; None where one can."""
        reason = refusal(row, len(faces)) or self._classes.lacking(row)
        for face in faces:
            if face.dtype != np.uint8 or face.ndim != 3 or face.shape[2] != 3 or not face.size:
                reason = reason or f"a source is {face.dtype} {face.shape}, expected uint8 (height, width, 3)"
        return Failure(reason) if reason else None

    @torch.inference_mode()
    def _vary(self, rows: Sequence[Row], faces: Sequence[Faces]) -> list[Picture]:
        """Pictures of rows that are not refused: encode all first faces, then all second ones, then decode."""
        encoded: list[list[Encoded]] = [[] for _ in rows]
        for number in range(2):
            having = [i for i, own in enumerate(faces) if len(own) > number]
            if having:
                for i, code in zip(having, self._encode([faces[i][number] for i in having]), strict=True):
                    encoded[i].append(code)
        changed = [codes(row, own, self._classes) for row, own in zip(rows, encoded, strict=True)]
        early, late = (padded(list(part), self.batch_size).to(self._device) for part in zip(*changed, strict=True))
        labels = padded([torch.tensor(row.label) for row in rows], self.batch_size).to(self._device)
        decoded = self._net.generator(early, labels, late)
        if self._network.grey:
            decoded = decoded.mean(1, keepdim=True).expand_as(decoded)
        return [*to_pixels(decoded[: len(rows)])]

    def _encode(self, pictures: Sequence[np.ndarray]) -> list[Encoded]:
        squares = [torch.from_numpy(images.square(picture, self._network.size)) for picture in pictures]
        batch = to_floats(padded(squares, self.batch_size).to(self._device).permute(0, 3, 1, 2))
        mean, log_variance = (values.cpu() for values in self._net.encoder(batch))
        deviation = (0.5 * log_variance).exp()
        return [Encoded(mean[i], deviation[i]) for i in range(len(pictures))]
