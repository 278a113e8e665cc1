"""What ranks do as one, with two processes and without any."""

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed as dist
from torch import nn

from synthfer.training.world import World


def together(rank: int, folder) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world = World(rank, 2, draining=lambda: rank == 1)
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    for number, parameter in enumerate(network.parameters()):
        parameter.grad = None if number == 1 else torch.full_like(parameter, float(rank + 10 * number))
    nn.init.constant_(network[1].running_mean, rank + 5.0)
    world.average_gradients(network.parameters())
    world.broadcast_buffers(network)
    results = {
        "gradients": [None if p.grad is None else p.grad.unique().tolist() for p in network.parameters()],
        "shapes": all(p.grad is None or p.grad.shape == p.shape for p in network.parameters()),
        "buffer": network[1].running_mean.tolist(),
        "total": world.all_reduce(torch.tensor([1.0 + rank, 2.0])).tolist(),
        "first": world.broadcast(7 + rank),
        "interrupted": world.interrupted(),
    }
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("place")
    mp.spawn(together, args=(folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_gradients_are_the_mean_of_both_and_absent_ones_stay_absent(results):
    assert results[0]["gradients"] == [[0.5], None, [20.5], [30.5], [40.5], [50.5]]
    assert results[0]["shapes"] and results[1]["shapes"]


def test_all_ranks_have_the_same(results):
    assert results[0] == results[1]
    assert (results[0]["buffer"], results[0]["total"], results[0]["first"]) == ([5.0] * 3, [3.0, 4.0], 7)
    assert results[0]["interrupted"] is True  # the other one's machine is taken away


def test_a_rank_alone_changes_nothing():
    world, network = World(), nn.BatchNorm1d(2)
    network.weight.grad = torch.tensor([1.0, 2.0])
    world.average_gradients(network.parameters())
    world.broadcast_buffers(network)
    assert network.weight.grad.tolist() == [1, 2] and network.running_mean.tolist() == [0, 0]
    assert world.all_reduce(torch.tensor(3.0)) == 3 and world.broadcast(4) == 4
    assert not world.interrupted() and World(draining=lambda: True).interrupted()
