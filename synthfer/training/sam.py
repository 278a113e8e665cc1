"""Sharpness-aware minimisation: Foret, Kleiner, Mobahi and Neyshabur (ICLR 2021, arXiv 2010.01412), algorithm 1.

    loss(model, rows).backward()               within DDP's no_sync(), the forward pass, too
    sam.climb(); optimizer.zero_grad()
    with frozen_statistics(model):
        loss(model, rows).backward()           this gradient is averaged over the workers
    sam.descend(); optimizer.step()

Each worker climbs by the gradient of its own rows, which is the paper's m-sharpness with m rows per worker, and the
second gradient is averaged. So the result depends on the number of workers, as it does in the paper.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Sam:
    """Moves weights to where the loss is nearly the worst within `rho`, and back.

    It adds one copy of the weights between `climb` and `descend`.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rho: float) -> None:
        self.rho = rho
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._moved: list[Tensor] = []
        self._originals: list[Tensor] = []

    @torch.no_grad()
    def climb(self) -> None:
        """Move the weights by rho g / ||g||, the norm over all parameters together (eq. 2 with p = 2).

        Parameters without a gradient stay; where all gradients are zero nothing moves. The host waits for nothing.
        Where the gradient is not finite the weights are not, until `descend`.
        """
        assert not self._originals, "climbed twice without a descend"
        pairs = [(parameter, parameter.grad) for parameter in self._parameters if parameter.grad is not None]
        if not pairs:
            return
        self._moved, gradients = [weights for weights, _ in pairs], [gradient for _, gradient in pairs]
        self._originals = [weights.clone() for weights in self._moved]
        # Squares of float32 vanish below 1e-23 and overflow above 1e19.
        norms = torch._foreach_norm(gradients, 2, dtype=torch.float64)
        norm = torch.stack(norms).norm()
        kind = gradients[0].dtype
        factor = torch.where(norm > 0, self.rho / norm, 0).clamp(max=torch.finfo(kind).max).to(kind)
        torch._foreach_add_(self._moved, list(torch._foreach_mul(gradients, factor)))

    @torch.no_grad()
    def descend(self) -> None:
        """Put the weights back, bit for bit; gradients stay."""
        if self._originals:
            torch._foreach_copy_(self._moved, self._originals)
        self._moved, self._originals = [], []


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Within, batch norms in train mode still normalise by their batch, but leave running statistics alone.

    The second pass sees the same rows with weights that no one keeps; it must not count.
    """
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
