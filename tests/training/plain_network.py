"""A classifier of somebody's own, without batch norms, so that a step is the same sum on any number of workers."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from synthfer.classifiers import InputSpec
from synthfer.classifiers.network import Classifier
from synthfer.schema import option

INPUT = InputSpec(size=16)


@dataclass(frozen=True, kw_only=True)
class Config:
    num_classes: int = option(7, "number of classes", low=2)
    dropout: float = option(0.0, "share of features dropped", low=0, high=0.9)


class Plain(Classifier):
    name = "tests.training.plain_network"
    last = "head"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.head = nn.Linear(8, config.num_classes)

    def embed(self, pixels: Tensor) -> Tensor:
        return F.dropout(F.relu(self.conv(pixels)).mean((2, 3)), self.config.dropout, self.training)


def build(config: Config) -> Plain:
    return Plain(config)
