"""The exponential moving average of weights: it is validated and kept in place of the last step's weights.

Polyak and Juditsky (1992) average weights; the short memory of the first steps is that of TensorFlow's
ExponentialMovingAverage.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Average:
    """A copy of a model whose weights follow those of the model with memory d = min(`most`, (1 + step) / (10 + step)).

    `model` is the copy, always in eval mode; it asks for no gradients. `most` is in 0..1. Give the bare network, not
    what distributed training wraps around it.
    """

    def __init__(self, model: nn.Module, most: float) -> None:
        self.most = most
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Follow `model` after optimiser step `step`, 0 for the first: w <- d w + (1 - d) w'. Buffers are copied."""
        memory = min(self.most, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - memory)
        if buffers := list(self.model.buffers()):
            torch._foreach_copy_(buffers, list(model.buffers()))

    def state_dict(self) -> dict[str, Tensor]:
        """The copy's own: keys and shapes are those of the model."""
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state_dict`; torch's `RuntimeError` names keys that do not fit."""
        self.model.load_state_dict(state)
