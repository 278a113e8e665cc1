"""Restoration by CodeFormer (codeformer.py): redraws a face that an editor blurred, or whose pasted edge is visible.

    restorer = Restorer(RestoreConfig(weights="codeformer.pth"))       once per worker
    sharp = restorer.apply(faces, seeds)                               uint8 in, uint8 out

With `degrade`, SyntFER (arXiv 2605.17483) first damages the face on purpose, most where the edited rectangle was
pasted, so that the network cannot keep the seam. The weights are not shipped: codeformer.pth of the authors' release,
whose licence (S-Lab 1.0) allows no commercial use.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from synthfer.checkpoints import Checkpoint, log_licence
from synthfer.faces.align import Box
from synthfer.faces.codeformer import CodeFormer
from synthfer.faces.restoration_config import RestoreConfig
from synthfer.schema import ConfigError
from synthfer.tensors import fitting, to_uint8

LICENCE = "S-Lab License 1.0: the published weights of CodeFormer are not for commercial use"
# SyntFER's damage: px of the ring at 512; kernel and sigma of the blurs, levels 0..1 of the noises.
_RING, _RING_SIDE = 30, 512
_RING_BLUR, _BLUR = (15, 5.0), (5, 2.0)
_RING_NOISE, _NOISE = 0.15, 0.05


class Restorer:
    """CodeFormer with its weights. A face depends on no neighbour: every call has one shape, noise has its own seed."""

    def __init__(self, config: RestoreConfig, device: torch.device | None = None) -> None:
        """`ConfigError`: no weights, no such file, or one that does not fit. The device is the CPU unless given."""
        if config.weights is None:
            raise ConfigError("restore.weights is not given: name the codeformer.pth that you have downloaded.")
        self.config, self.size = config, config.network.size
        self._device = device or torch.device("cpu")
        with torch.device("meta"):
            network = CodeFormer(config.network)
        self._sha256 = _load(network, config.weights)
        self._network = network.requires_grad_(False).float().eval().to(self._device)

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
        ready = [self._prepared(*face) for face in zip(faces, seeds, pasted, strict=True)]
        result = np.empty((len(faces), height, width, 3), np.uint8)
        for start in range(0, len(ready), self.config.batch_size):
            for number, face in enumerate(self._restored(ready[start : start + self.config.batch_size]), start):
                result[number] = _resized(face, height, width)
        return result

    def _prepared(self, face: np.ndarray, seed: int, box: Box | None) -> Tensor:
        """A face for the network: float32 (3, size, size) in 0..1, damaged where the config says so."""
        pixels = torch.from_numpy(_resized(face, self.size, self.size)).permute(2, 0, 1) / 255
        if not self.config.degrade:
            return pixels
        scale = self.size / np.array(face.shape[1::-1] * 2)
        ring = None if box is None else _ring(tuple((np.array(box) * scale).tolist()), self.size)
        return degraded(pixels, ring, seed)

    def _restored(self, faces: list[Tensor]) -> list[np.ndarray]:
        padded = torch.stack([*faces, *[faces[-1]] * (self.config.batch_size - len(faces))]).to(self._device)
        with torch.inference_mode():
            drawn = self._network(padded * 2 - 1, self.config.fidelity, self.config.adain)
        return list(to_uint8(drawn[: len(faces)]).permute(0, 2, 3, 1).cpu().numpy())

    def producer(self) -> dict[str, Any]:
        """What the faces are a function of, as JSON: options and the weights' sha256."""
        options = asdict(self.config)
        del options["weights"]
        return options | {"weights_sha256": self._sha256, "licence": LICENCE}


def degraded(pixels: Tensor, ring: Tensor | None, seed: int) -> Tensor:
    """SyntFER's damage to a face (float32, 3 x size x size, 0..1) on the CPU; `ring` is 1 along the pasted edge.

    The ring is blurred, then the whole face; the ring gets noise, then all is blurred again and gets less noise.
    """
    noise = torch.Generator().manual_seed(seed)
    if ring is not None:
        pixels = torch.where(ring > 0, _blurred(pixels, *_RING_BLUR), pixels)
    pixels = _blurred(pixels, *_BLUR)
    on_ring = (
        torch.randn(pixels.shape, generator=noise) * _RING_NOISE
    )  # drawn without a ring, too, so that the noise below depends on the seed alone
    if ring is not None:
        pixels = (pixels + on_ring * ring).clamp(0, 1)
    pixels = _blurred(pixels, *_BLUR)
    return (pixels + torch.randn(pixels.shape, generator=noise) * _NOISE).clamp(0, 1)


def _ring(box: Box, size: int) -> Tensor:
    """float32 (size, size), 1 on the outline of `box`, half its thickness to each side."""
    half = _RING * size / _RING_SIDE / 2
    at = torch.arange(size) + 0.5
    left, top, right, bottom = box
    # How far inside the box, negative outside.
    across, down = torch.minimum(at - left, right - at), torch.minimum(at - top, bottom - at)
    return (torch.minimum(down[:, None], across[None]).abs() <= half).float()


def _blurred(pixels: Tensor, kernel: int, sigma: float) -> Tensor:
    """Gaussian, mirrored at the edges without repeating them."""
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


def _load(network: CodeFormer, uri: str) -> str:
    """Puts the file's tensors into a network on the meta device, which has none yet; the sha256 of the file."""
    try:
        checkpoint = Checkpoint.open(uri)
        network.load_state_dict(fitting(network, checkpoint.tensors(), {}, uri), assign=True)
    except ValueError as error:
        raise ConfigError(f"restore.weights: {error}") from error
    log_licence(uri, LICENCE)
    return checkpoint.sha256
