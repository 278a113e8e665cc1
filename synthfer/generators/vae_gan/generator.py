"""Rows of variations to pictures: encode the sources, do what the row says to their codes, decode under its label.

The networks are called in one shape, `batch_size` rows filled by repeating the last picture, and have no layer that
looks at neighbours; the arithmetic on codes is done row by row, in float32 on the CPU, with chance from the row's seed
alone. So a picture is a function of weights, row and sources.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthfer import images
from synthfer.generators import Faces, Failure, Picture, weights
from synthfer.generators._device import device_notes, device_of, filled, run_exactly, to_pixels
from synthfer.generators.vae_gan import Config
from synthfer.generators.vae_gan.networks import CardOptions, VaeGan
from synthfer.generators.vae_gan.operations import Classes, Encoded, codes, refusal
from synthfer.sample import Row

ARCHITECTURE = "vae_gan"


class VaeGanGenerator:
    """A loaded VAE-GAN as a `Generator`. One call at a time: lock it where threads share it."""

    def __init__(self, config: Config) -> None:
        """Loads the weights; see `build` for errors."""
        # Read when CUDA starts; without it cuBLAS may choose other kernels from run to run.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self._config, self.batch_size = config, config.batch_size
        self._device = device_of(config.device)
        self._loaded = weights.read(config.weights, ARCHITECTURE)
        self._network: CardOptions = weights.options_of(CardOptions, self._loaded.card)
        net = weights.restored(lambda: VaeGan(self._network), self._loaded)
        self._classes = Classes.of(net.means, net.covariances, net.counts)
        self._net = net.to(self._device)

    def make(self, rows: Sequence[Row], faces: Sequence[Faces] = ()) -> list[Picture]:
        """One picture (uint8, size x size x 3, RGB) or `Failure` per row, in order; at most `batch_size` rows.

        A source of any size and shape is cut to the square in its middle and resized to the network's size.
        `OutOfMemory` where the device cannot hold a batch; the generator stays usable.
        """
        if len(rows) > self.batch_size:
            raise ValueError(f"{len(rows)} rows are more than the batch_size of {self.batch_size}.")
        given = list(faces) or [()] * len(rows)
        pictures: list[Picture | None] = [self._refused(row, own) for row, own in zip(rows, given, strict=True)]
        good = [i for i, refused in enumerate(pictures) if refused is None]
        if good:

            def run() -> list[Picture]:
                return self._vary([rows[i] for i in good], [given[i] for i in good])

            for i, picture in zip(good, run_exactly(run, self._config.threads, self._device), strict=True):
                pictures[i] = picture
        return [picture for picture in pictures if picture is not None]

    def producer(self) -> dict[str, Any]:
        """What makes the pictures, as JSON: the network, its weights' sha256, the batch's shape, torch's version."""
        return {
            "generator": ARCHITECTURE,
            **weights.facts(self._loaded),
            "batch_size": self.batch_size,
            # Kernels of a GPU do not depend on the number of CPU threads.
            "threads": self._config.threads if self._device.type == "cpu" else None,
            "versions": {"torch": torch.__version__.partition("+")[0]},
        }

    def device_notes(self) -> dict[str, str]:
        """What may change from worker to worker, and with it the last bits of a picture: recorded, not hashed."""
        return device_notes(self._device)

    def _refused(self, row: Row, faces: Faces) -> Failure | None:
        reason = refusal(row, len(faces)) or self._classes.lacking(row)
        for face in faces:
            if face.dtype != np.uint8 or face.ndim != 3 or face.shape[2] != 3 or not face.size:
                reason = reason or f"a source is {face.dtype} {face.shape}, expected uint8 (height, width, 3)"
        return Failure(reason) if reason else None

    def _vary(self, rows: Sequence[Row], faces: Sequence[Faces]) -> list[Picture]:
        """Pictures of rows that nothing is wrong with: encode all first faces, then all second ones, then decode."""
        encoded: list[list[Encoded]] = [[] for _ in rows]
        for place in range(2):
            having = [i for i, own in enumerate(faces) if len(own) > place]
            if having:
                for i, code in zip(having, self._encode([faces[i][place] for i in having]), strict=True):
                    encoded[i].append(code)
        told = [codes(row, own, self._classes) for row, own in zip(rows, encoded, strict=True)]
        early, late = (self._filled(list(part)).to(self._device) for part in zip(*told, strict=True))
        labels = self._filled([torch.tensor(row.label) for row in rows]).to(self._device)
        made = self._net.generator(early, labels, late)
        if self._network.grey:
            made = made.mean(1, keepdim=True).expand_as(made)
        return [*to_pixels(made[: len(rows)])]

    def _encode(self, pictures: Sequence[np.ndarray]) -> list[Encoded]:
        squares = [torch.from_numpy(images.square(picture, self._network.size)) for picture in pictures]
        batch = self._filled(squares).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
        mean, log_variance = (values.cpu() for values in self._net.encoder(batch))
        deviation = (0.5 * log_variance).exp()
        return [Encoded(mean[i], deviation[i]) for i in range(len(pictures))]

    def _filled(self, parts: list[Tensor]) -> Tensor:
        return filled(parts, self.batch_size)
