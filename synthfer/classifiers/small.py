"""A small classifier of its own, 99,355 parameters, for laptops and tests: three residual stages at 48 pixels."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from synthfer.classifiers import InputSpec, TrainingRecipe
from synthfer.classifiers.network import Classifier
from synthfer.schema import option

INPUT = InputSpec(size=48, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
MAX_STAGES = 10
"""So many halvings leave one pixel of the largest picture."""
RECIPE = TrainingRecipe(
    optimizer={"name": "adamw", "weight_decay": 0.05},
    lr=2e-3,
    schedule={"name": "cosine"},
    epochs=30,
    batch=64,
    loss=({"name": "cross_entropy", "weight": 1.0, "label_smoothing": 0.1},),
    augmentation=({"name": "horizontal_flip", "p": 0.5}, {"name": "shift", "pixels": 4}),
    selection="last epoch",
    source="this library; not published elsewhere",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the small classifier."""

    num_classes: int = option(7, "number of classes", low=2, high=1000)
    channels: tuple[int, ...] = option(
        (20, 40, 72), "channels of each stage; each halves the picture", low=1, high=4096
    )

    def __post_init__(self) -> None:
        if not 1 <= len(self.channels) <= MAX_STAGES:
            raise ValueError(f"channels: {len(self.channels):,} stages; give 1 to {MAX_STAGES}.")


class Small(Classifier):
    """Each stage: a convolution by strides of two and a residual convolution, both with batch normalisation.

    Features are the average over the last map, as many as it has channels (72).
    """

    name = "small"
    last = "head"
    smallest = 8
    recipe = RECIPE

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        before = 3
        self.stages = nn.ModuleList()
        for after in config.channels:
            self.stages.append(_Stage(before, after))
            before = after
        self.head = nn.Linear(before, config.num_classes)

    def embed(self, pixels: Tensor) -> Tensor:
        for stage in self.stages:
            pixels = stage(pixels)
        return pixels.mean((2, 3))


class _Stage(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(before, after, 3, 2, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)

    def forward(self, maps: Tensor) -> Tensor:
        maps = F.relu(self.norm1(self.down(maps)))
        return F.relu(maps + self.norm2(self.conv(maps)))


def build(config: Config) -> Small:
    """A small classifier with random weights."""
    return Small(config)
