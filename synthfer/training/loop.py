"""The steps of one run: forward, backward, validation, checkpoints. Alone or as one of several ranks, without Ray.

Everything that a step draws is a function of seed and step: data order and augmentation of the whole batch, of which a
rank takes every `world`th row, and dropout, by rank too. So a run that was killed goes on from its last checkpoint to
the same weights, and the rows of a step, and how they are augmented, are the same on any number of ranks; what
`blend` makes of them is not.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from synthfer import metrics
from synthfer.classifiers._network import Classifier, Output
from synthfer.sample import seed_of
from synthfer.store import ObjectStore
from synthfer.training import checkpoint
from synthfer.training.augment import augment, draw
from synthfer.training.aux_batchnorm import set_real_rows, with_aux
from synthfer.training.blend import blend
from synthfer.training.checkpoint import Progress
from synthfer.training.ema import Average
from synthfer.training.feed import TrainingBatches
from synthfer.training.losses import Criterion, intra_class
from synthfer.training.optim import Schedule, build_optimizer
from synthfer.training.runs import Run
from synthfer.training.sam import Sam, frozen_statistics
from synthfer.training.settings import TrainConfig
from synthfer.training.world import Interrupted, World

log = logging.getLogger(__name__)

Tell = Callable[[Mapping[str, Any]], None]
"""Hears of progress: JSON-able facts with `kind` steps or validation."""

# Losses stay on the device for so many steps: to look at one waits for all work before it.
_WINDOW = 20
_VALIDATION_BATCH = 256
_SHOWN = 8
_REMEDY = (
    "Lower optimizer.lr (now {lr:g}) or set optimizer.clip, and choose another out: it is another experiment then."
)


class NotFinite(ValueError):
    """A loss was NaN or infinite; the message names the step and the samples of its batch."""


class Training:
    """A run on its way. `model` is trained in place; `fit` does all."""

    def __init__(self, config: TrainConfig, run: Run, feed: TrainingBatches, model: Classifier, place: World) -> None:
        self.config, self.run, self.feed, self.place = config, run, feed, place
        self.size = model.input.size
        if config.loss.name == "ldam":
            model.set_cosine(config.loss.scale)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        kinds = feed.synthetic[feed.train]
        # Without rows of either kind there is nothing to keep apart, and the norms that are kept would see no row.
        self.aux = config.aux_batchnorm and bool(kinds.any() and not kinds.all())
        network = with_aux(model) if self.aux else model
        self.network = network.to(place.device, memory_format=layout)  # type: ignore[call-overload]
        self.average = Average(self.network, config.ema) if config.ema else None
        self.optimizer = build_optimizer(self.network, config.optimizer)
        self.schedule = Schedule(config.schedule, config.optimizer.lr, run.steps, run.epoch)
        self.criterion = Criterion(config.loss, feed.counts)
        self.sam = Sam(self._parameters(), config.optimizer.sam_rho) if config.optimizer.sam_rho else None
        self.parallel = self._parallel()
        self.progress = Progress()
        self.losses: list[Tensor] = []
        self.since: list[float] = []  # losses since the last validation

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def _parallel(self) -> nn.Module:
        network: nn.Module = torch.compile(self.network) if self.config.compile else self.network  # type: ignore[assignment]
        if self.place.world == 1:
            return network
        devices = [self.place.device] if self.place.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices, gradient_as_bucket_view=True)

    @property
    def judged(self) -> nn.Module:
        """The weights that are validated and kept."""
        return self.average.model if self.average else self.network

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The first validation with the highest score."""
        return max(self.progress.history, key=lambda record: record["score"], default=None)

    @property
    def done(self) -> bool:
        """Whether all steps are done, or `patience` validations brought nothing better."""
        if self.progress.step >= self.run.steps:
            return True
        best, patience = self.best, self.config.patience
        if best is None or patience is None:
            return False
        return sum(record["step"] > best["step"] for record in self.progress.history) >= patience

    @property
    def marks(self) -> list[int]:
        """The steps after which it is validated, evenly spread, the last one among them."""
        return self.run.marks(self.config.validate_every or self.run.epoch)

    def fit(self, store: ObjectStore, tell: Tell) -> None:
        """Goes on from the last checkpoint, if there is one, until it is done.

        `NotFinite` where the loss is; `Interrupted` where a machine is about to be taken away, with a checkpoint of
        the steps until then.
        """
        self.resume(store)
        while not self.done:
            until = next(mark for mark in self.marks if mark > self.progress.step)
            reached = self.advance(until, tell)
            if reached < until:
                losses, schedule = {"loss": self.since}, self.schedule.state()
                self.progress = replace(self.progress, step=reached, losses=losses, schedule=schedule)
                self.save(store)
                raise Interrupted(f"{self.run.key}: after step {reached}")
            self.network.eval()
            record = self.record(until, sum(self.since) / len(self.since))
            self.since.clear()
            self.schedule.validated(record["score"])
            self.progress = Progress(
                step=until, history=(*self.progress.history, record), schedule=self.schedule.state()
            )
            self.save(store)
            tell({"kind": "validation", "run": self.run.key, "steps": self.run.steps, **record})

    def resume(self, store: ObjectStore) -> None:
        """Takes up the latest checkpoint of the run, the one that the first rank sees."""
        if body := checkpoint.latest(store, self.run.key, self.place):
            self.load(body)

    def load(self, body: bytes) -> None:
        """Becomes what a checkpoint of the same run says."""
        self.progress, modules, optimizers = checkpoint.unpack(body)
        self.network.load_state_dict(modules["network"])
        if self.average:
            self.average.load_state_dict(modules["average"])
        checkpoint.restore(self.optimizer, optimizers["network"])
        self.schedule.load(dict(self.progress.schedule))
        self.since = list(self.progress.losses.get("loss", ()))

    def save(self, store: ObjectStore) -> None:
        """Writes the checkpoint of this step, by the first rank, and deletes those that nothing needs."""
        if self.place.rank:
            return
        modules = {"network": self.network.state_dict()}
        if self.average:
            modules["average"] = self.average.state_dict()
        body = checkpoint.pack(self.progress, modules, {"network": self.optimizer.state_dict()})
        store.put_new(checkpoint.key(self.run.key, self.progress.step), body)
        checkpoint.prune(store, self.run.key, self.best["step"] if self.best else None)

    def advance(self, until: int, tell: Tell) -> int:
        """Steps until `until`, or fewer where a machine is about to be taken away: the number of steps done then."""
        self.parallel.train()
        clock = Clock()
        for step in range(self.progress.step, until):
            self.losses.append(self.step(step, clock))
            if len(self.losses) == _WINDOW or step + 1 == until:
                self.since += self.flush(step + 1)
                facts = {"run": self.run.key, "step": step + 1, "steps": self.run.steps, "loss": self.since[-1]}
                tell({"kind": "steps", **facts, "lr": self.schedule.rate(step), **clock.read(self.config.batch)})
                if self.place.interrupted():
                    return step + 1
        return until

    def flush(self, step: int) -> list[float]:
        """Mean loss of each step since the last flush, `step` being the number of steps done. `NotFinite`."""
        losses = self.place.total(torch.stack(self.losses)).tolist()
        self.losses.clear()
        for back, loss in enumerate(reversed(losses), 1):
            if not math.isfinite(loss) and all(map(math.isfinite, losses[:-back])):
                raise NotFinite(self._not_finite(step - back, loss))
        return losses

    def _not_finite(self, step: int, loss: float) -> str:
        rows = self.feed.at(step)
        ids = self.feed.ids.take(pa.array(rows[:_SHOWN])).to_pylist()
        return (
            f"{self.run.key}: the loss is {loss} at step {step}. Its batch: {', '.join(ids)} and "
            f"{len(rows) - len(ids)} more. Look at these pictures. {_REMEDY.format(lr=self.config.optimizer.lr)}"
        )

    def step(self, step: int, clock: "Clock") -> Tensor:
        """One step of the optimiser; this rank's part of the mean loss over the global batch."""
        clock.begin()
        rows = self.feed.at(step)[self.place.rank :: self.place.world]
        batch = self.batch(step, rows)
        clock.fed()
        self.schedule.set(self.optimizer, step)
        self.optimizer.zero_grad(set_to_none=True)
        if self.sam:
            with self._unsynchronised():
                self.backward(batch, step)
            self.sam.climb()
            self.optimizer.zero_grad(set_to_none=True)
            with frozen_statistics(self.network):
                loss = self.backward(batch, step)
            self.sam.descend()
        else:
            loss = self.backward(batch, step)
        if self.config.optimizer.clip:
            nn.utils.clip_grad_norm_(self._parameters(), self.config.optimizer.clip)
        self.optimizer.step()
        if self.average:
            self.average.update(self.network, step)
        return loss

    def _unsynchronised(self) -> contextlib.AbstractContextManager[None]:
        """Each rank's own gradient: SAM's first pass must not wait for the others (nor its forward)."""
        if isinstance(self.parallel, DistributedDataParallel):
            return self.parallel.no_sync()
        return contextlib.nullcontext()

    def batch(self, step: int, rows: np.ndarray) -> "Batch":
        """This rank's rows of a step, augmented."""
        feed, place, config, seed = self.feed, self.place, self.config, self.run.seed
        images = feed.images(rows, place.device)
        draws = draw(config.augment, config.batch, self.size, seed_of(seed, "augment", step))
        images = augment(images, draws[place.rank :: place.world])
        synthetic = torch.from_numpy(feed.synthetic[rows]).to(place.device)
        targets = torch.from_numpy(feed.targets[rows]).to(place.device)
        weights = None if feed.weights is None else torch.from_numpy(feed.weights[rows]).to(place.device)
        if config.blend.mixup or config.blend.cutmix:
            generator = torch.Generator().manual_seed(seed_of(seed, "blend", step, place.rank))
            images = images.float() / 255 if images.dtype == torch.uint8 else images
            images, targets = blend(images, targets, synthetic, config.blend, generator)
        if config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, targets, weights, synthetic, int((~feed.synthetic[rows]).sum()))

    def backward(self, batch: "Batch", step: int) -> Tensor:
        """Gradients of the mean loss over the global batch, for all ranks together; this rank's part of it."""
        config = self.config
        if self.aux:
            set_real_rows(self.network, batch.real)
        torch.manual_seed(seed_of(self.run.seed, "dropout", step, self.place.rank))
        with torch.autocast(self.place.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            output: Output = self.parallel(batch.images)
        reweighted = step >= config.loss.reweight_from * self.run.steps
        losses = self.criterion(output.logits, batch.targets, batch.weights, reweighted=reweighted)
        loss = losses.sum() / config.batch
        if config.loss.intra:
            share = len(batch.images) / config.batch
            labels = batch.targets.argmax(1)
            loss = loss + config.loss.intra * share * intra_class(output.features.float(), labels, batch.synthetic)
        # DDP takes the mean over ranks, and the sum is wanted.
        (loss * self.place.world).backward()
        return loss.detach()

    def record(self, step: int, loss: float) -> dict[str, Any]:
        """What is kept of a validation: step, epoch, mean training loss, rate, scores, and the one that decides."""
        scores = self.validate()
        score = -scores["nll"] if self.config.select == "nll" else scores[self.config.select]
        return {
            "step": step,
            "epoch": step / self.run.epoch,
            "loss": loss,
            "lr": self.schedule.rate(step - 1),
            **scores,
            "score": score,
        }

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Scores on the validation rows, each row counted once whatever the number of ranks."""
        self.place.share_buffers(self.judged)
        classes = self.feed.targets.shape[1]
        sums = torch.zeros(classes**2 + 2, dtype=torch.int64)
        for truth, probs in self._answers(self.feed.validation[self.place.rank :: self.place.world]):
            found = metrics.probability_sums(probs, truth)
            sums[:-2] += torch.from_numpy(metrics.confusion(truth, probs.argmax(1), classes).ravel())
            sums[-2:] += torch.tensor([found.rows, found.nll_units])
        *cells, rows, nll = self.place.total(sums).tolist()
        counts = np.array(cells).reshape(classes, classes)
        told = {name: float(metric(counts)) for name, metric in metrics.METRICS.items()}
        total = metrics.ProbabilitySums(rows=rows, top2_hits=0, nll_units=nll, brier_units=0)
        return told | {"abaw": 0.67 * told["macro_f1"] + 0.33 * told["accuracy"], "nll": total.nll}

    def _answers(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Labels and probabilities of validation rows, some at a time."""
        model = self.judged.eval()
        for start in range(0, len(rows), _VALIDATION_BATCH):
            some = rows[start : start + _VALIDATION_BATCH]
            with torch.autocast(self.place.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                logits = model(self.feed.images(some, self.place.device)).logits
            if not torch.isfinite(logits).all():
                raise NotFinite(
                    f"{self.run.key}: the network answers NaN or infinity after the steps since {self.progress.step}. "
                    + _REMEDY.format(lr=self.config.optimizer.lr)
                )
            yield self.feed.labels[some], logits.double().softmax(1).cpu().numpy()


@dataclass(frozen=True)
class Batch:
    """A rank's rows of a step: images (k, 3, size, size), targets (k, K), weights (k,), synthetic (k,); real first."""

    images: Tensor
    targets: Tensor
    weights: Tensor | None
    synthetic: Tensor
    real: int


class Clock:
    """Where the time of steps goes: to the making of batches, and in all."""

    def __init__(self) -> None:
        self.start, self.feeding, self.steps, self.begun = time.perf_counter(), 0.0, 0, 0.0

    def begin(self) -> None:
        """A batch is about to be made."""
        self.begun = time.perf_counter()

    def fed(self) -> None:
        """The batch is there."""
        self.feeding += time.perf_counter() - self.begun
        self.steps += 1

    def read(self, batch: int) -> dict[str, float]:
        """Images a second over all ranks and the share of time that was not spent on making batches, since the last."""
        seconds = time.perf_counter() - self.start
        told = {"images_per_s": batch * self.steps / seconds, "device_busy": 1 - self.feeding / seconds}
        self.start, self.feeding, self.steps = time.perf_counter(), 0.0, 0
        return told
