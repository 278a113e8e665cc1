"""Detects the faces of a picture, with five points each: MTCNN, inference only, in plain torch.

Zhang, Zhang, Li and Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
2016 (arXiv 1604.02878). P-Net slides over a pyramid of the picture and proposes windows, R-Net rejects most of
them, O-Net scores the rest, refines the box and predicts the points. The weights are the authors' own, as the wheel
of facenet-pytorch 2.6.0 ships them (MIT); that package pins an old torch, so it is never imported.

The size of a face counts relative to the picture: the picture is first resized so that the smallest face to detect
fills O-Net's input. So a face that fills a 48 x 48 picture is detected like one in a photograph, in the same time. The
picture is padded with grey, the middle of the networks' range, so that windows may be larger than it.

Coordinates are continuous: (0, 0) is the picture's upper left corner, and pixel i covers [i, i + 1).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from synthfer.faces.align import Box
from synthfer.files import read_file
from synthfer.schema import ConfigError

INSTALL = "pip install --no-deps facenet-pytorch==2.6.0"
"""The command that installs the weights; nothing else of the package is used."""
MAX_BYTES = 2**24
"""Of a file of weights; the largest published one has 1.6 MB."""
SHA256 = {
    "pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}
THRESHOLDS = (0.6, 0.7, 0.7)
"""The paper's least probabilities of a face, after P-Net, R-Net and O-Net."""

_P_INPUT, _R_INPUT, _O_INPUT, _P_STRIDE = 12, 24, 48, 2
_SHRINK = 0.8  # finer than the 0.709 of the paper: more of the small and tightly cut faces are found
_LONGEST = 4  # the longest aspect ratio at full resolution; beyond it, the picture is resized smaller
_BORDER = 0.25  # padding around the picture for P-Net, in shorter sides


@dataclass(frozen=True, slots=True)
class Face:
    """A face in a picture, in its pixels.

    `box` is (left, top, right, bottom) and may reach over the picture's edges; `score` is O-Net's probability,
    0..1; `points` (float64, 5 x 2, each x then y) are left eye, right eye, nose, left and right corner of the
    mouth, left and right as the viewer sees them.
    """

    box: Box
    score: float
    points: np.ndarray

    def shifted(self, right: float, down: float) -> "Face":
        """The same face in a picture whose origin lies that many pixels further left and up."""
        left, top, end, bottom = self.box
        box = (left + right, top + down, end + right, bottom + down)
        return replace(self, box=box, points=self.points + np.array([right, down]))


class Detector:
    """The three networks with their weights, on the CPU. One picture at a time: no result depends on others."""

    def __init__(self, weights: Path | None = None, min_face: float = 0.2) -> None:
        """`weights` is a folder with pnet.pt, rnet.pt and onet.pt; None takes those of facenet-pytorch 2.6.0.

        `min_face` is the smallest face that is detected, in shorter sides of the picture, in (0, 1]; time grows
        with its inverse square. `ConfigError` says what to do where weights are missing or are not the published ones.
        """
        if not 0 < min_face <= 1:
            raise ConfigError(f"min_face: expected a share of the picture's shorter side in (0, 1], got {min_face}")
        self.min_face = min_face
        paths = _package() if weights is None else {name: weights / name for name in SHA256}
        self._propose, self._refine, self._output = (
            _loaded(net, paths[name]) for name, net in zip(SHA256, (_p_net(), _r_net(), _o_net()), strict=True)
        )

    def producer(self) -> dict[str, Any]:
        """What the result depends on beside the pixels: method, weights, smallest face."""
        return {"name": "mtcnn", "weights": dict(SHA256), "min_face": self.min_face}

    def detect(self, pixels: np.ndarray) -> list[Face]:
        """The faces of a picture (uint8, H x W x 3, RGB), the most prominent first.

        They are ordered by score x area x (1 - the distance of the box's centre from the picture's, in half
        diagonals). `ValueError`: another kind of array.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise ValueError(f"expected uint8 pixels (height, width, 3), got {pixels.dtype} {pixels.shape}.")
        height, width = pixels.shape[:2]
        side = _O_INPUT / self.min_face
        scale = min(side / min(height, width), _LONGEST * side / max(height, width))
        canvas = _Canvas(pixels, scale)
        with torch.inference_mode():
            boxes, scores, points = self._cascade(canvas)
        boxes, points = canvas.to_picture(boxes), canvas.to_picture(points)
        order = np.argsort(-scores * prominence(boxes, width, height), kind="stable")
        return [Face(_box(boxes[i]), float(scores[i]), points[i].reshape(5, 2)) for i in order]

    def _cascade(self, canvas: "_Canvas") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (N x 4), scores (N) and points (N x 10: x, y, x, y ...) on the canvas."""
        boxes, scores = self._proposals(canvas)
        boxes = squared(boxes[nms(boxes, scores, 0.7)])
        scores, moves = _run(self._refine, canvas.cut(boxes, _R_INPUT))
        good = scores >= THRESHOLDS[1]
        boxes, scores, moves = boxes[good], scores[good], moves[good]
        kept = nms(boxes, scores, 0.7)
        boxes = squared(moved(boxes[kept], moves[kept]))
        scores, moves, landmarks = _run(self._output, canvas.cut(boxes, _O_INPUT))
        good = scores >= THRESHOLDS[2]
        boxes, scores, moves, landmarks = boxes[good], scores[good], moves[good], landmarks[good]
        sides = (boxes[:, 2:] - boxes[:, :2])[:, None]
        # O-Net gives the five x first, then the five y, as shares of its window.
        points = (boxes[:, None, :2] + landmarks.reshape(-1, 2, 5).transpose(0, 2, 1) * sides).reshape(-1, 10)
        boxes = moved(boxes, moves)
        kept = nms(boxes, scores, 0.7, of_smaller=True)
        return boxes[kept], scores[kept], points[kept]

    def _proposals(self, canvas: "_Canvas") -> tuple[np.ndarray, np.ndarray]:
        """P-Net's windows over all levels of the pyramid, each level thinned out on its own."""
        boxes, scores = [np.zeros((0, 4))], [np.zeros(0)]
        for level, scale in canvas.pyramid():
            score, move = (values[0] for values in _run(self._propose, level[None]))
            rows, columns = np.nonzero(score >= THRESHOLDS[0])
            corner = np.stack([columns, rows], axis=1) * _P_STRIDE
            windows = canvas.from_level(np.concatenate([corner, corner + _P_INPUT], axis=1) / scale)
            score = score[rows, columns]
            kept = nms(windows, score, 0.5)
            boxes.append(moved(windows, move[:, rows, columns].T)[kept])
            scores.append(score[kept])
        return np.concatenate(boxes), np.concatenate(scores)


class _Canvas:
    """The picture at working size with grey around it; coordinates start at the corner of the grey."""

    def __init__(self, pixels: np.ndarray, scale: float) -> None:
        height, width = pixels.shape[:2]
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        inner = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
        self.border = min(size)
        self.scale = np.array([size[0] / width, size[1] / height])
        self.image = Image.fromarray(
            np.pad(inner, ((self.border,) * 2, (self.border,) * 2, (0, 0)), constant_values=127)
        )
        self._cut_off = self.border - round(_BORDER * min(size))

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Canvas coordinates (N x 2k: x, y, x, y ...) as those of the picture."""
        repeats = points.shape[1] // 2
        return (points - self.border) / np.tile(self.scale, repeats)

    def from_level(self, points: np.ndarray) -> np.ndarray:
        """Coordinates in the part of which the pyramid is made as those of the canvas."""
        return points + self._cut_off

    def pyramid(self) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        """Normalised pictures (3 x H x W) of falling size, and each one's scale (4: x, y, x, y)."""
        width, height = (side - 2 * self._cut_off for side in self.image.size)
        box = (self._cut_off, self._cut_off, self._cut_off + width, self._cut_off + height)
        scale = _P_INPUT / _O_INPUT
        while min(width, height) * scale >= _P_INPUT:
            size = (round(width * scale), round(height * scale))
            level = self.image.resize(size, Image.Resampling.BILINEAR, box=box)
            yield _normalised(np.asarray(level)[None])[0], np.tile(np.divide(size, (width, height)), 2)
            scale *= _SHRINK

    def cut(self, boxes: np.ndarray, side: int) -> torch.Tensor:
        """The boxes' pixels at side x side, normalised (N x 3 x side x side)."""
        # Regression may move a box off the canvas or make it empty: it keeps at least one pixel.
        low = boxes[:, :2].clip(0, np.array(self.image.size) - 1)
        high = np.maximum(boxes[:, 2:].clip(0, self.image.size), low + 1)
        cuts = np.zeros((len(boxes), side, side, 3), dtype=np.uint8)
        for cut, box in zip(cuts, np.concatenate([low, high], axis=1), strict=True):
            cut[:] = np.asarray(self.image.resize((side, side), Image.Resampling.BILINEAR, box=tuple(box)))
        return _normalised(cuts)


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, of_smaller: bool = False) -> np.ndarray:
    """Non-maximum suppression: the indices of `boxes` (N x 4) that stay, best score first.

    A box is dropped where it overlaps a better one by more than `threshold`: intersection over union, or over the
    smaller of the two boxes.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    left, kept = np.argsort(-scores, kind="stable"), []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        corners = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = (corners[1] - corners[0]).clip(0).prod(axis=1)
        whole = np.minimum(areas[best], areas[left]) if of_smaller else areas[best] + areas[left] - shared
        left = left[shared <= threshold * whole]
    return np.array(kept, dtype=np.intp)


def moved(boxes: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Boxes (N x 4) after a network's regression: each edge moved by a share of the box's width or height."""
    return boxes + moves * np.tile(boxes[:, 2:] - boxes[:, :2], 2)


def squared(boxes: np.ndarray) -> np.ndarray:
    """Each box (N x 4) as the square of its longer side about the same centre."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def _box(edges: np.ndarray) -> Box:
    left, top, right, bottom = (float(edge) for edge in edges)
    return left, top, right, bottom


def prominence(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Prominence of each box (N x 4): area x (1 - distance from the picture's centre in half diagonals), >= 0."""
    area = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    away = (boxes[:, :2] + boxes[:, 2:]) / 2 - np.array([width, height]) / 2
    return area * (1 - np.hypot(*away.T) / (np.hypot(width, height) / 2)).clip(0)


def _normalised(pixels: np.ndarray) -> torch.Tensor:
    """uint8 N x H x W x 3 as float32 N x 3 x H x W in about -1..1, the range of the weights."""
    return (torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32)) - 127.5) / 128


def _run(net: nn.Module, pixels: torch.Tensor) -> list[np.ndarray]:
    return [values.double().numpy() for values in net(pixels)]


class _Net(nn.Module):
    """A trunk of layers and heads on top of it: the probability of a face, then regressions."""

    def __init__(self, trunk: dict[str, nn.Module], heads: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in (trunk | heads).items():
            self.add_module(name, layer)
        self._trunk, self._heads = tuple(trunk), tuple(heads)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        for name in self._trunk:
            pixels = self.get_submodule(name)(pixels)
        classes, *regressions = (self.get_submodule(name)(pixels) for name in self._heads)
        return [classes.softmax(dim=1)[:, 1], *regressions]


class _ColumnsFirst(nn.Module):
    """Flattens N x C x H x W in the order W, H, C: the dense layers were trained in a column-major language."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.permute(0, 3, 2, 1).flatten(1)


def _block(index: int, before: int, after: int, kernel: int, pool: int = 0) -> dict[str, nn.Module]:
    """A convolution, its PReLU and, where `pool` is not 0, a max-pooling of that window by strides of two."""
    layers: dict[str, nn.Module] = {
        f"conv{index}": nn.Conv2d(before, after, kernel),
        f"prelu{index}": nn.PReLU(after),
    }
    # The last window may hang over the edge.
    return layers | ({f"pool{index}": nn.MaxPool2d(pool, 2, ceil_mode=True)} if pool else {})


def _dense(index: int, before: int, after: int) -> dict[str, nn.Module]:
    return {
        "flat": _ColumnsFirst(),
        f"dense{index}": nn.Linear(before, after),
        f"prelu{index}": nn.PReLU(after),
    }


def _p_net() -> _Net:
    trunk = _block(1, 3, 10, 3, pool=2) | _block(2, 10, 16, 3) | _block(3, 16, 32, 3)
    return _Net(trunk, {"conv4_1": nn.Conv2d(32, 2, 1), "conv4_2": nn.Conv2d(32, 4, 1)})


def _r_net() -> _Net:
    trunk = _block(1, 3, 28, 3, pool=3) | _block(2, 28, 48, 3, pool=3) | _block(3, 48, 64, 2) | _dense(4, 576, 128)
    return _Net(trunk, {"dense5_1": nn.Linear(128, 2), "dense5_2": nn.Linear(128, 4)})


def _o_net() -> _Net:
    trunk = _block(1, 3, 32, 3, pool=3) | _block(2, 32, 64, 3, pool=3) | _block(3, 64, 64, 3, pool=2)
    trunk |= _block(4, 64, 128, 2) | _dense(5, 1152, 256)
    return _Net(trunk, {f"dense6_{head}": nn.Linear(256, out) for head, out in ((1, 2), (2, 4), (3, 10))})


def _package() -> dict[str, Path]:
    """The weight files of the installed facenet-pytorch."""
    try:
        listed = files("facenet-pytorch") or []
    except PackageNotFoundError as error:
        raise ConfigError(f"the face detector's weights are not installed; run: {INSTALL}") from error
    paths = {file.name: Path(str(file.locate())) for file in listed if file.name in SHA256}
    if missing := SHA256.keys() - paths.keys():
        raise ConfigError(f"facenet-pytorch is installed without {', '.join(sorted(missing))}; run: {INSTALL}")
    return paths


def _loaded(net: nn.Module, path: Path) -> nn.Module:
    try:
        digest = hashlib.sha256(read_file(path, MAX_BYTES)).hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot read the face detector's weights {path}: {reason}. Give a folder with"
            f" {', '.join(SHA256)}, or none and run: {INSTALL}"
        ) from error
    if digest != SHA256[path.name]:
        raise ConfigError(
            f"{path} is not the published file: its sha256 is {digest}, not {SHA256[path.name]}."
            f" Copy it again from the package that this brings: {INSTALL}"
        )
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net.eval()
