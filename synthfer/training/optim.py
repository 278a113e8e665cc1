"""Optimisers and learning rates: which parameters decay, how rates fall with depth, and how they move over the steps.

Rates that shrink layer by layer towards the input follow Clark et al., "ELECTRA" (ICLR 2020), appendix A; the half
cosine is that of Loshchilov and Hutter, "SGDR" (ICLR 2017), without restarts; decoupled decay (adamw) is theirs, too
(ICLR 2019).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from synthfer.schema import ConfigError
from synthfer.training.settings import OptimizerConfig, ScheduleConfig

_Named = tuple[str, nn.Parameter]


def layers(model: nn.Module) -> list[list[str]]:
    """Names of the trainable parameters, layer by layer in the order of registration, the last layer last.

    The model is opened; so are its lists and sequences of modules, and whatever holds, at any depth, a list or
    sequence of blocks, such as a trunk. What then stands there is a layer: a convolution, a linear layer, a residual
    unit. Norms and activations belong to the layer before them, parameters that an opened module holds itself to its
    first layer, shared ones to where they come first.
    """
    first = dict(model.named_parameters())
    grouped: list[list[_Named]] = []
    for block in _blocks(model, ""):
        trainable = [(name, parameter) for name, parameter in block if name in first and parameter.requires_grad]
        if grouped and not any(parameter.ndim > 1 for _, parameter in trainable):
            grouped[-1] += trainable
        elif trainable:
            grouped.append(trainable)
    return [[name for name, _ in layer] for layer in grouped]


def _blocks(module: nn.Module, prefix: str) -> Iterator[list[_Named]]:
    """Parameters of what an opened module holds, one list per part."""
    own = list(module.named_parameters(prefix, recurse=False))
    for name, child in module.named_children():
        path = f"{prefix}.{name}".removeprefix(".")
        for block in _blocks(child, path) if _opened(child) else [list(child.named_parameters(path))]:
            yield own + block
            own = []
    yield own


def _opened(module: nn.Module) -> bool:
    """Whether a part is several layers: it is a list or sequence, or holds one of blocks."""
    stacks = (nn.ModuleList, nn.Sequential)
    return isinstance(module, stacks) or any(
        isinstance(part, stacks) and any(_is_block(child) for child in part) for part in module.modules()
    )


def _is_block(module: nn.Module) -> bool:
    """Whether a module is made of modules and has weights; a norm made of two norms is not one."""
    return any(module.children()) and any(parameter.ndim > 1 for parameter in module.parameters())


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser of the trainable parameters of `model`; those that share rate and decay are one group.

    Biases and parameters of one dimension (norms, PReLU) have no weight decay. A layer that is k before the last has
    `layer_decay`**k of the rate: `group["lr_scale"]`, which `Schedule.set` heeds. `adam` is Kingma and Ba's, with the
    decay added to the gradient, as the published recipes have it. `ValueError` where nothing is trainable.
    """
    named = dict(model.named_parameters())
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for distance, layer in enumerate(reversed(layers(model))):
        for name in layer:
            decays = named[name].ndim > 1 and not name.endswith("bias")
            groups.setdefault((config.layer_decay**distance, decays), []).append(named[name])
    if not groups:
        raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient: nothing can be trained.")
    parts = [
        {"params": parameters, "lr": config.lr * scale, "lr_scale": scale,
         "weight_decay": config.weight_decay if decays else 0.0}
        for (scale, decays), parameters in groups.items()
    ]  # fmt: skip
    return _optimizer(config, parts)


def _optimizer(config: OptimizerConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if config.name == "adam":
        return torch.optim.Adam(groups, config.lr, fused=True)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, config.lr, fused=True)
    if config.nesterov and not config.momentum:
        raise ConfigError("optimizer.nesterov needs optimizer.momentum above 0")
    return torch.optim.SGD(groups, config.lr, config.momentum, nesterov=config.nesterov, fused=True)


class Schedule:
    """The learning rate of each step, 0 to `steps` - 1: a linear start, then the shape that the config names.

    The start takes `warmup` of the steps; its first step has a rate above 0. `cosine` falls to 0 after the last step,
    `exponential` by `gamma` each `steps_per_epoch` steps after the start, `plateau` by `factor` when `validated`
    had no better score for more than `patience` times.
    """

    def __init__(self, config: ScheduleConfig, lr: float, steps: int, steps_per_epoch: float) -> None:
        if steps < 1 or steps_per_epoch <= 0:
            raise ValueError(f"a schedule of {steps} steps, {steps_per_epoch} per epoch: both must be above 0.")
        self.config, self.lr, self.steps, self.steps_per_epoch = config, lr, steps, steps_per_epoch
        self._start = round(config.warmup * steps)
        self._best: float | None = None
        self._waited = self._falls = 0

    def rate(self, step: int) -> float:
        """The rate of a step, for layers whose `lr_scale` is 1."""
        if step < self._start:
            return self.lr * (step + 1) / self._start
        since, config = step - self._start, self.config
        if config.name == "cosine":
            return self.lr * (1 + math.cos(math.pi * min(1, since / max(1, self.steps - self._start)))) / 2
        if config.name == "exponential":
            return self.lr * config.gamma ** (since // self.steps_per_epoch)
        return self.lr * config.factor**self._falls

    def set(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Write the rate of `step` into every group, by its `lr_scale`."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step) * group["lr_scale"]

    def validated(self, score: float) -> None:
        """A validation's score, higher is better; only `plateau` heeds it, as torch's ReduceLROnPlateau does."""
        if self.config.name != "plateau":
            return
        if not math.isnan(score) and (self._best is None or score > self._best):
            self._best, self._waited = score, 0
        else:
            self._waited += 1
        if self._waited > self.config.patience:
            self._falls, self._waited = self._falls + 1, 0

    def state(self) -> dict[str, Any]:
        """What `validated` has seen, as JSON has it."""
        return {"best": self._best, "waited": self._waited, "falls": self._falls}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self._best, self._waited, self._falls = state["best"], state["waited"], state["falls"]
