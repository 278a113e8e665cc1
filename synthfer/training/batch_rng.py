"""Random numbers of one step on several ranks: drawn for the whole batch from a seed, each rank taking its rows."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from synthfer.training.world import World


@dataclass
class BatchRng:
    """Random numbers for the rows of this rank: row i of the batch gets the same ones on any number of ranks.

    `batch` is the number of rows over all ranks; a rank has rows `rank::size`. Results are on the world's device.
    """

    seed: int
    batch: int
    world: World
    _generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32 (rows of this rank, *shape)."""
        return self._own(torch.randn(self.batch, *shape, generator=self._generator))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform in [low, high), float32 (rows of this rank, *shape)."""
        return self._own(low + (high - low) * torch.rand(self.batch, *shape, generator=self._generator))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers in 0..high-1, int64 (rows of this rank, *shape)."""
        return self._own(torch.randint(high, (self.batch, *shape), generator=self._generator))

    def _own(self, values: Tensor) -> Tensor:
        return values[self.world.rank :: self.world.size].to(self.world.device)
