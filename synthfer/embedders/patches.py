"""Histograms of gradient directions over a grid of cells: close for near copies, without weights to download.

The descriptor of Dalal and Triggs (2005) on the grey picture of 64 x 64 pixels: 8 x 8 cells, 8 directions without
sign, each pixel shared between the nearest cells and directions, contrast normalised over 3 x 3 cells. Small shifts,
noise, compression and changes of light change it little; a rotation, or a crop by a tenth, changes it much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from synthfer.schema import option

_SIDE = 64


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the descriptor; cells squared times directions is the length of a vector, 512 by default."""

    cells: int = option(8, "cells per side", low=2, high=16)
    directions: int = option(8, "directions of a gradient, over half a turn", low=2, high=32)


def build(config: Config) -> "Patches":
    """The descriptor; ready at once."""
    return Patches(config)


class Patches:
    """Histograms of gradient directions, less their mean, as a unit vector."""

    def __init__(self, config: Config) -> None:
        self.config = config
        centres = (np.arange(config.cells) + 0.5) * _SIDE / config.cells
        distance = np.abs(np.arange(_SIDE) + 0.5 - centres[:, None]) * config.cells / _SIDE
        self._share = np.clip(1 - distance, 0, None)

    def embed(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (n, cells * cells * directions); a picture without any contrast gives the vector of ones."""
        vectors = [self._vector(one) for one in pixels]
        return np.array(vectors, np.float32).reshape(len(vectors), self.config.cells**2 * self.config.directions)

    def _vector(self, pixels: np.ndarray) -> np.ndarray:
        grey = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        down, across = np.gradient(np.asarray(grey, np.float64) / 255)
        strength = np.hypot(down, across)
        at = np.arctan2(down, across) % np.pi * self.config.directions / np.pi
        bins = np.arange(self.config.directions)[:, None, None]
        away = np.abs(at - bins)
        share = np.clip(1 - np.minimum(away, self.config.directions - away), 0, None) * strength
        cells = self._share @ share @ self._share.T
        vector = (cells / self._contrast(cells)).ravel()
        vector -= vector.mean()
        norm = np.linalg.norm(vector)
        return vector / norm if norm > 1e-6 else np.full(vector.size, vector.size**-0.5)

    def _contrast(self, cells: np.ndarray) -> np.ndarray:
        """The strength around each cell; the floor keeps the noise of empty cells small."""
        energy = np.pad((cells**2).sum(0), 1, mode="edge")
        around = sum(energy[y : y + cells.shape[1], x : x + cells.shape[2]] for y in range(3) for x in range(3))
        return np.sqrt(around) + 0.5

    def producer(self) -> dict[str, Any]:
        """The grid; a picture's vector depends on nothing else."""
        return {"cells": self.config.cells, "directions": self.config.directions}
