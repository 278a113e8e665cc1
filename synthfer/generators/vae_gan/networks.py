"""The networks of the VAE-GAN: an encoder without labels, a generator and a discriminator conditioned on the class.

Semantic augmentation for the long tail (Li, Wang, Guan and Yin, arXiv 2411.17254) names the parts and the losses and no
layers; these are ours. The design is that of Larsen, Sonderby, Larochelle and Winther (ICML 2016). A class reaches the
generator by feature-wise affine maps (FiLM; Perez et al., AAAI 2018) and the discriminator by the inner product of its
embedding and the pooled features (Miyato and Koyama, ICLR 2018) under spectral norm (Miyato et al., ICLR 2018).

Pictures shrink by halves to a grid of 4, 6 or 7 squares a side while channels double up to `MOST`. There are group
norms only: a picture never depends on its neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from synthfer.expressions import EXPRESSIONS
from synthfer.schema import option

CLASSES = len(EXPRESSIONS)
GRIDS = {32: 4, 48: 6, 64: 4, 112: 7}
"""Sides of pictures, and of the smallest map of each."""
MOST = 256
_GROUP = 8  # channels that are normalised together
_EMBEDDING = 32  # length of the embedding of a class
_SLOPE = 0.2


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """What the shapes of the weights depend on."""

    size: int = option(48, f"side of the pictures in pixels: {', '.join(map(str, GRIDS))}")
    width: int = option(16, "channels at full size, a multiple of 8", low=8, high=128)
    latent: int = option(64, "numbers in the code of a picture", low=2, high=1024)

    def __post_init__(self) -> None:
        if self.size not in GRIDS:
            raise ValueError(f"size is {self.size}; it takes one of {', '.join(map(str, GRIDS))}.")
        if self.width % _GROUP:
            raise ValueError(f"width is {self.width}; it takes a multiple of {_GROUP}.")

    @property
    def channels(self) -> list[int]:
        """Channels of each map, from full size to the grid."""
        halvings = (self.size // GRIDS[self.size]).bit_length() - 1
        return [min(self.width * 2**i, MOST) for i in range(halvings + 1)]


@dataclass(frozen=True, kw_only=True)
class CardOptions(NetworkConfig):
    """The options of a network in its card."""

    grey: bool = option(False, "all pictures that it was trained on were grey, and so are those that it makes")


class Encoder(nn.Module):
    """Pictures float32 (n, 3, size, size) in [-1, 1] to mean and log-variance of their codes, (n, latent) each."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels, grid = config.channels, GRIDS[config.size]
        self.stem = nn.Conv2d(3, channels[0], 3, 1, 1)
        self.blocks = nn.ModuleList(_Down(a, b, normed=True) for a, b in pairwise(channels))
        self.norm = _norm(channels[-1])
        self.head = nn.Linear(channels[-1] * grid**2, 2 * config.latent)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.stem(_nhwc(pictures))
        for block in self.blocks:
            maps = block(maps)
        mean, log_variance = self.head(_leaky(self.norm(maps)).flatten(1)).chunk(2, 1)
        # Beyond these bounds the exponential underflows or overflows, for pictures far from the training data.
        return mean, log_variance.clamp(-12.0, 6.0)


class Generator(nn.Module):
    """Codes and classes to pictures. The last `late` blocks may be given another code, which decides the style."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels, self.grid = config.channels[::-1], GRIDS[config.size]
        condition = config.latent + _EMBEDDING
        self.late = (len(channels) - 1) // 2
        self.classes = nn.Embedding(CLASSES, _EMBEDDING)
        self.start = nn.Linear(condition, channels[0] * self.grid**2)
        self.blocks = nn.ModuleList(_Up(a, b, condition) for a, b in pairwise(channels))
        self.norm = _norm(channels[-1])
        self.last = nn.Conv2d(channels[-1], 3, 3, 1, 1)

    def forward(self, codes: Tensor, labels: Tensor, style: Tensor | None = None) -> Tensor:
        """Pictures float32 (n, 3, size, size) in (-1, 1) of codes (n, latent) and labels int64 (n,).

        `style`, codes (n, latent), goes to the late blocks in place of `codes`.
        """
        of_class = self.classes(labels)
        early = torch.cat([codes, of_class], 1)
        late = early if style is None else torch.cat([style, of_class], 1)
        maps = _nhwc(self.start(early).view(len(codes), -1, self.grid, self.grid))
        first_late = len(self.blocks) - self.late
        for number, block in enumerate(self.blocks):
            maps = block(maps, late if number >= first_late else early)
        pictures: Tensor = self.last(F.relu(self.norm(maps))).tanh()
        return pictures


@dataclass(frozen=True)
class CriticOutput:
    """The output of a network that rates pictures in training: scores (n, ...), and feature maps to compare."""

    scores: Tensor
    maps: Sequence[Tensor]

    def thirds(self) -> tuple["CriticOutput", "CriticOutput", "CriticOutput"]:
        """The outputs of three batches of one size that went through the network as one."""
        parts = zip(self.scores.chunk(3), *(maps.chunk(3) for maps in self.maps), strict=True)
        one, two, three = (CriticOutput(scores, maps) for scores, *maps in parts)
        return one, two, three


class Discriminator(nn.Module):
    """Scores pictures float32 (n, 3, size, size) of classes int64 (n,): above 0 for real, below for generated."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels = config.channels
        self.stem = spectral_norm(nn.Conv2d(3, channels[0], 3, 1, 1))
        self.blocks = nn.ModuleList(_Down(a, b, normed=False) for a, b in pairwise(channels))
        self.real = spectral_norm(nn.Linear(channels[-1], 1))
        self.of_class = spectral_norm(nn.Embedding(CLASSES, channels[-1]))

    def forward(self, pictures: Tensor, labels: Tensor) -> CriticOutput:
        maps, features = self.stem(_nhwc(pictures)), []
        for block in self.blocks:
            maps = block(maps)
            features.append(maps)
        pooled = _leaky(maps).mean((2, 3))
        return CriticOutput(self.real(pooled).squeeze(1) + (self.of_class(labels) * pooled).sum(1), features)


class AuxiliaryClassifier(nn.Module):
    """A classifier that only serves the training: pictures float32 (n, 3, size, size) in [-1, 1] to logits (n, 7)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels = config.channels
        self.stem = nn.Conv2d(3, channels[0], 3, 1, 1)
        self.blocks = nn.ModuleList(_Down(a, b, normed=True) for a, b in pairwise(channels))
        self.norm = _norm(channels[-1])
        self.head = nn.Linear(channels[-1], CLASSES)

    def forward(self, pictures: Tensor) -> CriticOutput:
        maps, features = self.stem(_nhwc(pictures)), []
        for block in self.blocks:
            maps = block(maps)
            features.append(maps)
        return CriticOutput(self.head(_leaky(self.norm(maps)).mean((2, 3))), features)


class VaeGan(nn.Module):
    """Encoder, generator and statistics of each class: all that makes new pictures, and all that a checkpoint holds.

    `means` (classes, latent) and `covariances` (classes, latent, latent) are of the encoded means of the training
    pictures of each class, `counts` how many there were: none before `learn_classes`.
    """

    means: Tensor
    covariances: Tensor
    counts: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.generator = Encoder(config), Generator(config)
        self.register_buffer("means", torch.zeros(CLASSES, config.latent))
        self.register_buffer("covariances", torch.eye(config.latent).repeat(CLASSES, 1, 1))
        self.register_buffer("counts", torch.zeros(CLASSES, dtype=torch.int64))

    @torch.no_grad()
    def learn_classes(self, codes: Tensor, labels: Tensor) -> None:
        """Sets mean and covariance of each class from the means (n, latent) of all training pictures' codes.

        A class of n rows with covariance S_c gets (n S_c + latent S) / (n + latent), where S is the covariance within
        all classes: shrinkage, as if it had `latent` more rows of an average class, so that a few rows alone do not
        decide on directions in which they happen not to differ. A class without rows gets the mean of all and S.
        """
        codes, labels = codes.double(), labels.to(codes.device)
        counts = torch.bincount(labels, minlength=CLASSES)
        sums = torch.zeros(CLASSES, codes.shape[1], dtype=codes.dtype, device=codes.device).index_add_(0, labels, codes)
        means = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(1), codes.mean(0))
        rest = codes - means[labels]
        within = rest.T @ rest / len(codes)
        weight = codes.shape[1]
        for label in range(CLASSES):
            own = rest[labels == label]
            self.covariances[label] = (own.T @ own + weight * within) / (len(own) + weight)
        self.means.copy_(means)
        self.counts.copy_(counts)


def _nhwc(maps: Tensor) -> Tensor:
    """The same with channels last in memory: a CPU convolves few channels a fifth to a third faster so."""
    return maps.contiguous(memory_format=torch.channels_last)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // _GROUP, channels)


def _leaky(maps: Tensor) -> Tensor:
    return F.leaky_relu(maps, _SLOPE)


class _Down(nn.Module):
    """Activate, convolve by strides of two, activate, convolve, beside an averaged shortcut."""

    def __init__(self, before: int, after: int, normed: bool) -> None:
        super().__init__()
        wrap = (lambda layer: layer) if normed else spectral_norm
        self.norm1 = _norm(before) if normed else nn.Identity()
        self.conv1 = wrap(nn.Conv2d(before, after, 3, 2, 1))
        self.norm2 = _norm(after) if normed else nn.Identity()
        self.conv2 = wrap(nn.Conv2d(after, after, 3, 1, 1))
        self.shortcut = wrap(nn.Conv2d(before, after, 1, bias=False))

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.conv1(_leaky(self.norm1(maps)))
        inner = self.conv2(_leaky(self.norm2(inner)))
        return inner + self.shortcut(F.avg_pool2d(maps, 2))


class _Up(nn.Module):
    """Convolve, double the size, convolve, each after a norm with scale and shift by the condition; and a shortcut."""

    def __init__(self, before: int, after: int, condition: int) -> None:
        super().__init__()
        self.film1, self.film2 = _Film(before, condition), _Film(after, condition)
        self.conv1 = nn.Conv2d(before, after, 3, 1, 1)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        self.shortcut = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        inner = self.conv1(F.relu(self.film1(maps, condition)))
        inner = self.conv2(F.relu(self.film2(_doubled(inner), condition)))
        return inner + _doubled(self.shortcut(maps))


class _Film(nn.Module):
    """A group norm, then scale and shift of each channel by a linear map of the condition."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(channels // _GROUP, channels, affine=False)
        self.told = nn.Linear(condition, 2 * channels)  # a key of checkpoints written so far, hence its name

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.told(condition)[:, :, None, None].chunk(2, 1)
        result: Tensor = self.norm(maps) * (1 + scale) + shift
        return result


def _doubled(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2.0, mode="nearest")
