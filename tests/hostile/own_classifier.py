"""A classifier of somebody's own, which a card may name where its user named it."""

from dataclasses import dataclass

from synthfer.classifiers import small
from synthfer.schema import option

INPUT = small.INPUT


@dataclass(frozen=True, kw_only=True)
class Config:
    num_classes: int = option(7, "number of classes", low=2)
    channels: tuple[int, ...] = option((4,), "channels of each stage", low=1)


class Own(small.Small):
    name = "tests.hostile.own_classifier"


def build(config: Config) -> Own:
    return Own(config)
