"""The steps of a task's run: batches, draws, validation, grids to look at, checkpoints. Alone or as one of some ranks.

What loop.py is for classifiers, for `synthfer.training.tasks`: several networks that are trained against each other,
by losses of their own. Every number that a step draws is a function of seed and step and is drawn for the whole batch,
of which a rank takes every `world`th row. So a run that was killed goes on from its last checkpoint to the same
weights, and any number of ranks makes the same steps.

    training = TaskTraining(config, run, feed, build(config, run), World())
    training.fit(store, tell)
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from synthfer import images
from synthfer.config import to_dict
from synthfer.sample import seed_of
from synthfer.store import ObjectStore
from synthfer.training import checkpoint, tasks
from synthfer.training.augment import augment, draw
from synthfer.training.batch_rng import BatchRng
from synthfer.training.checkpoint import Progress
from synthfer.training.feed import TrainingBatches
from synthfer.training.loop import Clock, NotFinite, Tell
from synthfer.training.runs import Run
from synthfer.training.task_settings import TaskConfig
from synthfer.training.tasks import Batch, Task
from synthfer.training.world import Interrupted, World

# Losses stay on the device for so many steps: to look at one waits for all work before it.
_WINDOW = 20
_AT_ONCE = 64
_VALIDATED = 512  # pictures, evenly from all that are there
_PICTURED = 8  # validation pictures of a grid
_SHOWN = 8  # ids in a message
_PNG = images.ImageConfig(format="png")


def build(config: TaskConfig, run: Run) -> Task:
    """The task of a run before its first step: weights by the run's seed."""
    options = to_dict(config.task)
    name = options.pop("name")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(run.seed, "weights"))
        return tasks.build(name, **options)


def grid_key(run: str, step: int) -> str:
    """The object of a run's grid after `step` steps, a PNG."""
    return f"{run}/grids/step-{step:08d}.png"


class TaskTraining:
    """A run on its way. The task's modules are trained in place; `fit` does all. `ValueError`: the batch or feed."""

    def __init__(self, config: TaskConfig, run: Run, feed: TrainingBatches, task: Task, place: World) -> None:
        if config.batch % place.world:
            raise ValueError(
                f"batch={config.batch} cannot be shared evenly by {place.world} workers: choose a multiple of it"
            )
        self.config, self.run, self.feed, self.task, self.place = config, run, feed, task, place
        self.learning = [module for module in task.modules.values() if module.training]  # averages are none
        for module in task.modules.values():
            module.to(place.device)
        task.begin(run.steps)
        self.progress = Progress()
        self.losses: list[dict[str, Tensor]] = []
        self.since = defaultdict[str, list[float]](list)  # losses since the last validation

    def fit(self, store: ObjectStore, tell: Tell) -> None:
        """Goes on from the last checkpoint, if there is one, to the end.

        `NotFinite` where a loss is; `Interrupted` where a machine is about to be taken away, with a checkpoint of the
        steps until then.
        """
        if body := checkpoint.latest(store, self.run.key, self.place):
            self.load(body)
        while self.progress.step < self.run.steps:
            until = next(mark for mark in self.run.marks(self.config.validate_every) if mark > self.progress.step)
            reached = self.advance(until, tell)
            for module in self.task.modules.values():
                # Statistics that ranks gather from their own rows go on from the first one's, as after a resume.
                self.place.share_buffers(module)
            if reached < until:
                self.progress = replace(self.progress, step=reached, losses=dict(self.since))
                if self.place.rank == 0:
                    self.save(store)
                raise Interrupted(f"{self.run.key}: after step {reached}")
            self.progress = replace(self.progress, step=until, losses={})
            losses = _means(self.since)
            self.since.clear()
            if self.place.rank == 0:
                self.look(store, losses, tell)
            self.place.from_first(until)  # the others wait
        if self.place.rank == 0:
            self.finish()

    def look(self, store: ObjectStore, losses: Mapping[str, float], tell: Tell) -> None:
        """Validates, draws the grid and keeps the state after the steps so far, which had these mean losses."""
        step, run, found = self.progress.step, self.run, self.validate()
        record = {"step": step, "epoch": step / run.epoch, "losses": dict(losses), "validation": found}
        self.progress = replace(self.progress, history=(*self.progress.history, record))
        store.put_new(grid_key(run.key, step), self.grid())
        self.save(store)
        told = {"run": run.key, "step": step, "steps": run.steps, "grid": grid_key(run.key, step)}
        tell({"kind": "validation", **told, **found})

    def load(self, body: bytes) -> None:
        """Becomes what a checkpoint of the same run says."""
        self.progress, modules, optimizers = checkpoint.unpack(body)
        for name, module in self.task.modules.items():
            module.load_state_dict(modules[name])
        for name, optimizer in self.task.optimizers.items():
            checkpoint.restore(optimizer, optimizers[name])
        self.since.update({name: list(losses) for name, losses in self.progress.losses.items()})

    def save(self, store: ObjectStore) -> None:
        """Writes the checkpoint of this step, and deletes those that nothing needs."""
        modules = {name: module.state_dict() for name, module in self.task.modules.items()}
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.task.optimizers.items()}
        body = checkpoint.pack(self.progress, modules, optimizers)
        store.put_new(checkpoint.key(self.run.key, self.progress.step), body)
        checkpoint.prune(store, self.run.key)

    def advance(self, until: int, tell: Tell) -> int:
        """Steps until `until`, or fewer where a machine is about to be taken away: the number of steps done then."""
        self._train(True)
        clock = Clock()
        for step in range(self.progress.step, until):
            self.losses.append(self.step(step, clock))
            if len(self.losses) == _WINDOW or step + 1 == until:
                losses = self.flush(step + 1)
                for name, values in losses.items():
                    self.since[name] += values
                facts = {"run": self.run.key, "step": step + 1, "steps": self.run.steps, **_means(losses)}
                tell({"kind": "steps", **facts, **clock.read(self.config.batch)})
                if self.place.interrupted():
                    return step + 1
        return until

    def step(self, step: int, clock: Clock) -> dict[str, Tensor]:
        """One step of the task; this rank's losses."""
        clock.begin()
        batch = self.batch(step)
        draws = BatchRng(seed_of(self.run.seed, "draws", step), self.config.batch, self.place)
        clock.fed()
        torch.manual_seed(seed_of(self.run.seed, "dropout", step, self.place.rank))
        return self.task.step(step, batch, draws)

    def batch(self, step: int) -> Batch:
        """This rank's rows of a step, augmented."""
        place = self.place
        rows = self.feed.at(step)[place.rank :: place.world]
        pixels = self.feed.images(rows, place.device)
        draws = draw(self.config.augment, self.config.batch, self.task.size, seed_of(self.run.seed, "augment", step))
        return self._batch(rows, augment(pixels, draws[place.rank :: place.world]))

    def flush(self, step: int) -> dict[str, list[float]]:
        """Each loss at its steps since the last flush, over all ranks; `step` steps are done. `NotFinite`."""
        names = [(back, name) for back, losses in enumerate(self.losses) for name in losses]
        values = torch.stack([self.losses[back][name].float() for back, name in names])
        numbers = (self.place.total(values) / self.place.world).tolist()
        first, found = step - len(self.losses), defaultdict[str, list[float]](list)
        self.losses.clear()
        for (back, name), number in zip(names, numbers, strict=True):
            if not math.isfinite(number):
                raise NotFinite(self._not_finite(first + back, name, number))
            found[name].append(number)
        return found

    def _not_finite(self, step: int, name: str, loss: float) -> str:
        rows = self.feed.at(step)
        ids = self.feed.ids.take(pa.array(rows[:_SHOWN])).to_pylist()
        return (
            f"{self.run.key}: the loss {name} is {loss} at step {step}. Its batch: {', '.join(ids)} and "
            f"{len(rows) - len(ids)} more. Look at these pictures, or lower the task's learning rates and choose "
            "another out: it is another experiment then."
        )

    def validate(self) -> dict[str, float]:
        """The task's numbers on validation pictures, means over them. `NotFinite` where one is."""
        rows = _spread(self.feed.validation, _VALIDATED)
        self._train(False)
        sums = defaultdict[str, float](float)
        for number, batch in enumerate(self._plain(rows)):
            for name, value in self.task.validate(batch, self._draws("validation", number, len(batch.labels))).items():
                sums[name] += value * len(batch.labels)
        told = {name: value / len(rows) for name, value in sums.items()}
        if wrong := [name for name, value in told.items() if not math.isfinite(value)]:
            raise NotFinite(
                f"{self.run.key}: {', '.join(wrong)} on validation data is no number after step {self.progress.step}: "
                "lower the task's learning rates and choose another out"
            )
        return told

    def grid(self) -> bytes:
        """The task's grid of some validation pictures, always the same ones, as a PNG."""
        self._train(False)
        (batch,) = self._plain(_spread(self.feed.validation, _PICTURED))
        return images.encode(self.task.grid(batch, self._draws("grid", 0, len(batch.labels))), _PNG)

    def finish(self) -> None:
        """What the task does with all training pictures at the end."""
        self._train(False)
        self.task.finish(self._plain(self.feed.train))

    def _train(self, mode: bool) -> None:
        for module in self.learning:
            module.train(mode)

    def _draws(self, what: str, number: int, rows: int) -> BatchRng:
        """BatchRng of one rank alone, the same ones at every validation."""
        return BatchRng(seed_of(self.run.seed, what, number), rows, World(device=self.place.device))

    def _plain(self, rows: np.ndarray) -> Iterator[Batch]:
        """The pictures of some rows as they are, in order, some at a time."""
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            yield self._batch(some, self.feed.images(some, self.place.device))

    def _batch(self, rows: np.ndarray, pixels: Tensor) -> Batch:
        """Bytes, or numbers in 0..1, as numbers in -1..1, with their labels."""
        scaled = pixels.float() / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels * 2 - 1
        return Batch(scaled, torch.from_numpy(self.feed.labels[rows]).to(self.place.device))


def _means(losses: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: sum(values) / len(values) for name, values in losses.items()}


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """All of `rows`, or `most` of them, evenly."""
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)
    chosen: np.ndarray = rows[places]
    return chosen
