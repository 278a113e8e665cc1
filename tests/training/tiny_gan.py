"""The smallest task with all that a trainer must keep: two networks, an average, statistics, second derivatives."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from synthfer.checkpoints import Card
from synthfer.schema import option
from synthfer.training.ema import Average
from synthfer.training.tasks import Task

CODE, CLASSES = 4, 7


@dataclass(frozen=True, kw_only=True)
class Config:
    size: int = option(8, "pixels a side", low=4)
    optimizer: str = option("adam", "how weights move", choices=("adam", "sgd"))
    norm: bool = option(True, "batch norm in the maker")
    nan_at: int = option(-1, "step whose loss is no number")
    noise: float = option(1.0, "of what the maker is given", low=0)


class Kept(nn.Module):
    """The averaged maker with what it learns at the end."""

    def __init__(self, maker: nn.Module) -> None:
        super().__init__()
        self.maker = maker
        self.register_buffer("mean_picture", torch.zeros(CLASSES, 3))


class TinyGan(Task):
    def __init__(self, config: Config) -> None:
        self.config, self.size = config, config.size
        norm = [nn.BatchNorm1d(16)] if config.norm else []
        self.maker = nn.Sequential(nn.Linear(CODE + CLASSES, 16), *norm, nn.Tanh(), nn.Linear(16, 3 * self.size**2))
        self.critic = nn.Sequential(nn.Flatten(), nn.Linear(3 * self.size**2, 16), nn.Tanh(), nn.Linear(16, 1))
        self.average = Average(self.maker, 0.9)
        self.kept = Kept(self.average.model)
        self.modules = {"maker": self.maker, "critic": self.critic, "kept": self.kept}
        self.optimizers, self.finished = {}, []

    def begin(self, steps):
        kind = torch.optim.Adam if self.config.optimizer == "adam" else torch.optim.SGD
        self.optimizers = {name: kind(self.modules[name].parameters(), 0.01) for name in ("maker", "critic")}

    def made(self, maker, labels, codes):
        pixels = maker(torch.cat([self.config.noise * codes, F.one_hot(labels, CLASSES).float()], 1))
        return pixels.tanh().view(-1, 3, self.size, self.size)

    def update(self, name, loss, world):
        parameters = list(self.modules[name].parameters())
        self.optimizers[name].zero_grad()
        loss.backward(inputs=parameters)
        world.average_gradients(parameters)
        self.optimizers[name].step()

    def step(self, step, batch, rng):
        made = self.made(self.maker, batch.labels, rng.normal(CODE))
        between = torch.lerp(made.detach(), batch.images, rng.uniform(1, 1, 1)).requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
        critic = self.critic(made.detach()).mean() - self.critic(batch.images).mean() + penalty
        self.update("critic", critic, rng.world)
        losses = {"critic": critic.detach()}
        if step % 2:
            maker = (made - batch.images).abs().mean() - self.critic(made).mean()
            self.update("maker", maker, rng.world)
            self.average.update(self.maker, step)
            losses["maker"] = maker.detach()
        if step == self.config.nan_at:
            losses["critic"] = losses["critic"] * torch.nan
        return losses

    @torch.no_grad()
    def validate_batch(self, batch, rng):
        made = self.made(self.average.model, batch.labels, rng.normal(CODE))
        return {"error": float((made - batch.images).abs().mean()), "level": float(batch.images.mean())}

    @torch.no_grad()
    def grid(self, batch, rng):
        sheet = torch.cat([batch.images, self.made(self.average.model, batch.labels, rng.normal(CODE))], 3)
        return np.concatenate(((sheet + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())

    def finish(self, batches):
        self.finished = list(batches)
        images = torch.cat([batch.images for batch in self.finished])
        labels = torch.cat([batch.labels for batch in self.finished])
        for label in labels.unique():
            self.kept.mean_picture[label] = images[labels == label].mean((0, 2, 3))

    def weights(self):
        return self.kept.state_dict()

    def card(self, **facts):
        return Card(architecture="tiny_gan", options=asdict(self.config), **facts)


def build(config: Config) -> TinyGan:
    return TinyGan(config)
