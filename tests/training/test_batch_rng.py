"""Chance that is the same on any number of ranks."""

import pytest
import torch

from synthfer.training.batch_rng import BatchRng
from synthfer.training.world import World

CALLS = {
    "normal": lambda rng: rng.normal(3, 2),
    "uniform": lambda rng: rng.uniform(3),
    "integers": lambda rng: rng.integers(7),
}


def all_ranks(call, size: int, seed: int = 5, batch: int = 12) -> torch.Tensor:
    """What the ranks draw, put into the order of the batch, after a draw of another kind."""
    ranks = [BatchRng(seed, batch, World(rank, size)) for rank in range(size)]
    for rng in ranks:
        rng.normal(5)
    parts = [call(rng) for rng in ranks]
    whole = torch.empty(batch, *parts[0].shape[1:], dtype=parts[0].dtype)
    for rank, part in enumerate(parts):
        whole[rank::size] = part
    return whole


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("size", [2, 3, 12])
def test_a_row_gets_the_same_on_any_number_of_ranks(kind, size):
    assert torch.equal(all_ranks(CALLS[kind], size), all_ranks(CALLS[kind], 1))


@pytest.mark.parametrize("kind", CALLS)
def test_seeds_and_calls_differ_and_the_global_generator_does_not_matter(kind):
    rng = BatchRng(5, 64, World())
    torch.manual_seed(1)
    first, second = CALLS[kind](rng), CALLS[kind](rng)
    torch.manual_seed(2)
    assert torch.equal(CALLS[kind](BatchRng(5, 64, World())), first)
    assert not torch.equal(first, second) and not torch.equal(CALLS[kind](BatchRng(6, 64, World())), first)


def test_values_are_what_their_names_say():
    rng = BatchRng(0, 4000, World())
    normal, uniform, whole = rng.normal(), rng.uniform(low=-2.0, high=3.0), rng.integers(7)
    assert (normal.dtype, uniform.dtype, whole.dtype) == (torch.float32, torch.float32, torch.int64)
    assert abs(float(normal.mean())) < 0.05 and abs(float(normal.std()) - 1) < 0.05
    assert -2 <= uniform.min() < -1.99 and 2.99 < uniform.max() < 3
    assert (whole.bincount(minlength=7) > 450).all() and int(whole.max()) == 6
