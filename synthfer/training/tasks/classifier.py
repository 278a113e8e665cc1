"""The classifier as a task: losses, SAM, averaged weights, auxiliary batch norms, schedule, the best step by a score.

It needs more than the members of the registry: the classes' frequencies in the training data, and `TrainConfig`. Ranks
share a step by `DistributedDataParallel`.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from synthfer import metrics
from synthfer.classifiers.checkpoints import ClassifierCard, card_of
from synthfer.classifiers.network import Classifier, Output
from synthfer.sample import seed_of
from synthfer.training.aux_batchnorm import set_real_rows, with_aux, without_aux
from synthfer.training.batch_rng import BatchRng
from synthfer.training.blend import blend
from synthfer.training.ema import Average
from synthfer.training.errors import NotFinite
from synthfer.training.losses import Criterion, intra_class
from synthfer.training.optim import Schedule, build_optimizer
from synthfer.training.runs import Run
from synthfer.training.sam import Sam, frozen_statistics
from synthfer.training.settings import TrainConfig
from synthfer.training.tasks import Batch, Task
from synthfer.training.training_batches import TrainingBatches
from synthfer.training.validation_batches import ValidationBatches
from synthfer.training.world import World

_VALIDATION_BATCH = 256


class ClassifierTask(Task):
    """A `Task`; see there. `model` is trained in place. `ValueError`: losses or optimisers that cannot be."""

    signed_images = False
    equal_shares = False

    def __init__(
        self, config: TrainConfig, run: Run, batches: TrainingBatches, model: Classifier, world: World
    ) -> None:
        self.config, self.run, self.world, self.model = config, run, world, model
        self.size, self.patience = model.input.size, config.patience
        self.remedy = f"Lower optimizer.lr (now {config.optimizer.lr:g}) or set optimizer.clip"
        if config.loss.name == "ldam":
            model.set_cosine(config.loss.scale)
        kinds = batches.synthetic[batches.train]
        # Without rows of either kind there is nothing to keep apart, and the norms that are kept would see no row.
        self.aux = config.aux_batchnorm and bool(kinds.any() and not kinds.all())
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        network = with_aux(model) if self.aux else model
        self.network: nn.Module = network.to(memory_format=layout)  # type: ignore[call-overload]
        self.modules = {"network": self.network}
        self._average = Average(self.network, config.ema) if config.ema else None
        if self._average:
            self.modules["average"] = self._average.model
        self.criterion = Criterion(config.loss, batches.counts)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    @property
    def kept(self) -> nn.Module:
        """The network whose weights are validated and published: the average where there is one."""
        return self._average.model if self._average else self.network

    def begin(self, steps: int) -> None:
        config = self.config
        self.optimizer = build_optimizer(self.network, config.optimizer)
        self.optimizers = {"network": self.optimizer}
        self.schedule = Schedule(config.schedule, config.optimizer.lr, steps, self.run.epoch)
        self.sam = Sam(self._parameters(), config.optimizer.sam_rho) if config.optimizer.sam_rho else None
        self.parallel = self._parallel()

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def _parallel(self) -> nn.Module:
        network: nn.Module = torch.compile(self.network) if self.config.compile else self.network  # type: ignore[assignment]
        if self.world.size == 1:
            return network
        devices = [self.world.device] if self.world.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices, gradient_as_bucket_view=True)

    def prepare(self, step: int, batch: Batch) -> Batch:
        config, images, targets = self.config, batch.images, batch.targets
        assert targets is not None and batch.synthetic is not None
        if config.blend.mixup or config.blend.cutmix:
            generator = torch.Generator().manual_seed(seed_of(self.run.seed, "blend", step, self.world.rank))
            images = images.float() / 255 if images.dtype == torch.uint8 else images
            images, targets = blend(images, targets, batch.synthetic, config.blend, generator)
        if config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, batch.labels, targets, batch.synthetic, batch.real_rows, batch.weights)

    def step(self, step: int, batch: Batch, rng: BatchRng) -> dict[str, Tensor]:
        self.schedule.set(self.optimizer, step)
        self.optimizer.zero_grad(set_to_none=True)
        if self.sam:
            with self._unsynchronised():
                self.backward(step, batch)
            self.sam.climb()
            self.optimizer.zero_grad(set_to_none=True)
            with frozen_statistics(self.network):
                loss = self.backward(step, batch)
            self.sam.descend()
        else:
            loss = self.backward(step, batch)
        if self.config.optimizer.clip:
            nn.utils.clip_grad_norm_(self._parameters(), self.config.optimizer.clip)
        self.optimizer.step()
        if self._average:
            self._average.update(self.network, step)
        return {"loss": loss}

    def _unsynchronised(self) -> contextlib.AbstractContextManager[None]:
        """Each rank's own gradient: SAM's first pass must not wait for the others (nor its forward)."""
        if isinstance(self.parallel, DistributedDataParallel):
            return self.parallel.no_sync()
        return contextlib.nullcontext()

    def backward(self, step: int, batch: Batch) -> Tensor:
        """Gradients of the mean loss over the global batch; a part of it whose mean over ranks is the whole."""
        config = self.config
        assert batch.targets is not None and batch.synthetic is not None
        if self.aux:
            set_real_rows(self.network, batch.real_rows)
        # Again for each pass: SAM's two passes drop out the same features.
        torch.manual_seed(seed_of(self.run.seed, "dropout", step, self.world.rank))
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            output: Output = self.parallel(batch.images)
        reweighted = step >= config.loss.reweight_from * self.run.steps
        losses = self.criterion(output.logits, batch.targets, batch.weights, reweighted=reweighted)
        loss = losses.sum() / config.batch
        if config.loss.intra:
            share = len(batch.images) / config.batch
            labels = batch.targets.argmax(1)
            loss = loss + config.loss.intra * share * intra_class(output.features.float(), labels, batch.synthetic)
        # DDP takes the mean over ranks, and the sum is wanted.
        loss = loss * self.world.size
        loss.backward()
        return loss.detach()

    def report(self, step: int, losses: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """The loss of the last step, and its learning rate."""
        return {"loss": losses["loss"][-1], "lr": self.schedule.rate(step)}

    @torch.inference_mode()
    def validate(self, validation: ValidationBatches) -> dict[str, float]:
        """Scores of `metrics.METRICS`, `abaw` and `nll` over all validation rows, each counted once."""
        classes = validation.data.targets.shape[1]
        sums = torch.zeros(classes**2 + 2, dtype=torch.int64)
        for truth, probs in self._predictions(validation):
            of_batch = metrics.probability_sums(probs, truth)
            sums[:-2] += torch.from_numpy(metrics.confusion(truth, probs.argmax(1), classes).ravel())
            sums[-2:] += torch.tensor([of_batch.rows, of_batch.nll_units])
        *cells, rows, nll = self.world.all_reduce(sums).tolist()
        counts = np.array(cells).reshape(classes, classes)
        scores = {name: float(metric(counts)) for name, metric in metrics.METRICS.items()}
        total = metrics.ProbabilitySums(rows=rows, top2_hits=0, nll_units=nll, brier_units=0)
        return scores | {"abaw": 0.67 * scores["macro_f1"] + 0.33 * scores["accuracy"], "nll": total.nll}

    def _predictions(self, validation: ValidationBatches) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Labels and probabilities of this rank's validation rows, some at a time."""
        for batch in validation.shared(_VALIDATION_BATCH):
            with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                logits = self.kept(batch.images).logits
            if not torch.isfinite(logits).all():
                raise NotFinite(
                    f"{self.run.key}: the network's logits on validation data are NaN or infinite. {self.remedy}, and "
                    "use another out=: with other settings it is another experiment."
                )
            yield batch.labels.cpu().numpy(), logits.double().softmax(1).cpu().numpy()

    def validated(self, step: int, losses: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, Any]:
        """Loss, learning rate and scores, with the one that chooses the best step, which the schedule follows, too."""
        score = -metrics["nll"] if self.config.select == "nll" else metrics[self.config.select]
        record = {**losses, "lr": self.schedule.rate(step - 1), **metrics, "score": score}
        self.schedule.validated(score)  # a plateau may lower the rate: after the record of the rate until now
        return record

    def state(self) -> dict[str, Any]:
        return self.schedule.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.schedule.load(dict(state))

    def weights(self) -> dict[str, Tensor]:
        return without_aux(self.kept.state_dict())

    def card(self, **facts: Any) -> ClassifierCard:
        return card_of(self.model, **facts)
