"""Trains the VAE-GAN of `synthfer.generators.vae_gan`: codes of faces from which a rare class can grow.

Losses after "Semantic Data Augmentation for Long-tailed Facial Expression Recognition" (Li, Wang, Guan and Yin, arXiv
2411.17254): hinge losses, reconstruction, and the divergence of the posterior from N(0, I). The paper gives no weights.
Reconstructions are compared in the discriminator's maps, too (Larsen et al., ICML 2016), a part of the divergence is
free (Kingma et al., NeurIPS 2016), and the gradient on real pictures is penalised every few steps (Mescheder et al.,
ICML 2018; lazily as in Karras et al., CVPR 2020). A classifier that learns beside them, on real pictures alone,
compares reconstructions in its maps and classifies what was generated for a class (CVAE-GAN; Bao et al., ICCV 2017):
an expression is a few pixels of a face, which no other loss notices.

All networks take their gradients from one forward pass before any of them is updated.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthfer.checkpoints import Card
from synthfer.generators.vae_gan.networks import (
    CLASSES,
    AuxiliaryClassifier,
    CriticOutput,
    Discriminator,
    NetworkConfig,
    VaeGan,
)
from synthfer.limits import MAX_STEPS
from synthfer.schema import option
from synthfer.tensors import to_uint8
from synthfer.training.batch_rng import BatchRng
from synthfer.training.ema import Average
from synthfer.training.tasks import Batch, Task

_WEIGHED = ("pixel", "feature", "class_feature", "kl", "adversarial", "classification")
_SHOWN = 8  # pictures on a sheet


@dataclass(frozen=True, kw_only=True)
class Config(NetworkConfig):
    """The network, the weights of its losses, and how it learns."""

    pixel: float = option(20.0, "weight of the reconstruction's mean absolute difference, pixels in -1..1", low=0)
    feature: float = option(1.0, "weight of its difference in the discriminator's maps, summed over maps", low=0)
    class_feature: float = option(3.0, "weight of its difference in a classifier's maps, summed over maps", low=0)
    kl: float = option(0.002, "weight of the divergence from N(0, I), in nats per picture", low=0)
    free_bits: float = option(0.05, "nats of each number of the code that cost nothing", low=0)
    kl_warmup: float = option(0.2, "share of the steps in which the divergence's weight grows from 0", low=0, high=1)
    adversarial: float = option(0.05, "weight of the discriminator's score of generated pictures", low=0)
    classification: float = option(0.2, "weight of the classifier's loss on generated pictures", low=0)
    foreign: float = option(
        0.5, "share of codes without a picture to match that are a picture's, not N(0, I)'s", low=0, high=1
    )
    r1: float = option(1.0, "weight (gamma) of the discriminator's squared gradient on real pictures", low=0)
    r1_every: int = option(16, "steps from one penalty on that gradient to the next", low=1, high=MAX_STEPS)
    lr: float = option(2e-3, "learning rate of encoder, generator and classifier", low=0)
    lr_discriminator: float = option(1e-3, "learning rate of the discriminator", low=0)
    beta1: float = option(0.5, "Adam's memory of gradients", low=0, high=0.999)
    beta2: float = option(0.99, "Adam's memory of their squares", low=0, high=0.99999)
    decay: float = option(0.3, "share of the steps, at the end, in which the rates fall to 0", low=0, high=1)
    ema: float = option(0.998, "memory of the averaged weights, which are those that are kept", low=0, high=0.99999)


def divergence(mean: Tensor, log_variance: Tensor, free: float = 0.0) -> Tensor:
    """KL(N(mean, variance) || N(0, I)) in nats, (n,), of (n, latent) each; no number counts less than `free`."""
    each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return each.clamp(min=free).sum(1)


def hinge(real: Tensor, *generated: Tensor) -> Tensor:
    """The discriminator's hinge loss: E max(0, 1 - real) + the mean over `generated` of E max(0, 1 + generated)."""
    return F.relu(1 - real).mean() + torch.stack([F.relu(1 + values).mean() for values in generated]).mean()


def difference(one: CriticOutput, other: CriticOutput) -> Tensor:
    """Mean absolute difference of the maps of two batches, summed over maps."""
    return torch.stack([(a - b).abs().mean() for a, b in zip(one.maps, other.maps, strict=True)]).sum()


def psnr(pictures: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (n,), of pictures (n, 3, size, size) in [-1, 1]."""
    error = (pictures - others).square().flatten(1).mean(1) / 4
    return -10 * error.clamp(min=1e-10).log10()


class VaeGanTask(Task):
    """Encoder, generator, discriminator and classifier, and the average of the first two, which is published."""

    def __init__(self, config: Config) -> None:
        self.config, self.size = config, config.size
        self._network = NetworkConfig(**{field.name: getattr(config, field.name) for field in fields(NetworkConfig)})
        self.net, self.discriminator = VaeGan(self._network), Discriminator(self._network)
        self._average = Average(self.net, config.ema)
        self.classifier = AuxiliaryClassifier(self._network) if config.classification or config.class_feature else None
        self.modules: dict[str, nn.Module] = {
            "net": self.net,
            "discriminator": self.discriminator,
            # "judge" is the name in checkpoints and histories.
            **({"judge": self.classifier} if self.classifier is not None else {}),
            "average": self._average.model,
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._steps, self._grey = 1, False

    @property
    def kept(self) -> VaeGan:
        """The averaged network."""
        kept = self.modules["average"]
        assert isinstance(kept, VaeGan)
        return kept

    def begin(self, steps: int) -> None:
        """Builds the optimisers of a run of so many steps."""
        betas, self._steps = (self.config.beta1, self.config.beta2), steps
        self._rates = {"net": self.config.lr, "discriminator": self.config.lr_discriminator, "judge": self.config.lr}
        self.optimizers = {
            name: torch.optim.Adam(self.modules[name].parameters(), rate, betas)
            for name, rate in self._rates.items()
            if name in self.modules
        }

    def step(self, step: int, batch: Batch, rng: BatchRng) -> dict[str, Tensor]:
        """One step of all networks; losses by name, unweighted, detached scalars."""
        mean, log_variance, generated, labels = self._generate(batch, rng)
        losses = {
            "pixel": (batch.images - generated[0]).abs().mean(),
            "kl": divergence(mean, log_variance, self.config.free_bits).mean(),
            **self._discriminator_losses(batch, generated, labels),
            **(
                self._classifier_losses(self.classifier, batch, generated, labels)
                if self.classifier is not None
                else {}
            ),
        }
        totals = {name: losses[name] for name in self.optimizers if name in losses}
        totals["net"] = self._net_loss(losses, step)
        if self.config.r1 and step % self.config.r1_every == 0:
            losses["r1"] = self._squared_gradient(batch)
            totals["discriminator"] = totals["discriminator"] + self.config.r1 / 2 * self.config.r1_every * losses["r1"]
        self._update(step, totals, rng)
        return {name: loss.detach() for name, loss in losses.items()}

    def _generate(self, batch: Batch, rng: BatchRng) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
        """Mean and log-variance, reconstructions and fresh pictures, and the classes of the latter.

        A fresh picture is of N(0, I) and the row's own class, so that its classes are as frequent as the real ones, or
        it is of the row's own code and any class.
        """
        mean, log_variance = self.net.encoder(batch.images)
        codes = mean + (0.5 * log_variance).exp() * rng.normal(self.config.latent)
        prior, foreign = rng.normal(self.config.latent), rng.uniform() < self.config.foreign
        labels = torch.where(foreign, rng.integers(CLASSES), batch.labels)
        fresh = torch.where(foreign[:, None], codes, prior)
        both = self.net.generator(torch.cat([codes, fresh]), torch.cat([batch.labels, labels]))
        reconstructed, generated = both.chunk(2)
        return mean, log_variance, (reconstructed, generated), labels

    def _discriminator_losses(
        self, batch: Batch, generated: tuple[Tensor, Tensor], labels: Tensor
    ) -> dict[str, Tensor]:
        """What the discriminator's maps and scores of reconstructions and fresh pictures cost, and its own loss."""
        pictures, shown = torch.cat([batch.images, *generated]), torch.cat([batch.labels, batch.labels, labels])
        real, again, fresh = self.discriminator(pictures, shown).thirds()
        return {
            "feature": difference(real, again),
            "adversarial": -(again.scores.mean() + fresh.scores.mean()) / 2,
            "discriminator": hinge(real.scores, again.scores, fresh.scores),
        }

    def _classifier_losses(
        self, classifier: AuxiliaryClassifier, batch: Batch, generated: tuple[Tensor, Tensor], labels: Tensor
    ) -> dict[str, Tensor]:
        """The same of the classifier, which learns from real pictures alone."""
        real, again, fresh = classifier(torch.cat([batch.images, *generated])).thirds()
        return {
            "class_feature": difference(real, again),
            "classification": F.cross_entropy(fresh.scores, labels),
            "judge": F.cross_entropy(real.scores, batch.labels),
        }

    def _net_loss(self, losses: dict[str, Tensor], step: int) -> Tensor:
        """The loss of encoder and generator."""
        config, warm = self.config, self.config.kl_warmup * self._steps
        weights = {name: getattr(config, name) for name in _WEIGHED if name in losses}
        weights["kl"] *= min(1.0, (step + 1) / max(warm, 1))
        return torch.stack([weight * losses[name] for name, weight in weights.items()]).sum()

    def _squared_gradient(self, batch: Batch) -> Tensor:
        """Mean squared gradient of the scores of real pictures with respect to their pixels."""
        pictures = batch.images.detach().requires_grad_()
        scores = self.discriminator(pictures, batch.labels).scores.sum()
        (gradient,) = torch.autograd.grad(scores, pictures, create_graph=True)
        return gradient.square().flatten(1).sum(1).mean()

    def _update(self, step: int, totals: dict[str, Tensor], rng: BatchRng) -> None:
        """Gradients of each network by its own total alone, then one step of each, then one of the average."""
        left = self._steps - step
        factor = min(1.0, left / (self.config.decay * self._steps)) if self.config.decay else 1.0
        for name, loss in totals.items():
            parameters = list(self.modules[name].parameters())
            self.optimizers[name].zero_grad()
            # All losses come from one pass: those to come still need its graph.
            loss.backward(inputs=parameters, retain_graph=True)
            rng.world.average_gradients(parameters)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._rates[name] * factor
            optimizer.step()
        self._average.update(self.net, step)

    @torch.no_grad()
    def validate_batch(self, batch: Batch, rng: BatchRng) -> dict[str, float]:
        """`psnr` in dB of what comes back from the codes' means, `kl` in nats per picture."""
        mean, log_variance = self.kept.encoder(batch.images)
        again = self.kept.generator(mean, batch.labels)
        return {"psnr": float(psnr(batch.images, again).mean()), "kl": float(divergence(mean, log_variance).mean())}

    @torch.no_grad()
    def grid(self, batch: Batch, rng: BatchRng) -> np.ndarray:
        """A row a picture: itself, what comes back, two variations by noise of scale 1, and all classes."""
        images, labels = batch.images[:_SHOWN], batch.labels[:_SHOWN]
        mean, log_variance = self.kept.encoder(images)
        noise = (0.5 * log_variance).exp() * rng.normal(2, self.config.latent)[: len(images)].transpose(0, 1)
        columns = [images, self.kept.generator(mean, labels)]
        columns += [self.kept.generator(mean + one, labels) for one in noise]
        columns += [self.kept.generator(mean, torch.full_like(labels, label)) for label in range(CLASSES)]
        sheet = torch.stack(columns, 1)  # pictures, columns, 3, size, size
        levels = to_uint8(sheet).cpu().permute(0, 3, 1, 4, 2)
        return levels.reshape(len(images) * self.size, len(columns) * self.size, 3).numpy()

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> None:
        """Learns each class's mean and covariance from all training pictures, and whether all of them are grey."""
        self._grey = True
        codes, labels = zip(*self._encoded(batches), strict=True)
        self.kept.learn_classes(torch.cat(codes), torch.cat(labels))

    def _encoded(self, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            self._grey = self._grey and bool((batch.images == batch.images[:, :1]).all())
            yield self.kept.encoder(batch.images)[0], batch.labels

    def weights(self) -> dict[str, Tensor]:
        """The averaged network's state dict, with what is known of the classes."""
        return self.kept.state_dict()

    def card(self, **facts: Any) -> Card:
        """The card, with the options of the network."""
        options = asdict(self._network) | {"grey": self._grey}
        return Card(architecture="vae_gan", options=options, **facts)


def build(config: Config) -> VaeGanTask:
    """The task, with random weights of torch's global generator."""
    return VaeGanTask(config)
