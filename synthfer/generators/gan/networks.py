"""Generator networks from a latent vector to a picture. DCGAN as published: transposed convolutions, batch norm, tanh.

Radford, Metz and Chintala, arXiv 1511.06434, in the layout of PyTorch's example, whose names published weights use:
`main` holds convolutions, norms and activations in turn. With classes, one-hot values of the class join the latent
vector, as in Mirza and Osindero (arXiv 1411.1784).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, cat, nn

from synthfer.expressions import index_of
from synthfer.schema import option

RANGES = ("tanh", "unit")
"""The range of a network's output: -1..1, or 0..1."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network of a checkpoint, as its card says under `options`."""

    latent: int = option(100, "length of the latent vector", low=1, high=65_536)
    width: int = option(64, "channels before the last layer", low=1, high=4096)
    size: int = option(64, "side of the pictures in pixels: 16, 32, 64, 128 or 256", choices=(16, 32, 64, 128, 256))
    range: str = option("tanh", "range of its output: tanh is -1..1, unit is 0..1", choices=RANGES)
    classes: list[str] = option([], "expressions that it knows, in its order ([]: none)")

    def __post_init__(self) -> None:
        if self.size not in (16, 32, 64, 128, 256):
            raise ValueError(f"size: {self.size} is not one of 16, 32, 64, 128, 256")
        for word in self.classes:
            index_of(word)

    @property
    def order(self) -> list[int]:
        """The expression, 0..6, of each of its classes."""
        return [index_of(word) for word in self.classes]


class Dcgan(nn.Module):
    """Latent vectors (n, latent) to pictures (n, 3, size, size); with classes also their numbers (n,), in its order."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        blocks = config.size.bit_length() - 4  # each doubles the side, from 4 to half of `size`
        widths = [config.width * 2**power for power in range(blocks, -1, -1)]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(config.latent + len(config.classes), widths[0], 4, 1, 0, bias=False),
            *(nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)),
        ]
        for before, after in pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, latent: Tensor, classes: Tensor | None = None) -> Tensor:
        """Pictures in -1..1, whatever range the network was trained in."""
        if classes is not None:
            latent = cat([latent, F.one_hot(classes, len(self.config.classes)).to(latent.dtype)], 1)
        pictures: Tensor = self.main(latent[:, :, None, None])
        return pictures * 2 - 1 if self.config.range == "unit" else pictures
