"""ResEmoteNet: Roy, Kathania, Sharma and Dey, "ResEmoteNet: Bridging Accuracy and Loss Reduction in Facial Emotion
Recognition", 2024 (arXiv 2409.10545); layers and names as in the authors' published code (MIT).

At width 1 it has 80,238,599 parameters, and its state dict fits the authors' checkpoints. The published scores are
disputed (their training and test images overlap); on FER2013's own test sets it reaches some 58 to 72 %.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from synthfer.classifiers import InputSpec, TrainingRecipe
from synthfer.classifiers.network import Classifier
from synthfer.schema import option

INPUT = InputSpec(size=64, channels="grey")
RECIPE = TrainingRecipe(
    optimizer={"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4},
    lr=1e-3,
    schedule=None,
    epochs=80,
    batch=16,
    loss=({"name": "cross_entropy", "weight": 1.0, "label_smoothing": 0.0},),
    augmentation=({"name": "horizontal_flip", "p": 0.5},),
    selection="best accuracy on the validation set, stopped after 15 epochs without a better one",
    source="authors' training script; arXiv 2409.10545",
    caveat="the paper also lowers the rate tenfold on plateaus, of a patience that it does not give; the script flips"
    " validation and test pictures at random, too",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of ResEmoteNet."""

    num_classes: int = option(7, "number of classes", low=2, high=1000)
    width: float = option(1.0, "factor on all channels; the published network is 1", low=1 / 16, high=4)


class ResEmoteNet(Classifier):
    """Three convolutions with pooling, squeeze and excitation, three residual blocks by strides of two, four linear
    layers. Features are those that the last one reads, before dropout: 256 x width.
    """

    name = "resemotenet"
    last = "fc4"
    smallest = 8
    recipe = RECIPE

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        stem, blocks, head = (
            [round(n * config.width) for n in channels]
            for channels in ((64, 128, 256), (256, 512, 1024, 2048), (2048, 1024, 512, 256))
        )
        for i, (before, after) in enumerate(pairwise([3, *stem]), 1):
            self.add_module(f"conv{i}", nn.Conv2d(before, after, 3, padding=1))
            self.add_module(f"bn{i}", nn.BatchNorm2d(after))
        self.se = _SqueezeExcitation(stem[-1])
        for i, (before, after) in enumerate(pairwise(blocks), 1):
            self.add_module(f"res_block{i}", _ResidualBlock(before, after))
        for i, (before, after) in enumerate(pairwise([*head, config.num_classes]), 1):
            self.add_module(f"fc{i}", nn.Linear(before, after))

    def embed(self, pixels: Tensor) -> Tensor:
        for i in (1, 2, 3):
            conv, norm = self.get_submodule(f"conv{i}"), self.get_submodule(f"bn{i}")
            pixels = F.max_pool2d(F.relu(norm(conv(pixels))), 2)
            if i < 3:
                pixels = F.dropout(pixels, 0.2, self.training)
        maps = self.se(pixels)
        for i in (1, 2, 3):
            maps = self.get_submodule(f"res_block{i}")(maps)
        features = maps.mean((2, 3))
        for i in (1, 2, 3):
            features = F.relu(self.get_submodule(f"fc{i}")(features))
            if i < 3:
                features = F.dropout(features, 0.5, self.training)
        return features

    def classify(self, features: Tensor) -> Tensor:
        return super().classify(F.dropout(features, 0.5, self.training))


class _SqueezeExcitation(nn.Module):
    """Scales channels by factors computed from their averages, through a layer of a sixteenth of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        between = channels // 16
        self.fc = nn.Sequential(
            nn.Linear(channels, between, bias=False), nn.ReLU(), nn.Linear(between, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, maps: Tensor) -> Tensor:
        scales: Tensor = self.fc(maps.mean((2, 3)))
        return maps * scales[..., None, None]


class _ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a 1 x 1 one, all with bias and batch normalisation; halves the map."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, 2, 1)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, 2), nn.BatchNorm2d(after))

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(maps)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(maps))


def build(config: Config) -> ResEmoteNet:
    """A ResEmoteNet with random weights."""
    return ResEmoteNet(config)
