"""The task of an expression editor with GANmut's critic (d'Apolito et al., CVPR 2021): WGAN-GP, class, point, cycle.

Per step one update of the critic, every `n_critic`-th step one of the generator. The critic's class head learns from
labelled faces alone; the generator learns to satisfy it, and with it where the expressions are in the plane.

Other than in the authors' code: the target classes are drawn evenly, not shuffled from the batch's own labels, so
that rare ones are learned and ranks need no exchange; and the way back of the cycle has no noise and no free codes.
"""

from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthfer.checkpoints import Card
from synthfer.generators.expression_editor.codes import TO_NETWORK
from synthfer.generators.expression_editor.networks import CLASSES, Discriminator, Generator, NetworkConfig
from synthfer.tensors import to_uint8
from synthfer.training.batch_rng import BatchRng
from synthfer.training.ema import Average
from synthfer.training.tasks import Batch, Task
from synthfer.training.tasks._editor_settings import Settings
from synthfer.training.world import World

_LEAST_STRENGTH = 0.2
"""Strengths of expressions are drawn from here to 1, those of neutral from 0 to here."""
_NOISE = 0.075
"""Standard deviation of what is added to a guided point of the linear space."""
_AXIS = 0.1
"""Length of an evenly placed axis: only its direction counts, and a shorter one turns faster."""
_OF_NETWORK = ("space", "size", "width", "blocks", "kernel", "code", "output")


@dataclass(frozen=True)
class Targets:
    """The edits that a rank's rows shall get: points (n, 2), classes (n,) in the network's order, strengths (n,).

    `guided` (n,) marks the rows whose point is that of their class; the others' is anywhere.
    """

    points: Tensor
    classes: Tensor
    strengths: Tensor
    guided: Tensor


class ExpressionEditor(Task):
    """A `Task`; see there."""

    def __init__(self, settings: Settings) -> None:
        s = self.settings = settings
        self.size = s.size
        known = asdict(s)
        network = NetworkConfig(channels="RGB", **{name: known[name] for name in _OF_NETWORK})
        self.generator = Generator(network)
        if s.space == "linear" and s.axes == "even":
            angles = torch.arange(CLASSES - 1) * (2 * torch.pi / (CLASSES - 1))
            self.generator.axes.weight.data = _AXIS * torch.stack([angles.cos(), angles.sin()], 1)
        self.critic = Discriminator(s.space, s.size, s.critic_width, s.critic_layers, edited_class=s.critic == "joint")
        self.average = Average(self.generator, s.ema)
        self.modules: dict[str, nn.Module] = {
            "generator": self.generator,
            "critic": self.critic,
            "average": self.average.model,
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._to_network = torch.tensor(TO_NETWORK)
        self._steps, self._at = 1, 0

    # -- the trainer's side

    def begin(self, steps: int) -> None:
        rates = {"generator": self.settings.lr, "critic": self.settings.critic_lr}
        self._steps = steps
        self.optimizers = {
            name: torch.optim.Adam(self.modules[name].parameters(), rate, betas=(0.5, self.settings.beta2))
            for name, rate in rates.items()
        }

    def step(self, step: int, batch: Batch, rng: BatchRng) -> dict[str, Tensor]:
        world, s = rng.world, self.settings
        images, labels = batch.images, self._to_network.to(batch.labels.device)[batch.labels]
        edited = len(range(self._edited(rng))[world.rank :: world.size])
        self._set_rates(step)
        if warming := step < round(s.warmup * self._steps):
            losses = {"class": F.cross_entropy(self.critic(images)[1], labels)}
        else:
            losses = self._critic_losses(images, labels, self._targets(rng), rng)
        report = {f"critic_{name}": value.detach() for name, value in losses.items()}
        self._update("critic", losses, world)
        if not warming and (step + 1) % s.n_critic == 0:
            losses = self._generator_losses(images[:edited], labels[:edited], self._targets(rng), rng)
            report |= {f"generator_{name}": value.detach() for name, value in losses.items()}
            self._update("generator", losses, world)
            self.average.update(self.generator, step // s.n_critic)
        return report

    @torch.no_grad()
    def validate_batch(self, batch: Batch, rng: BatchRng) -> dict[str, float]:
        network, images = self._kept, batch.images
        labels = self._to_network.to(images.device)[batch.labels]
        places = network.landmarks()
        agreed, changed, back = [], [], []
        for c in range(CLASSES):
            edits = network(images, places[c].expand(len(images), 2))
            agreed.append((self.critic(edits)[1][:, :CLASSES].argmax(1) == c).float().mean())
            changed.append((edits - images).abs().mean())
            back.append((network(edits, places[labels]) - images).abs().mean())
        numbers = {"agreement": agreed, "change": changed, "cycle": back}
        return {name: float(torch.stack(values).mean()) for name, values in numbers.items()}

    @torch.no_grad()
    def grid(self, batch: Batch, rng: BatchRng) -> np.ndarray:
        """Rows of a face and its seven edits, in the order of `EXPRESSIONS`."""
        network, images = self._kept, batch.images
        places = network.landmarks()[list(TO_NETWORK)]
        columns = [images, *(network(images, place.expand(len(images), 2)) for place in places)]
        levels = to_uint8(torch.stack(columns, 1)).cpu()
        rows, tiles, _, side, _ = levels.shape
        return levels.permute(0, 3, 1, 4, 2).reshape(rows * side, tiles * side, 3).numpy()

    def weights(self) -> dict[str, Tensor]:
        return self.average.state_dict()

    def card(self, **facts: Any) -> Card:
        options = asdict(self.generator.config)
        return Card(architecture="expression_editor", options=options, **facts)

    @property
    def _kept(self) -> Generator:
        """The average of the generator's weights, as a network."""
        return cast(Generator, self.average.model)

    # -- one update

    def _set_rates(self, step: int) -> None:
        self._at = step
        left = (self._steps - step) / max(1.0, self.settings.decay * self._steps)
        for name, rate in (("generator", self.settings.lr), ("critic", self.settings.critic_lr)):
            for group in self.optimizers[name].param_groups:
                group["lr"] = rate * min(1.0, left)

    def _update(self, name: str, losses: dict[str, Tensor], world: World) -> None:
        """One step of a network by the weighted sum of its losses."""
        optimizer, module = self.optimizers[name], self.modules[name]
        s = self.settings
        weights = {
            "real": s.adversarial_weight,
            "made": s.adversarial_weight,
            "class": s.class_weight,
            "cycle": s.cycle_weight,
            "strength": s.strength_weight,
            "point": s.point_weight,
            "prediction": s.prediction_weight,
            "penalty": s.penalty_weight,
        }
        total = torch.stack([weights.get(key, 1.0) * value for key, value in losses.items()]).sum()
        parameters = list(module.parameters())
        optimizer.zero_grad()
        total.backward(inputs=[parameter for parameter in parameters if parameter.requires_grad])
        world.average_gradients(parameters)
        optimizer.step()

    def _critic_losses(self, images: Tensor, labels: Tensor, targets: Targets, rng: BatchRng) -> dict[str, Tensor]:
        """The class from all pictures; the other losses from the first ones against their edits."""
        rows, n = self._edited(rng), len(targets.classes)
        with torch.no_grad():
            edits = self.generator(images[:n], targets.points)
        patches, classes, points = self.critic(torch.cat([images, edits]))
        between = rng.uniform(1, 1, 1)[:n]
        values = {
            "real": -patches[:n],
            "made": patches[len(images) :],
            "point": (points[len(images) :] - targets.points.detach()) ** 2,
            "penalty": gradient_penalty(self.critic, images[:n], edits, between),
        }
        losses = {name: mean_over(value, rows, rng.world) for name, value in values.items()}
        return losses | {"class": F.cross_entropy(classes[: len(images)], labels)}

    def _generator_losses(self, images: Tensor, labels: Tensor, targets: Targets, rng: BatchRng) -> dict[str, Tensor]:
        with torch.no_grad():
            _, seen, seen_points = self.critic(images)
        edits = self.generator(images, targets.points)
        realism, classes, points = self.critic(edits)
        values, some = {"made": -realism}, {}
        right = F.cross_entropy(classes, targets.classes, reduction="none")
        if self.settings.space == "linear":
            confidence = classes.softmax(1).amax(1)
            values["point"] = (points - targets.points) ** 2
            some["class"] = right, targets.guided
            some["strength"] = (confidence - targets.strengths) ** 2, targets.strengths > _LEAST_STRENGTH
            back = self.generator.landmarks()[labels] * seen.softmax(1).amax(1, keepdim=True)
        else:
            values["class"] = symmetric_divergence(classes, self.generator.closeness(targets.points))
            some["prediction"] = right, targets.guided
            back = seen_points
        values["cycle"] = (self.generator(edits, back) - images).abs()
        rows, world = self._edited(rng), rng.world
        losses = {name: mean_over(value, rows, world) for name, value in values.items()}
        counts = {name: int(world.all_reduce(counted.sum())) for name, (_, counted) in some.items()}
        return losses | {name: mean_over(v * counted, counts[name], world) for name, (v, counted) in some.items()}

    def _edited(self, rng: BatchRng) -> int:
        """How many rows of the whole batch are edited: the first ones."""
        return max(1, round(self.settings.edited * rng.batch))

    def _targets(self, rng: BatchRng) -> Targets:
        """Codes of the rows to edit, free ones first: of the linear space by class and strength, else by mean."""
        world, places = rng.world, self.generator.landmarks()
        rows = torch.arange(world.rank, self._edited(rng), world.size, device=places.device)
        n, free = len(rows), round(self.settings.free * self._edited(rng))
        guided = rows >= free
        if self.settings.space == "gaussian":
            classes = (rows - free) % CLASSES
            points = torch.where(guided[:, None], places[classes], rng.uniform(2, low=-1.0)[:n])
            return Targets(points, classes, torch.ones_like(points[:, 0]), guided)
        classes, share = rng.integers(CLASSES)[:n], rng.uniform()[:n]
        spread = torch.where(classes == 0, 0.0, _LEAST_STRENGTH)
        strengths = spread + share * torch.where(classes == 0, _LEAST_STRENGTH, 1 - _LEAST_STRENGTH)
        angles = rng.uniform(high=2 * torch.pi)[:n]
        anywhere = strengths[:, None] * torch.stack([angles.cos(), angles.sin()], 1)
        points = places[classes] * strengths[:, None] + _NOISE * rng.normal(2)[:n]
        if self.settings.full:
            full = rng.uniform()[:n] < self.settings.full
            points = torch.where(full[:, None], places[classes], points)
            strengths = torch.where(full, (classes > 0).float(), strengths)
        return Targets(torch.where(guided[:, None], points, anywhere), classes, strengths, guided)


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """(|d critic / d x| - 1)**2 at x between `real` and `fake`, (n,); `share` (n, 1, 1, 1) is the way from `fake`.

    Gulrajani et al., NeurIPS 2017, eq. 3; the critic's patches are summed.
    """
    between = torch.lerp(fake, real, share).requires_grad_()
    patches = critic(between)[0]
    (slope,) = torch.autograd.grad(patches.sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1) ** 2


def symmetric_divergence(logits: Tensor, others: Tensor) -> Tensor:
    """KL(p, q) + KL(q, p) of two softmaxes (n, classes): the sum of (p - q)(log p - log q), (n,)."""
    p, q = logits.log_softmax(1), others.log_softmax(1)
    return ((p.exp() - q.exp()) * (p - q)).sum(1)


def mean_over(values: Tensor, rows: int, world: World) -> Tensor:
    """This rank's part of a mean over `rows` rows of all ranks: its average over ranks is that mean, however they lie.

    `values` are (n, ...), rows that do not count 0.
    """
    each = values.flatten(1).mean(1) if values.ndim > 1 else values
    return each.sum() * world.size / max(1, rows)
