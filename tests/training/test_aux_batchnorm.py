"""Auxiliary norms: each kind of rows by itself in training, the plain network in evaluation and when saved."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from synthfer import classifiers
from synthfer.training.aux_batchnorm import AuxBatchNorm, set_real_rows, with_aux, without_aux
from synthfer.training.ema import Average
from synthfer.training.sam import frozen_statistics


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    return nn.Sequential(model, nn.BatchNorm1d(5, momentum=0.3))


def rows(number: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("real", [0, 3, 8])
def test_training_equals_two_networks_that_share_all_but_their_norms(real: int):
    one, other = network(), network()
    model, images = with_aux(network()), rows(8)
    set_real_rows(model, real)
    out = model(images)
    halves = ((one, images[:real]), (other, images[real:]))
    expected = torch.cat([plain(part) for plain, part in halves if len(part)])
    torch.testing.assert_close(out, expected)
    weights = torch.arange(40.0).view(8, 5)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()

    def gradient(plain: nn.Module, key: str) -> torch.Tensor:
        parameter = plain.get_parameter(key)
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

    ours = dict(model.named_parameters())
    for key in dict(one.named_parameters()):
        path, _, name = key.rpartition(".")
        first, second = gradient(one, key), gradient(other, key)
        if f"{path}.main.{name}" in ours:
            torch.testing.assert_close(ours[f"{path}.main.{name}"].grad, first, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(ours[f"{path}.aux.{name}"].grad, second, rtol=1e-4, atol=1e-4)
        else:
            torch.testing.assert_close(ours[key].grad, first + second, rtol=1e-4, atol=1e-4)
    for part, plain in (("main", one), ("aux", other)):
        for place in ("0.1", "1"):
            for key, value in plain.get_submodule(place).state_dict().items():
                torch.testing.assert_close(model.get_submodule(f"{place}.{part}").state_dict()[key], value)


@pytest.mark.parametrize("real", [0, 2, 4])
def test_every_parameter_has_a_gradient_whatever_the_batch_holds(real: int):
    model = with_aux(classifiers.build("small")).train()
    set_real_rows(model, real)
    model(torch.rand(4, 3, 48, 48)).logits.sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    idle = "main" if real == 0 else "aux"
    if real != 2:
        assert all(not p.grad.any() for key, p in model.named_parameters() if f".{idle}." in key)


def test_evaluation_and_the_saved_network_are_the_plain_one():
    plain = classifiers.build("small")
    model, images = with_aux(copy.deepcopy(plain)), torch.rand(6, 3, 48, 48)
    set_real_rows(model, 6)
    model(images)
    plain(images)
    set_real_rows(model, 0)
    model(images + 1)  # synthetic rows leave no trace in what is kept
    state = without_aux(model.state_dict())
    assert list(state) == list(plain.state_dict())
    assert all(torch.equal(value, state[key]) for key, value in plain.state_dict().items())
    assert torch.equal(model.eval()(images).logits, plain.eval()(images).logits)
    assert without_aux(state) == state


def test_main_is_the_norm_that_was_there_and_aux_starts_as_its_copy():
    norm = nn.BatchNorm2d(4, eps=0.1, momentum=0.2, affine=True)
    model = with_aux(nn.Sequential(norm))
    assert isinstance(model[0], AuxBatchNorm) and model[0].main is norm and model[0].aux is not norm
    assert repr(model[0].aux) == repr(norm) and model[0].aux.weight is not norm.weight
    assert with_aux(model) is model and model[0].main is norm


def test_frozen_norms_and_those_without_statistics_are_left_alone():
    model = classifiers.build("small")
    model.stages[0].requires_grad_(False)
    with_aux(model)
    wrapped = [name for name, part in model.named_modules() if isinstance(part, AuxBatchNorm)]
    assert wrapped == [f"stages.{i}.norm{k}" for i in (1, 2) for k in (1, 2)]
    loose = with_aux(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.LayerNorm(3)))
    assert not any(isinstance(part, AuxBatchNorm) for part in loose)
    with torch.device("meta"):
        poster = with_aux(classifiers.build("poster", depth="small"))
    inside = [name for name, part in poster.named_modules() if isinstance(part, AuxBatchNorm)]
    assert inside and all(name.startswith("ir_back.") for name in inside)


def test_a_norm_in_two_places_stays_one():
    norm = nn.BatchNorm1d(3)
    model = with_aux(nn.Sequential(norm, nn.Linear(3, 3), norm))
    assert model[0] is model[2]


def test_keys_of_networks_with_parts_named_main_and_aux_survive():
    model = nn.ModuleDict({"main": nn.Sequential(nn.BatchNorm1d(3)), "aux": nn.Sequential(nn.BatchNorm1d(3))})
    model["heads"] = nn.ModuleDict({"main": nn.Linear(3, 3), "aux": nn.Linear(3, 3)})
    model["norms"] = nn.ModuleDict({"main": nn.BatchNorm1d(3), "aux": nn.BatchNorm1d(3)})
    keys = list(model.state_dict())
    assert list(without_aux(with_aux(model).state_dict())) == keys


def test_a_single_row_is_normalised_by_the_running_statistics():
    model = with_aux(nn.Sequential(nn.BatchNorm1d(3))).train()
    model[0].aux.running_mean.fill_(2.0)
    set_real_rows(model, 3)
    batch = torch.rand(4, 3)
    out = model(batch)
    torch.testing.assert_close(out[3], (batch[3] - 2) / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(out[:3], nn.BatchNorm1d(3)(batch[:3]))
    assert model[0].aux.running_mean.tolist() == [2.0] * 3


def test_the_second_pass_of_sam_leaves_both_statistics_alone_and_averages_drop_the_auxiliary():
    model = with_aux(network()).train()
    set_real_rows(model, 4)
    before = copy.deepcopy(model.state_dict())
    with frozen_statistics(model):
        model(rows(8))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    average = Average(model, 0.9)
    plain = network().eval()
    plain.load_state_dict(without_aux(average.state_dict()))
    torch.testing.assert_close(average.model(rows(8)), plain(rows(8)))


def test_the_loop_must_say_which_rows_are_real():
    model = with_aux(network()).train()
    with pytest.raises(AssertionError, match="set_real_rows"):
        model(rows(4))
    set_real_rows(model, 5)
    with pytest.raises(AssertionError, match="5 real rows in a batch of 4"):
        model(rows(4))


def test_half_precision_and_channels_last_are_kept():
    model = with_aux(network()).train()[0][1]
    images = torch.rand(4, 4, 5, 5, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    for real in (0, 2, 4):
        set_real_rows(model, real)
        out = model(images)
        assert out.dtype == torch.bfloat16 and out.is_contiguous(memory_format=torch.channels_last)


def _train(rank: int, folder: str) -> None:
    """Three steps of one of two workers; the first has only real rows, the second only synthetic ones."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = with_aux(network()).train()
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(3):
        set_real_rows(model, 8 if rank == 0 else 0)
        optimizer.zero_grad()
        wrapped(rows(8, seed=10 * rank + step)).exp().mean().backward()
        optimizer.step()
    torch.save({key: p.detach() for key, p in model.named_parameters()}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_workers_with_one_kind_of_rows_each_train_together(tmp_path: Path):
    """Distributed training stops at the second step where a worker leaves a parameter out."""
    mp.spawn(_train, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    start = dict(with_aux(network()).named_parameters())
    for key, value in first.items():
        torch.testing.assert_close(value, second[key])
    norms = [key for key in first if ".main." in key or ".aux." in key]
    assert len(norms) == 8 and not any(torch.equal(first[key], start[key]) for key in norms)
