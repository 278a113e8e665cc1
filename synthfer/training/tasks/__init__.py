"""Tasks: what `jobs/train.py task=NAME` trains besides classifiers. One protocol; a new task is one new module here.

A task module holds a dataclass `Config` (the network's and the losses' options) and `build(config) -> Task`, and
`EVERY_CLASS = True` where it cannot do without training rows of every expression. It is found by its module name; a
dotted name (`my_package.my_task`) names one outside this package. The loop around a task
(`synthfer.training.adversarial`) owns data, seeds, ranks, checkpoints and logs; a task owns networks, losses and
optimisers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from synthfer.registry import Registry

if TYPE_CHECKING:
    from synthfer.training.batch_rng import BatchRng


@dataclass(frozen=True)
class Batch:
    """This rank's rows of a step: images float32 (b, 3, size, size) in [-1, 1], RGB, augmented; labels int64 (b,)."""

    images: Tensor
    labels: Tensor


class Task(Protocol):
    """Networks that are trained together. A step is a function of weights, batch and draws alone."""

    size: int
    """Side of the pictures in pixels."""
    modules: Mapping[str, nn.Module]
    """All that has weights or buffers, averages included, by name: saved, resumed, moved to the device."""
    optimizers: Mapping[str, Optimizer]
    """By name; saved and resumed. They are made by `begin`, after the modules are on their device."""

    def begin(self, steps: int) -> None:
        """Makes the optimisers; called once, with the modules on their device. `steps` is the length of the run."""
        ...

    def step(self, step: int, batch: Batch, draws: "BatchRng") -> dict[str, Tensor]:
        """One step; this rank's losses by name, detached scalars.

        All chance comes from `draws`, so that the step is the same on any number of ranks. Before each
        `optimizer.step()` the gradients are averaged over ranks: `draws.place.average_gradients(parameters)`.
        """
        ...

    def validate(self, batch: Batch, draws: "BatchRng") -> dict[str, float]:
        """Numbers by name on validation pictures, by the weights that are kept. In eval mode, without gradients."""
        ...

    def grid(self, batch: Batch, draws: "BatchRng") -> np.ndarray:
        """A sheet to look at, of a few validation pictures and what is made of them: uint8 (H, W, 3)."""
        ...

    def finish(self, batches: Iterable[Batch]) -> None:
        """Called once after the last step with all training pictures, not augmented, in order; by the first rank."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """What a generator needs of it, by name: the state dict that is written as safetensors."""
        ...

    def card(self) -> dict[str, Any]:
        """`architecture`, `options`, and what else `synthfer.checkpoints.Card` holds of the network."""
        ...


_MEMBERS = Registry("task", __name__, __path__)
names, module = _MEMBERS.names, _MEMBERS.module


def build(name: str, **options: Any) -> Task:
    """A task with random weights, drawn from torch's global generator: seed it before."""
    found = module(name)
    task: Task = found.build(found.Config(**options))
    return task
