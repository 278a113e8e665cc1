"""IR50: the improved residual network of ArcFace (Deng, Guo, Xue and Zafeiriou, CVPR 2019), cut after its third stage,
and a linear layer, as "On Applicability of Synthetic Datasets for FER" (arXiv 2605.17483) trains it; the trunk is also
POSTER's.

At width 1 it has 17,619,143 parameters. The published code also has the output layer of face recognition, 12.8 million
parameters that get no gradient, so that distributed training fails at its second step; here it does not exist, and
its keys in checkpoints are ignored.

The last map, 256 x 14 x 14, is read as 49 tokens of 1024 values. `spatial` gives each token the four neighbours of a
2 x 2 patch. `published` reinterprets the map's memory instead: token t is its flat elements 1024 t ... 1024 t + 1023,
some five channels of all positions. Only checkpoints that were trained so need it.

Input is 112 pixels. The published code takes 224 and drops every other row and column first; with an input size of
224 that is what happens here.

The published material does not say what the layers around the trunk are called. Here the trunk is `ir_back` (POSTER's
name) and the linear layer `head`; a card's `rename` maps other names onto them.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from synthfer.classifiers import InputSpec, TrainingRecipe
from synthfer.classifiers.network import Classifier
from synthfer.schema import option

INPUT = InputSpec(size=112)
TOKENS = ("spatial", "published")
AUGMENTATION = (
    {"name": "one_of", "p": 0.5, "of": ({"name": "horizontal_flip"}, {"name": "gaussian_noise", "variance": 30})},
    {"name": "horizontal_flip", "p": 0.5},
    {"name": "random_erasing", "p": 0.5, "scale": (0.02, 0.1)},
)
"""Shared with POSTER; the noise's variance is in steps of 0..255, squared."""
RECIPE = TrainingRecipe(
    optimizer={"name": "sam", "rho": 0.05, "adaptive": False, "base": "adam", "weight_decay": 1e-4},
    lr=1.095e-6,
    schedule={"name": "exponential", "gamma": 0.98, "every": "epoch"},
    epochs=120,
    batch=64,
    loss=(
        {"name": "cross_entropy", "weight": 2.0, "label_smoothing": 0.4},
        {"name": "cross_entropy", "weight": 1.0, "label_smoothing": 0.0},
    ),
    augmentation=AUGMENTATION,
    selection="best 0.67 macro F1 + 0.33 balanced accuracy within each ten epochs",
    source="authors' training script of arXiv 2605.17483, seed 1376",
    init="trunk of a face recognition network (ir50.pth)",
    caveat="the rate is the script's default, of the run on mixed and RAF-DB pictures; other runs' are not known",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of IR50."""

    num_classes: int = option(7, "number of classes", low=2, high=1000)
    tokens: str = option("spatial", "how the last map becomes 49 tokens", choices=TOKENS)
    width: float = option(1.0, "factor on all channels; the published network is 1", low=1 / 16, high=4)


class Trunk(nn.Module):
    """Three stages of 3, 4 and 14 improved residual units: pixels (n, 3, 112 or 224, same) to tokens (n, 49, d).

    `d` is 1024 x width. The map's memory format does not change the result.
    """

    unused = ("output_layer.", "body.21.", "body.22.", "body.23.")
    """Prefixes of keys in published checkpoints that are ignored: the recognition layer, and the fourth stage."""

    def __init__(self, tokens: str, width: float = 1.0) -> None:
        super().__init__()
        self.tokens = tokens
        first, *channels = (round(n * width) for n in (64, 64, 128, 256))
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.PReLU(first)
        )
        units, before = [], first
        for after, number in zip(channels, (3, 4, 14), strict=True):
            units.append(_Unit(before, after, 2))
            units += [_Unit(after, after, 1) for _ in range(number - 1)]
            before = after
        self.body = nn.Sequential(*units)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.body(self.input_layer(halved(pixels)))
        if self.tokens == "spatial":
            return F.pixel_unshuffle(maps, 2).flatten(2).transpose(1, 2)
        return maps.reshape(len(maps), 49, -1)


class _Unit(nn.Module):
    """Normalise, convolve, PReLU, convolve by `stride`, normalise, beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if before != after:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, maps: Tensor) -> Tensor:
        inner: Tensor = self.res_layer(maps)
        return inner + self.shortcut_layer(maps)


def halved(pixels: Tensor) -> Tensor:
    """Every other row and column of 224 pixels, as the published code takes them; 112 pixels as they are."""
    return pixels[..., ::2, ::2] if pixels.shape[-1] == 224 else pixels


class IR50(Classifier):
    """The trunk, the average of its tokens, a linear layer. Features are that average: 1024 x width."""

    name = "ir50"
    last = "head"
    sizes = (112, 224)
    recipe = RECIPE

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.ir_back = Trunk(config.tokens, config.width)
        self.head = nn.Linear(4 * round(256 * config.width), config.num_classes)

    def embed(self, pixels: Tensor) -> Tensor:
        tokens: Tensor = self.ir_back(pixels)
        return tokens.mean(1)


def build(config: Config) -> IR50:
    """An IR50 with random weights."""
    return IR50(config)
