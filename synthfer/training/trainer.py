"""The one training loop: resume, advance, validate, checkpoint, interrupt. A `Task` says what a step is.

It runs alone or as one of several ranks, without Ray. Every random number of a step is a function of seed and step and
is drawn for the whole batch, of which a rank takes every `size`th row. So a run that was killed goes on from its last
checkpoint to the same weights, and the rows of a step, and how they are augmented, are the same on any number of ranks.
(What a classifier's `blend` mixes, and dropout, depend on the rank.)

    trainer = Trainer(config, run, TrainingBatches.of(...), task, World())
    trainer.fit(store, report)
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from synthfer import images
from synthfer.sample import seed_of
from synthfer.store import ObjectStore
from synthfer.training import checkpoint
from synthfer.training.augment import augment, draw
from synthfer.training.batch_rng import BatchRng
from synthfer.training.checkpoint import Progress
from synthfer.training.errors import Interrupted, NotFinite
from synthfer.training.runs import Run
from synthfer.training.settings import TaskConfig, TrainConfig
from synthfer.training.tasks import Batch, Task, means
from synthfer.training.training_batches import TrainingBatches
from synthfer.training.validation_batches import ValidationBatches, signed
from synthfer.training.world import World

Report = Callable[[Mapping[str, Any]], None]
"""Receives progress messages: JSON-able, with `kind` "steps" or "validation", `run`, `step`, `steps` and numbers."""

# Losses stay on the device for so many steps: to read one waits for all work before it.
_WINDOW = 20
_SHOWN = 8  # sample ids in a message
_PNG = images.ImageConfig(format="png")


def grid_key(run: str, step: int) -> str:
    """The object of a run's grid after `step` steps, a PNG."""
    return f"{run}/grids/step-{step:08d}.png"


class Trainer:
    """A run in progress: `fit` does all. The task's modules are trained in place.

    `ValueError`: the ranks cannot share the batch, or what the task's `begin` refuses.
    """

    def __init__(
        self, config: TrainConfig | TaskConfig, run: Run, batches: TrainingBatches, task: Task, world: World
    ) -> None:
        if task.equal_shares and config.batch % world.size:
            raise ValueError(
                f"batch={config.batch} cannot be shared evenly by {world.size} workers: choose a multiple of it"
            )
        self.config, self.run, self.batches, self.task, self.world = config, run, batches, task, world
        self.validation = ValidationBatches(batches, world, run.seed, task.signed_images)
        self.learning = [
            module for module in task.modules.values() if module.training
        ]  # averaged copies stay in eval mode
        for module in task.modules.values():
            module.to(world.device)
        task.begin(run.steps)
        self.progress = Progress()
        self.pending: list[dict[str, Tensor]] = []  # losses of steps that nobody has read yet
        self.losses = defaultdict[str, list[float]](list)  # losses since the last validation

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The first validation with the highest score; None where validations have no score, or there is none."""
        scored = [record for record in self.progress.history if "score" in record]
        return max(scored, key=lambda record: record["score"], default=None)

    @property
    def done(self) -> bool:
        """Whether all steps are done, or `patience` validations had no better score."""
        if self.progress.step >= self.run.steps:
            return True
        best, patience = self.best, self.task.patience
        if best is None or patience is None:
            return False
        return sum(record["step"] > best["step"] for record in self.progress.history) >= patience

    def fit(self, store: ObjectStore, report: Report) -> None:
        """Goes on from the last checkpoint, if there is one, to the end.

        `NotFinite` where a loss or metric is; `Interrupted` where a machine is about to be taken away, with a
        checkpoint of the steps until then.
        """
        self.resume(store)
        marks = self.run.validation_steps(self.config.validate_every or self.run.epoch)
        while not self.done:
            until = next(step for step in marks if step > self.progress.step)
            reached = self.advance(until, report)
            for module in self.task.modules.values():
                # Statistics that ranks gather from their own rows go on from the first one's, as after a resume.
                self.world.broadcast_buffers(module)
            if reached < until:
                self.progress = replace(
                    self.progress, step=reached, losses=dict(self.losses), schedule=self.task.state()
                )
                self.save(store)
                raise Interrupted(f"{self.run.key}: after step {reached}")
            self.progress = replace(self.progress, step=until, losses={})
            self.record_validation(store, report)
        if self.world.rank == 0:
            self._train(False)
            self.task.finish(self.validation.of(self.batches.train))

    def record_validation(self, store: ObjectStore, report: Report) -> None:
        """Validates after the steps so far, adds it to the history, writes the grid and a checkpoint, and reports."""
        step, run, metrics = self.progress.step, self.run, self.validate()
        kept = self.task.validated(step, means(self.losses), metrics)
        self.losses.clear()
        record = {"step": step, "epoch": step / run.epoch, **kept}
        history = (*self.progress.history, record)
        self.progress = replace(self.progress, history=history, schedule=self.task.state())
        message: dict[str, Any] = {"kind": "validation", "run": run.key, "step": step, "steps": run.steps}
        if self.world.rank == 0 and (sheet := self.grid()) is not None:
            message["grid"] = grid_key(run.key, step)
            store.put_new(message["grid"], sheet)
        self.save(store)
        # Metrics of generators stand by themselves, since tasks name them freely.
        report(message | dict(record.get("validation", record)))

    def resume(self, store: ObjectStore) -> None:
        """Loads the latest checkpoint of the run, the one that the first rank sees."""
        if body := checkpoint.latest(store, self.run.key, self.world):
            self.progress, modules, optimizers = checkpoint.unpack(body)
            self._load_modules(modules)
            for name, optimizer in self.task.optimizers.items():
                checkpoint.restore(optimizer, optimizers[name])
            self.task.load_state(self.progress.schedule)
            self.losses.update({name: list(values) for name, values in self.progress.losses.items()})

    def load_best(self, store: ObjectStore) -> None:
        """Puts the weights of the best validation into the modules, where validations have a score."""
        if self.best is not None:
            self._load_modules(checkpoint.unpack(store.get(checkpoint.key(self.run.key, self.best["step"])))[1])

    def _load_modules(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, module in self.task.modules.items():
            module.load_state_dict(states[name])

    def save(self, store: ObjectStore) -> None:
        """Writes the checkpoint of this step, by the first rank, and deletes those that nothing needs."""
        if self.world.rank:
            return
        modules = {name: module.state_dict() for name, module in self.task.modules.items()}
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.task.optimizers.items()}
        body = checkpoint.pack(self.progress, modules, optimizers)
        store.put_new(checkpoint.key(self.run.key, self.progress.step), body)
        checkpoint.prune(store, self.run.key, self.best["step"] if self.best else None)

    def advance(self, until: int, report: Report) -> int:
        """Steps until `until`, or fewer where a machine is about to be taken away: the number of steps done then."""
        self._train(True)
        clock = Clock()
        for step in range(self.progress.step, until):
            self.pending.append(self.step(step, clock))
            if len(self.pending) == _WINDOW or step + 1 == until:
                losses = self.read_losses(step + 1)
                for name, values in losses.items():
                    self.losses[name] += values
                message = {"kind": "steps", "run": self.run.key, "step": step + 1, "steps": self.run.steps}
                report(message | self.task.report(step, losses) | clock.read(self.config.batch))
                if self.world.interrupted():
                    return step + 1
        return until

    def step(self, step: int, clock: "Clock") -> dict[str, Tensor]:
        """One step of the task; this rank's losses."""
        clock.start_batch()
        batch = self.batch(step)
        rng = BatchRng(seed_of(self.run.seed, "draws", step), self.config.batch, self.world)
        clock.end_batch()
        torch.manual_seed(seed_of(self.run.seed, "dropout", step, self.world.rank))
        return self.task.step(step, batch, rng)

    def batch(self, step: int) -> Batch:
        """This rank's rows of a step, augmented."""
        world, data, config = self.world, self.batches, self.config
        rows = data.at(step)[world.rank :: world.size]
        params = draw(config.augment, config.batch, self.task.size, seed_of(self.run.seed, "augment", step))
        pixels = augment(data.images(rows, world.device), params[world.rank :: world.size])
        labels, targets, synthetic = (
            torch.from_numpy(values[rows]).to(world.device) for values in (data.labels, data.targets, data.synthetic)
        )
        weights = None if data.weights is None else torch.from_numpy(data.weights[rows]).to(world.device)
        real = int((~data.synthetic[rows]).sum())
        pictures = signed(pixels) if self.task.signed_images else pixels
        return self.task.prepare(step, Batch(pictures, labels, targets, synthetic, real, weights))

    def read_losses(self, step: int) -> dict[str, list[float]]:
        """Each loss at its steps since the last call, mean over the ranks; `step` steps are done. `NotFinite`."""
        names = [(back, name) for back, losses in enumerate(self.pending) for name in losses]
        values = torch.stack([self.pending[back][name].float() for back, name in names])
        numbers = (self.world.all_reduce(values) / self.world.size).tolist()
        first, losses = step - len(self.pending), defaultdict[str, list[float]](list)
        self.pending.clear()
        for (back, name), number in zip(names, numbers, strict=True):
            if not math.isfinite(number):
                raise NotFinite(self._not_finite(first + back, name, number))
            losses[name].append(number)
        return losses

    def _not_finite(self, step: int, name: str, loss: float) -> str:
        rows = self.batches.at(step)
        ids = self.batches.ids.take(pa.array(rows[:_SHOWN])).to_pylist()
        named = "the loss" if name == "loss" else f"the loss {name}"
        return (
            f"{self.run.key}: {named} is {loss} at step {step}. Its batch: {', '.join(ids)} and "
            f"{len(rows) - len(ids)} more. Look at these pictures. {self.task.remedy}, and use another out=: "
            "with other settings it is another experiment."
        )

    def validate(self) -> dict[str, float]:
        """The task's metrics on validation pictures, the same on all ranks. `NotFinite` where one is."""
        self._train(False)
        metrics = self.task.validate(self.validation)
        if wrong := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise NotFinite(
                f"{self.run.key}: {', '.join(wrong)} on validation data is NaN or infinite after step "
                f"{self.progress.step}. {self.task.remedy}; use another out=: other settings make another experiment."
            )
        return metrics

    def grid(self) -> bytes | None:
        """The task's grid of some validation pictures, always the same ones, as a PNG; None where it has none."""
        self._train(False)
        sheet = self.task.grid(*self.validation.grid())
        return None if sheet is None else images.encode(sheet, _PNG)

    def _train(self, mode: bool) -> None:
        for module in self.learning:
            module.train(mode)


class Clock:
    """Where the time of steps goes: to the making of batches, and in all."""

    def __init__(self) -> None:
        self.start, self.batching, self.steps, self.batch_start = time.perf_counter(), 0.0, 0, 0.0

    def start_batch(self) -> None:
        """A batch is about to be made."""
        self.batch_start = time.perf_counter()

    def end_batch(self) -> None:
        """The batch is there."""
        self.batching += time.perf_counter() - self.batch_start
        self.steps += 1

    def read(self, batch: int) -> dict[str, float]:
        """Images/s over all ranks and the share of the time not spent on making batches, since the last call."""
        seconds = time.perf_counter() - self.start
        rates = {"images_per_s": batch * self.steps / seconds, "device_busy": 1 - self.batching / seconds}
        self.start, self.batching, self.steps = time.perf_counter(), 0.0, 0
        return rates
