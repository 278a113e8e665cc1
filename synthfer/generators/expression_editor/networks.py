"""The networks of GANmut (d'Apolito et al., CVPR 2021): a generator that edits a face by a point of a plane.

The generator is StarGAN's (Choi et al., CVPR 2018) with the point as two constant maps beside the picture. It also owns
the plane's landmarks, in the order of AffectNet's classes, neutral first:
- linear: six axes, one per expression; neutral is the origin, the distance from it is the strength;
- Gaussian: a mean and a covariance per class, by eigenvectors' angle and eigenvalues.
Names of parameters are those of the published files: 8,421,138 (linear) and 8,421,155 (Gaussian) in all. The published
discriminator is StarGAN's PatchGAN with a head that estimates the point.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthfer.schema import REQUIRED, option

SPACES = ("linear", "gaussian")
CLASSES = 7
_EMBEDDING = 64  # length of the point's embedding for modulated blocks
_SLOPE = 0.01  # of the leaky rectifiers


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The generator; the defaults are the published one, whose card must state its space, and BGR channels."""

    space: str = option(
        REQUIRED, "what codes are: directions with a strength, or points among Gaussians", choices=SPACES
    )
    size: int = option(128, "side of the faces in pixels, a multiple of 4", low=8, high=1024)
    width: int = option(64, "channels of the first layer", low=4, high=4096)
    blocks: int = option(6, "residual blocks", low=0, high=256)
    kernel: int = option(7, "side of the first and the last convolution's kernel, odd", low=3, high=63)
    code: str = option(
        "maps",
        "how the point enters: as maps beside the picture; or as scale and shift in each block, learned faster",
        choices=("maps", "blocks"),
    )
    output: str = option(
        "face",
        "what comes out: the face; or a face and where it counts, blended into the source (GANimation's attention)",
        choices=("face", "blend"),
    )
    channels: str = option(REQUIRED, "order of the channels, in and out", choices=("RGB", "BGR"))

    def __post_init__(self) -> None:
        if self.size % 4:
            raise ValueError(f"size: {self.size} is not a multiple of 4, as two halvings need.")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel: {self.kernel} is even, which would change the picture's size; give an odd one.")


class InstanceNorm(nn.InstanceNorm2d):
    """Always by the statistics of the instance.

    Published files have running statistics, which their authors' code never used, since it ran in training mode. They
    are loaded and saved, and neither used nor changed.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True, track_running_stats=True)

    def forward(self, maps: Tensor) -> Tensor:
        return F.instance_norm(maps, weight=self.weight, bias=self.bias, eps=self.eps)


class ResidualBlock(nn.Module):
    """Two convolutions, the second one's result added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.main = nn.Sequential(first, InstanceNorm(channels), nn.ReLU(inplace=True), second, InstanceNorm(channels))

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = maps + self.main(maps)
        return out


class ModulatedBlock(nn.Module):
    """A residual block whose first normalised maps are scaled and shifted channel by channel, by a point's embedding.

    A constant map is all but removed by the instance norm that follows; scale and shift are not.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = InstanceNorm(channels), InstanceNorm(channels)
        self.told = nn.Linear(_EMBEDDING, 2 * channels)  # a key of checkpoints written so far, hence its name

    def forward(self, maps: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.told(embedding)[:, :, None, None].chunk(2, 1)
        changed = F.relu(self.norm1(self.conv1(maps)) * (1 + scale) + shift)
        out: Tensor = maps + self.norm2(self.conv2(changed))
        return out


class Generator(nn.Module):
    """Faces (n, 3, size, size) in [-1, 1] and points (n, 2) to edited faces of the same shape and range."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        if config.space == "linear":
            self.axes = nn.Linear(2, CLASSES - 1)
            # Only their directions matter: small ones are turned by few steps. Only published files use the bias.
            self.axes.weight.data.mul_(1e-4)
        else:
            self.covariance_angles = nn.Linear(CLASSES, 1, bias=False)
            self.covariance_axes = nn.Linear(2, CLASSES, bias=False)
            self.mu = nn.Linear(2, CLASSES, bias=False)
            self.covariance_angles.weight.data.zero_()
            self.covariance_axes.weight.data.fill_(1.0)
        if config.code == "blocks":
            self.tell = nn.Sequential(nn.Linear(2, _EMBEDDING), nn.ReLU(), nn.Linear(_EMBEDDING, _EMBEDDING), nn.ReLU())
        self.main = nn.Sequential(*_layers(config))

    def forward(self, images: Tensor, points: Tensor) -> Tensor:
        """The edited faces."""
        if self.config.code == "maps":
            maps = points[:, :, None, None].expand(-1, -1, *images.shape[2:])
            out: Tensor = self.main(torch.cat([images, maps], 1))
        else:
            out, embedding = images, self.tell(points)
            for layer in self.main:
                out = layer(out, embedding) if isinstance(layer, ModulatedBlock) else layer(out)
        if self.config.output == "face":
            return out
        return torch.lerp(images, out[:, :3].tanh(), out[:, 3:].sigmoid())

    def landmarks(self) -> Tensor:
        """Where each class is at full strength: (7, 2), neutral first."""
        if self.config.space == "gaussian":
            return self.mu.weight.tanh()
        axes = F.normalize(self.axes.weight, dim=1)
        return torch.cat([axes.new_zeros(1, 2), axes])

    def covariances(self) -> Tensor:
        """Of the Gaussian space: R diag(axes) R' of each class, (7, 2, 2)."""
        cos, sin = self.covariance_angles.weight[0].cos(), self.covariance_angles.weight[0].sin()
        turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
        return turn @ torch.diag_embed(self.covariance_axes.weight.abs()) @ turn.mT

    def closeness(self, points: Tensor) -> Tensor:
        """Of the Gaussian space: minus the squared Mahalanobis distance to each class, (n, 7), as logits."""
        away = points[:, None] - self.landmarks()
        # The inverse of a 2 x 2 matrix by its formula.
        (a, b), (_, d) = self.covariances().permute(1, 2, 0)
        x, y = away.unbind(2)
        return -(d * x * x - 2 * b * x * y + a * y * y) / (a * d - b * b)


def _layers(config: NetworkConfig) -> list[nn.Module]:
    width, maps = config.width, config.code == "maps"
    kernel, around = config.kernel, config.kernel // 2
    first = nn.Conv2d(5 if maps else 3, width, kernel, padding=around, bias=False)
    layers: list[nn.Module] = [first, *_normed(width)]
    for _ in range(2):
        layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), *_normed(2 * width)]
        width *= 2
    layers += [ResidualBlock(width) if maps else ModulatedBlock(width) for _ in range(config.blocks)]
    for _ in range(2):
        layers += [nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False), *_normed(width // 2)]
        width //= 2
    if config.output == "face":
        return [*layers, nn.Conv2d(width, 3, kernel, padding=around, bias=False), nn.Tanh()]
    last = nn.Conv2d(width, 4, kernel, padding=around)
    # At first the output is almost the source: what an edit need not change stays as it is.
    last.get_parameter("bias").data[3] = -2.0
    return [*layers, last]


def _normed(channels: int) -> list[nn.Module]:
    return [InstanceNorm(channels), nn.ReLU(inplace=True)]


class Discriminator(nn.Module):
    """Faces (n, 3, size, size) to: how real each patch is, class logits (n, 7), the point of the edit (n, 2).

    With `edited_class` there is one more class after the seven: that of edited faces.
    """

    def __init__(
        self, space: str, size: int = 128, width: int = 64, layers: int = 6, edited_class: bool = False
    ) -> None:
        """`ValueError`: the size cannot be halved `layers` times."""
        super().__init__()
        if size % 2**layers:
            most = (size & -size).bit_length() - 1
            raise ValueError(f"critic_layers: {layers} layers halve {size} pixels too often; use {most} at most.")
        body: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(_SLOPE)]
        for _ in range(layers - 1):
            body += [nn.Conv2d(width, 2 * width, 4, 2, 1), nn.LeakyReLU(_SLOPE)]
            width *= 2
        self.main = nn.Sequential(*body)
        self.conv1 = nn.Conv2d(width, 1, 3, padding=1, bias=False)
        last = size // 2**layers
        self.classes = CLASSES + edited_class
        # As published: the Gaussian one gives the point by two more channels of the class head.
        self.conv2 = nn.Conv2d(width, self.classes + 2 * (space == "gaussian"), last, bias=False)
        self.conv3 = nn.Conv2d(width, 2, last, bias=False) if space == "linear" else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.main(images)
        classes = self.conv2(maps).flatten(1)
        points = classes[:, self.classes :] if self.conv3 is None else self.conv3(maps).flatten(1)
        return self.conv1(maps), classes[:, : self.classes], points


def parameters(module: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(math.prod(parameter.shape) for parameter in module.parameters())
