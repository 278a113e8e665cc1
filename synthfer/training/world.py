"""The ranks that train together, and what they do as one (collectives of `torch.distributed`)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
_CPU = torch.device("cpu")


def _never() -> bool:
    return False


@dataclass(frozen=True)
class World:
    """Which of `size` ranks this process is, its device, and whether its machine is about to be taken away.

    Collectives need a process group where `size` is above one; every rank must call them, in the same order.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU
    draining: Callable[[], bool] = _never

    def interrupted(self) -> bool:
        """Whether the machine of any rank is about to be taken away: the same answer on every rank."""
        return bool(self.all_reduce(torch.tensor(float(self.draining()))) > 0)

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum over all ranks of a tensor, on this rank's device; the tensor is overwritten if it lies there."""
        if self.size > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values

    def broadcast(self, value: T) -> T:
        """The value of the first rank, anything that pickles."""
        if self.size == 1:
            return value
        box: list[Any] = [value if self.rank == 0 else None]
        dist.broadcast_object_list(box, 0, device=self.device)
        received: T = box[0]
        return received

    def barrier(self) -> None:
        """Waits until every rank is here."""
        self.broadcast(None)

    def broadcast_buffers(self, module: nn.Module) -> None:
        """Gives every rank the first one's buffers (running statistics of batch norms)."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces all gradients by their mean over the ranks, in one exchange.

        For networks that several losses and second derivatives go through, which `DistributedDataParallel` does not
        support.
        """
        if self.size > 1:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            parts = (flat / self.size).split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
