"""Restoration: what an editor blurred or a paste left visible is drawn anew by CodeFormer (codeformer.py).

    restorer = Restorer(RestoreConfig(weights="codeformer.pth"))       once per worker
    sharp = restorer.apply(faces, seeds)                               uint8 in, uint8 out

SyntFER (arXiv 2605.17483) first damages the face on purpose, most where the edited rectangle was pasted, so that the
network may not keep the seam: `degrade`. Weights are the user's to bring: codeformer.pth of the authors' release, whose
licence (S-Lab 1.0) allows no commercial use.
"""

import hashlib
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from synthfer.config import ConfigError, option
from synthfer.faces.align import Box

if TYPE_CHECKING:
    from torch import Tensor, device

log = logging.getLogger(__name__)

LICENCE = "S-Lab License 1.0: the published weights of CodeFormer are not for commercial use"
_LEVELS = (1, 2, 2, 4, 4, 8)
# SyntFER's damage: px of the ring at 512; kernel and sigma of the blurs, levels 0..1 of the noises.
_RING, _RING_SIDE = 30, 512
_RING_BLUR, _BLUR = (15, 5.0), (5, 2.0)
_RING_NOISE, _NOISE = 0.15, 0.05


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which network the weights are of; the defaults are the published one. Smaller ones serve tests."""

    size: int = option(512, "side of its faces in pixels", low=16)
    width: int = option(64, "channels of the first level, a multiple of 32", low=32)
    multiples: tuple[int, ...] = option(_LEVELS, "channels of each level, in first ones; each halves the side", low=1)
    codes: int = option(1024, "codes in the book", low=1)
    code_width: int = option(256, "numbers of a code", low=1)
    dim: int = option(512, "width of the transformer", low=1)
    heads: int = option(8, "heads of the transformer", low=1)
    layers: int = option(9, "layers of the transformer", low=1)

    def __post_init__(self) -> None:
        if self.width % 32 or self.dim % self.heads or self.size % 2 ** (len(self.multiples) - 1):
            raise ValueError(
                f"network: width {self.width} must be a multiple of 32, dim {self.dim} of heads {self.heads}, and size"
                f" {self.size} must halve {len(self.multiples) - 1} times."
            )


@dataclass(frozen=True, kw_only=True)
class RestoreConfig:
    """Whether faces are restored, and how; without weights they are left as they are."""

    weights: str | None = option(None, "codeformer.pth or its tensors as .safetensors, local or s3://; null: no step")
    fidelity: float = option(0.5, "w: 0 is the sharpest, 1 the nearest to the input", low=0, high=1)
    adain: bool = option(True, "keep light and tint of the input")
    degrade: bool = option(False, "blur and noise before, most along the pasted edge (SyntFER)")
    batch_size: int = option(4, "faces per call of the network; a fixed shape, bits depend on it", low=1)
    network: Network = field(default_factory=Network)


class Restorer:
    """CodeFormer with its weights. A face depends on no neighbour: every call has one shape, noise has its own seed."""

    def __init__(self, config: RestoreConfig, where: "device | None" = None) -> None:
        """`ConfigError`: no weights, no such file, or one that does not fit. `where` is the CPU unless given."""
        import torch

        from synthfer.faces.codeformer import CodeFormer

        if config.weights is None:
            raise ConfigError("restore.weights: none are given; name the codeformer.pth that you have downloaded.")
        self.config, self.size = config, config.network.size
        self._device = where or torch.device("cpu")
        with torch.device("meta"):
            network = CodeFormer(config.network)
        self._sha256 = _load(network, config.weights)
        self._network = network.requires_grad_(False).float().eval().to(self._device)
        _tell_licence(config.weights)

    def apply(
        self,
        faces: np.ndarray,
        seeds: Sequence[int],
        boxes: Sequence[Box | None] | None = None,
        size: int | None = None,
    ) -> np.ndarray:
        """The faces (uint8, n x h x w x 3, RGB) restored: of their own shape, or uint8 (n, size, size, 3).

        The network works on a square of its size; with `size` so large, nothing of what it draws is lost. `seeds` are
        those of the noise with `degrade`, one per face; `boxes` says where on each face the edited rectangle was
        pasted, in its pixels, None: nowhere. `ValueError`: other arrays, or not one seed per face.
        """
        if faces.dtype != np.uint8 or faces.ndim != 4 or faces.shape[3] != 3:
            raise ValueError(f"restore: faces are {faces.dtype} {faces.shape}, expected uint8 (n, height, width, 3).")
        pasted = [None] * len(faces) if boxes is None else list(boxes)
        if not len(seeds) == len(pasted) == len(faces):
            raise ValueError(f"restore: {len(seeds)} seeds and {len(pasted)} boxes for {len(faces)} faces.")
        height, width = (size, size) if size else faces.shape[1:3]
        ready = [self._prepared(*given) for given in zip(faces, seeds, pasted, strict=True)]
        result = np.empty((len(faces), height, width, 3), np.uint8)
        for start in range(0, len(ready), self.config.batch_size):
            for place, face in enumerate(self._called(ready[start : start + self.config.batch_size]), start):
                result[place] = _resized(face, height, width)
        return result

    def _prepared(self, face: np.ndarray, seed: int, box: Box | None) -> "Tensor":
        """A face as the network reads it: float32 (3, size, size) in 0..1, damaged where the config says so."""
        import torch

        pixels = torch.from_numpy(_resized(face, self.size, self.size)).permute(2, 0, 1) / 255
        if not self.config.degrade:
            return pixels
        scale = self.size / np.array(face.shape[1::-1] * 2)
        ring = None if box is None else _ring(tuple((np.array(box) * scale).tolist()), self.size)
        return degraded(pixels, ring, seed)

    def _called(self, faces: "list[Tensor]") -> list[np.ndarray]:
        import torch

        filled = torch.stack([*faces, *[faces[-1]] * (self.config.batch_size - len(faces))]).to(self._device)
        with torch.inference_mode():
            drawn = self._network(filled * 2 - 1, self.config.fidelity, self.config.adain)
        levels = ((drawn[: len(faces)].float().clamp(-1, 1) + 1) * 127.5).round().byte()
        return list(levels.permute(0, 2, 3, 1).cpu().numpy())

    def producer(self) -> dict[str, Any]:
        """What the faces are a function of, as JSON: options and the weights' sha256."""
        told = asdict(self.config)
        del told["weights"]
        return told | {"weights_sha256": self._sha256, "licence": LICENCE}


def degraded(pixels: "Tensor", ring: "Tensor | None", seed: int) -> "Tensor":
    """SyntFER's damage to a face (float32, 3 x size x size, 0..1) on the CPU; `ring` is 1 along the pasted edge.

    The ring is blurred, then all; the ring gets noise, all is blurred again and gets less noise.
    """
    import torch

    noise = torch.Generator().manual_seed(seed)
    if ring is not None:
        pixels = torch.where(ring > 0, _blurred(pixels, *_RING_BLUR), pixels)
    pixels = _blurred(pixels, *_BLUR)
    on_ring = torch.randn(pixels.shape, generator=noise) * _RING_NOISE  # always drawn: the rest is of the seed alone
    if ring is not None:
        pixels = (pixels + on_ring * ring).clamp(0, 1)
    pixels = _blurred(pixels, *_BLUR)
    return (pixels + torch.randn(pixels.shape, generator=noise) * _NOISE).clamp(0, 1)


def _ring(box: Box, size: int) -> "Tensor":
    """float32 (size, size), 1 on the outline of `box`, half its thickness to each side."""
    import torch

    half = _RING * size / _RING_SIDE / 2
    at = torch.arange(size) + 0.5
    left, top, right, bottom = box
    # How far inside the box, negative outside.
    across, down = torch.minimum(at - left, right - at), torch.minimum(at - top, bottom - at)
    return (torch.minimum(down[:, None], across[None]).abs() <= half).float()


def _blurred(pixels: "Tensor", kernel: int, sigma: float) -> "Tensor":
    """Gaussian, mirrored at the edges without repeating them."""
    import torch
    import torch.nn.functional as F

    at = torch.arange(kernel) - kernel // 2
    weights = torch.exp(-(at**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    reach = kernel // 2
    padded = F.pad(pixels[:, None], (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))[:, 0]


def _resized(face: np.ndarray, height: int, width: int) -> np.ndarray:
    if face.shape[:2] == (height, width):
        return face.copy()
    return np.array(Image.fromarray(face).resize((width, height), Image.Resampling.BICUBIC))


def _load(network: Any, uri: str) -> str:
    """Puts the file's tensors into a network that has none yet; the sha256 of the file."""
    from synthfer.store import open_store
    from synthfer.tensors import fitting, read_tensors

    folder, _, name = uri.rpartition("/")
    store = open_store(folder or ".")
    try:
        body = store.get(name)
    except FileNotFoundError:
        raise ConfigError(f"restore.weights: there is no {store.uri}/{name}") from None
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / name
        path.write_bytes(body)
        try:
            network.load_state_dict(fitting(network, read_tensors(path), {}, uri), assign=True)
        except ValueError as error:
            raise ConfigError(f"restore.weights: {str(error).replace(str(path), uri)}") from error
    return hashlib.sha256(body).hexdigest()


@cache
def _tell_licence(uri: str) -> None:
    """Once per process and file."""
    log.warning("%s: licence: %s", uri, LICENCE)
