"""Where a process stands in a gang that trains together, and what the gang does as one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

_CPU = torch.device("cpu")


def _stays() -> bool:
    return False


class Interrupted(Exception):
    """The machine of some rank is about to be taken away; what was trained until now is kept."""


@dataclass(frozen=True)
class World:
    """Which of `world` ranks this is, its device, and what says that its machine is about to be taken away."""

    rank: int = 0
    world: int = 1
    device: torch.device = _CPU
    leaving: Callable[[], bool] = _stays

    def interrupted(self) -> bool:
        """Whether some rank's machine is about to be taken away. All ranks hear the same, so all must ask."""
        return bool(self.total(torch.tensor(float(self.leaving()))) > 0)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks of a tensor on any device; itself, in place."""
        if self.world > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values

    def from_first(self, value: int) -> int:
        """What the first rank says."""
        told = torch.tensor(value, device=self.device)
        if self.world > 1:
            dist.broadcast(told, 0)
        return int(told)

    def share_buffers(self, module: nn.Module) -> None:
        """Gives all ranks the first one's running statistics."""
        if self.world > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """The mean over ranks of all gradients, in one exchange.

        For networks that several losses and second derivatives go through, which `DistributedDataParallel` does not
        follow.
        """
        if self.world > 1:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            parts = (flat / self.world).split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
