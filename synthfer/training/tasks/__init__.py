"""Tasks: what the `Trainer` trains. A classifier is one (classifier.py); the others are members of a registry.

A member of the registry is what `jobs/train.py task=NAME` trains, one module here or a dotted name
(`my_package.my_task`). It holds a dataclass `Config` (options of networks and losses), `build(config) -> Task`, and
`EVERY_CLASS = True` where it needs training rows of every expression. The trainer (`synthfer.training.trainer`) owns
data, seeds, ranks, checkpoints and progress; a task owns networks, losses and optimisers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from synthfer.checkpoints import Card
from synthfer.registry import Registry

if TYPE_CHECKING:
    from synthfer.training.batch_rng import BatchRng
    from synthfer.training.validation_batches import ValidationBatches


@dataclass(frozen=True)
class Batch:
    """This rank's rows of a step, real ones first.

    `images` (b, 3, size, size), RGB: float32 in [-1, 1] where the task has `signed_images`, else as augmentation leaves
    them, uint8 0..255 or float32 0..1. `labels` int64 (b,). Batches of the trainer have `targets` float32 (b, classes),
    `synthetic` bool (b,), `real_rows`, how many of the rows are real, and `weights` float32 (b,) unless all are one.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor | None = None
    synthetic: Tensor | None = None
    real_rows: int = 0
    weights: Tensor | None = None


class Task(Protocol):
    """Networks that are trained together. A step is a function of weights, batch and random numbers alone.

    Subclass it. Methods with a body are defaults for networks, such as those of generators, whose validation is to look
    at and does not choose the best step.
    """

    size: int
    """Side of the pictures in pixels."""
    modules: Mapping[str, nn.Module]
    """All that has weights or buffers, averages included, by name: saved, resumed, moved to the device."""
    optimizers: Mapping[str, Optimizer]
    """By name; saved and resumed. `begin` builds them, when the modules are on their device."""
    signed_images: bool = True
    """Whether `Batch.images` are float32 in [-1, 1]."""
    equal_shares: bool = True
    """Whether every rank must have equally many rows of a batch, as a mean of the ranks' gradients needs."""
    patience: int | None = None
    """Validations without a better score before the training stops; None: it never stops early."""
    remedy: str = "Lower the task's learning rates"
    """What may help against a loss that is NaN, as the beginning of a sentence."""

    def begin(self, steps: int) -> None:
        """Builds the optimisers of a run of `steps` steps; called once, with the modules on their device."""
        ...

    def prepare(self, step: int, batch: Batch) -> Batch:
        """The batch as `step` reads it, for what is done to whole batches (blending)."""
        return batch

    def step(self, step: int, batch: Batch, rng: "BatchRng") -> dict[str, Tensor]:
        """One step of all optimisers: losses by name, detached scalars whose mean over ranks is the batch's loss.

        All random numbers come from `rng`, so that the step is the same on any number of ranks. Before each
        `optimizer.step()` the gradients are averaged over ranks: `rng.world.average_gradients(parameters)`, or by
        `DistributedDataParallel`.
        """
        ...

    def report(self, step: int, losses: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """The numbers of a progress message after `step`, from the losses since the last one: means by default."""
        return means(losses)

    def validate(self, validation: "ValidationBatches") -> dict[str, float]:
        """Metrics by name of the weights that are kept, the same on all ranks. In eval mode.

        By default means of `validate_batch` over some rows.
        """
        return validation.means(self.validate_batch)

    def validate_batch(self, batch: Batch, rng: "BatchRng") -> dict[str, float]:
        """Metrics of one validation batch, means over its rows. Without gradients. By default there are none."""
        return {}

    def validated(self, step: int, losses: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, Any]:
        """What history keeps of a validation after `step` steps with these mean losses, on all ranks.

        Where it has a `score`, the step with the highest one is what is kept of the run.
        """
        return {"losses": dict(losses), "validation": dict(metrics)}

    def grid(self, batch: Batch, rng: "BatchRng") -> np.ndarray | None:
        """A sheet to look at, of a few validation pictures and their outputs: uint8 (H, W, 3). None: there is none."""
        return None

    def state(self) -> dict[str, Any]:
        """JSON: what a resume needs beside modules and optimisers, such as the memory of a schedule."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`."""
        return

    def finish(self, batches: Iterable[Batch]) -> None:
        """Called once by the first rank after the last step, with all training pictures as they are, in order."""
        return

    def weights(self) -> dict[str, Tensor]:
        """The state dict that is published as safetensors."""
        ...

    def card(self, **facts: Any) -> Card:
        """The card of these weights: architecture and options, with `facts` (source, trained_on, training ...)."""
        ...


def means(losses: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The mean of each."""
    return {name: sum(values) / len(values) for name, values in losses.items()}


MeasureBatch = Callable[[Batch, "BatchRng"], Mapping[str, float]]

_MEMBERS = Registry("task", __name__, __path__, shared=("classifier",))
names, module = _MEMBERS.names, _MEMBERS.module


def build(name: str, **options: Any) -> Task:
    """A task with random weights, drawn from torch's global generator: seed it before."""
    member = module(name)
    task: Task = member.build(member.Config(**options))
    return task
