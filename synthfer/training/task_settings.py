"""The keys of a training of a task (`synthfer.training.tasks`), but for the cluster's."""

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from synthfer.config import option, registry_section
from synthfer.suggest import nearest
from synthfer.training import tasks
from synthfer.training.settings import AugmentConfig, DataConfig

CLASSIFIER = "classifier"
"""The value of `task` that asks for a classifier, which has keys of its own."""


def names() -> list[str]:
    """All that `task=` takes by a plain name."""
    return sorted([CLASSIFIER, *tasks.names()])


def module(name: str) -> ModuleType:
    """The module of a task; `ValueError` names the nearest known one."""
    if "." not in name and name not in tasks.names():
        hint = nearest(name, names()) or "."
        raise ValueError(f"unknown task {name!r}{hint} Known: {', '.join(names())}, or a dotted module name.")
    return tasks.module(name)


@dataclass(frozen=True, kw_only=True)
class TaskAugmentConfig(AugmentConfig):
    """As for classifiers. What a generator sees it will make: nothing but mirroring unless it is asked for."""

    shift: int = option(0, "most pixels moved up, down, left and right; edges are repeated", low=0)


@dataclass(frozen=True, kw_only=True)
class TaskConfig(DataConfig):
    """What is trained, on what, and for how long."""

    task: Any = registry_section(names, module, default="vae_gan", of="what is trained")
    steps: int = option(2000, "steps; one may move several networks", low=1)
    validate_every: int = option(250, "steps between validations, grids to look at and checkpoints, about", low=1)
    augment: TaskAugmentConfig = field(default_factory=TaskAugmentConfig)

    def __post_init__(self) -> None:
        if set(self.splits) != {"train"}:
            raise ValueError(
                f"splits={self.splits}: what makes pictures learns from split train alone, so that they may be judged "
                "with the others"
            )
