"""Auxiliary batch normalisation: synthetic rows have norms of their own in training, which are dropped afterwards.

Method: arXiv 2312.02253, which applies the AdvProp norms of Xie et al. (CVPR 2020) to generated pictures: their
statistics differ from those of photographs, and beyond some number of them shared norms serve neither.

    with_aux(model)                       before the optimiser is built
    set_real_rows(model, k)               before each training pass: rows 0..k-1 are real, the others synthetic
    without_aux(model.state_dict())       what the plain network loads
"""

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AuxBatchNorm(nn.Module):
    """A batch norm for real rows, `main`, and a copy of it for synthetic ones, `aux`; in eval mode `main` does all.

    Every parameter takes part in every pass, with a gradient of zero where it has no rows: distributed training waits
    for all of them. Rows that leave one value per channel have no variance; they are normalised by the running
    statistics, which stay.
    """

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        self.main, self.aux = norm, copy.deepcopy(norm)
        self.real_rows: int | None = None
        """How many of the next training rows are real, those first; None until `set_real_rows`."""

    def forward(self, maps: Tensor) -> Tensor:
        if not self.training:
            plain: Tensor = self.main(maps)
            return plain
        assert self.real_rows is not None, "set_real_rows comes before a training pass"
        assert self.real_rows <= len(maps), f"{self.real_rows} real rows in a batch of {len(maps)}"
        real = _normalised(self.main, maps[: self.real_rows])
        synthetic = _normalised(self.aux, maps[self.real_rows :])
        if len(real) and len(synthetic):
            return torch.cat([real, synthetic])
        # The sum over no rows is 0; it carries the zero gradients, and keeps the memory format that `cat` would lose.
        return real + synthetic.sum() if len(real) else synthetic + real.sum()


def _normalised(norm: nn.BatchNorm1d | nn.BatchNorm2d, rows: Tensor) -> Tensor:
    """What `norm` makes of its rows in training, be there many, one or none."""
    if not len(rows):
        return rows + sum(parameter.sum() for parameter in norm.parameters())  # of no rows: the gradient is zero
    if rows.numel() == rows.shape[1]:
        return F.batch_norm(rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    normalised: Tensor = norm(rows)
    return normalised


def with_aux(model: nn.Module) -> nn.Module:
    """`model` itself, each of its batch norms (1d and 2d) now an `AuxBatchNorm` around the norm that was there.

    Frozen norms, such as those of POSTER's landmark branch, and norms without running statistics are left alone.
    """
    wrapped: dict[int, AuxBatchNorm] = {}  # a norm that is used in two places is wrapped once
    for parent in list(model.modules()):
        if isinstance(parent, AuxBatchNorm):
            continue
        for name, child in list(parent._modules.items()):
            if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)) and _learns(child):
                setattr(parent, name, wrapped.setdefault(id(child), AuxBatchNorm(child)))
    return model


def _learns(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> bool:
    return norm.track_running_stats and (not norm.affine or norm.weight.requires_grad)


def set_real_rows(model: nn.Module, k: int) -> None:
    """Take the first k rows of each training batch from now on as real; 0 and the whole batch are allowed."""
    for part in model.modules():
        if isinstance(part, AuxBatchNorm):
            part.real_rows = k


def without_aux(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the plain network, in the same order, of one with auxiliary norms; any other as it is.

    They are known by their keys: a network that has not been through `with_aux` must not hold norms of its own that
    are named `main` and `aux` side by side.
    """
    norms = {
        key.removesuffix(".aux.running_mean")
        for key in state
        if key.endswith(".aux.running_mean") and f"{key.removesuffix('.aux.running_mean')}.main.running_mean" in state
    }
    plain = {}
    for key, value in state.items():
        path, _, name = key.rpartition(".")
        norm, _, which = path.rpartition(".")
        if norm not in norms:
            plain[key] = value
        elif which == "main":
            plain[f"{norm}.{name}"] = value
    return plain
