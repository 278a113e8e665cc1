"""Optimisers: who decays, rates by depth, and schedules equal to torch's own."""

import json

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, ReduceLROnPlateau

from synthfer import classifiers
from synthfer.schema import ConfigError
from synthfer.training.aux_batchnorm import with_aux
from synthfer.training.optim import Schedule, build_optimizer, layers
from synthfer.training.settings import OptimizerConfig, ScheduleConfig


def on_paper(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return classifiers.build(name, **options)


def rates(config: ScheduleConfig, steps: int, per_epoch: float = 10, lr: float = 0.5) -> list[float]:
    schedule = Schedule(config, lr, steps, per_epoch)
    return [schedule.rate(step) for step in range(steps)]


def theirs(make: type, steps: int, every: int = 1, lr: float = 0.5, **numbers: float) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr)
    scheduler, seen = make(optimizer, **numbers), []
    for step in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0:
            scheduler.step()
    return seen


def test_layers_of_the_small_network_are_its_stages_and_its_head():
    firsts = [layer[0] for layer in layers(on_paper("small"))]
    assert firsts == [*(f"stages.{i}.down.weight" for i in range(3)), "head.weight"]


def test_layers_of_ir50_are_its_units():
    found = layers(on_paper("ir50"))
    assert len(found) == 1 + 3 + 4 + 14 + 1
    assert found[0] == [f"ir_back.input_layer.{key}" for key in ("0.weight", "1.weight", "1.bias", "2.weight")]
    assert all(name.startswith("ir_back.body.20.") for name in found[21])
    assert found[22] == ["head.weight", "head.bias"]


def test_layers_of_poster_are_those_that_learn():
    found = layers(on_paper("poster", depth="small"))
    firsts = [layer[0].rpartition(".")[0] for layer in found]
    assert firsts[22:25] == ["ir_layer", "pyramid_fuse", "pyramid_fuse.downsample_s"]
    assert [first.split(".block_l")[0] for first in firsts[25:29]] == [f"pyramid_fuse.blocks.{i}" for i in range(4)]
    assert firsts[29:] == ["se_block.linear1", "head.linear"]
    assert found[28][-2:] == ["pyramid_fuse.norm.weight", "pyramid_fuse.norm.bias"]
    assert not any("face_landback" in name or "cls_token" in name for layer in found for name in layer)


@pytest.mark.parametrize("name", ["small", "resemotenet", "ir50", "poster"])
def test_layers_hold_each_trainable_parameter_once_also_with_auxiliary_norms(name: str):
    model = on_paper(name)
    plain = layers(model)
    flat = [key for layer in plain for key in layer]
    assert sorted(flat) == sorted(key for key, p in model.named_parameters() if p.requires_grad)
    assert len(layers(with_aux(model))) == len(plain)


def test_layers_of_a_plain_sequence_and_of_nested_ones():
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    model = nn.Sequential(block, nn.Sequential(nn.Linear(4, 4), nn.PReLU()), nn.Linear(4, 2))
    assert layers(model) == [
        ["0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias"],
        ["1.0.weight", "1.0.bias", "1.1.weight"],
        ["2.weight", "2.bias"],
    ]


def test_shared_parameters_count_once_where_they_come_first():
    model = nn.ModuleDict({"embed": nn.Linear(3, 3), "norm": nn.BatchNorm1d(3), "out": nn.Linear(3, 3)})
    model["out"].weight = model["embed"].weight
    assert layers(model) == [
        ["embed.weight", "embed.bias", "norm.weight", "norm.bias", "out.bias"],
    ]
    assert sum(len(group["params"]) for group in build_optimizer(model, OptimizerConfig()).param_groups) == 5


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_norms_and_biases_do_not_decay_and_rates_fall_with_depth(name: str):
    model = classifiers.build("small")
    optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=0.1, weight_decay=0.3, layer_decay=0.5))
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for key, parameter in model.named_parameters():
        group = groups.pop(id(parameter))
        distance = 0 if key.startswith("head") else 3 - int(key.split(".")[1])
        assert group["lr_scale"] == 0.5**distance and group["lr"] == pytest.approx(0.1 * 0.5**distance)
        assert group["weight_decay"] == (0.3 if parameter.ndim > 1 else 0), key
    assert not groups


def test_without_layer_decay_there_are_two_groups_and_frozen_parts_are_in_none():
    model = classifiers.build("small")
    model.stages[0].requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig())
    assert len(optimizer.param_groups) == 2
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    with pytest.raises(ValueError, match="Small has no parameter that requires a gradient"):
        build_optimizer(model.requires_grad_(False), OptimizerConfig())


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        (
            OptimizerConfig(name="adam", lr=0.01, weight_decay=0.1),
            lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1),
        ),
        (
            OptimizerConfig(name="adamw", lr=0.01, weight_decay=0.1),
            lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
        ),
        (
            OptimizerConfig(name="sgd", lr=0.01, weight_decay=0.1, momentum=0.8, nesterov=True),
            lambda p: torch.optim.SGD(p, 0.01, momentum=0.8, weight_decay=0.1, nesterov=True),
        ),
    ],
)
def test_steps_are_those_of_the_named_optimiser(config: OptimizerConfig, reference: type):
    ours, other = (nn.Linear(4, 3, bias=False) for _ in range(2))
    other.load_state_dict(ours.state_dict())
    for model, optimizer in ((ours, build_optimizer(ours, config)), (other, reference(other.parameters()))):
        for step in range(5):
            optimizer.zero_grad()
            (model(torch.eye(4) * (step + 1)) ** 2).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, other.weight, rtol=1e-6, atol=1e-7)  # fused sums round otherwise


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer.nesterov needs optimizer.momentum above 0"):
        build_optimizer(nn.Linear(2, 2), OptimizerConfig(name="sgd", momentum=0, nesterov=True))


def test_cosine_and_exponential_are_those_of_torch():
    assert rates(ScheduleConfig(warmup=0), 40) == pytest.approx(theirs(CosineAnnealingLR, 40, T_max=40))
    config = ScheduleConfig(name="exponential", warmup=0, gamma=0.9)
    assert rates(config, 40) == pytest.approx(theirs(ExponentialLR, 40, every=10, gamma=0.9))
    assert rates(ScheduleConfig(name="constant", warmup=0), 7) == [0.5] * 7


@pytest.mark.parametrize("name", ["cosine", "constant", "exponential", "plateau"])
def test_the_start_is_linear_and_ends_at_the_highest_rate(name: str):
    seen = rates(ScheduleConfig(name=name, warmup=0.1), 100)
    assert seen[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert seen[10] == max(seen) == 0.5 and min(seen) > 0


def test_cosine_reaches_nothing_after_the_last_step_and_stays_there():
    schedule = Schedule(ScheduleConfig(warmup=0.2), 0.5, 50, 10)
    assert schedule.rate(50) == pytest.approx(0, abs=1e-12) == schedule.rate(80)
    assert Schedule(ScheduleConfig(warmup=1), 0.5, 4, 1).rate(3) == 0.5
    assert Schedule(ScheduleConfig(), 0.5, 1, 1).rate(0) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_plateau_falls_where_torch_s_does_also_when_resumed(seed: int):
    config = ScheduleConfig(name="plateau", warmup=0, patience=2, factor=0.3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.5)
    reference = ReduceLROnPlateau(optimizer, mode="max", factor=0.3, patience=2, threshold=0)
    schedule = Schedule(config, 0.5, 100, 10)
    scores = torch.rand(40, generator=torch.Generator().manual_seed(seed)).mul(5).round().tolist()
    for step, score in enumerate([*scores, float("nan"), 9.0]):
        schedule.validated(score)
        reference.step(score)
        assert schedule.rate(step) == pytest.approx(optimizer.param_groups[0]["lr"])
        resumed = Schedule(config, 0.5, 100, 10)
        resumed.load(json.loads(json.dumps(schedule.state(), allow_nan=False)))
        schedule = resumed
    assert schedule.rate(0) < 0.5


def test_only_plateau_heeds_validations():
    schedule = Schedule(ScheduleConfig(name="constant", warmup=0, patience=0), 0.5, 10, 1)
    for _ in range(5):
        schedule.validated(0.0)
    assert schedule.rate(5) == 0.5


def test_rates_are_written_into_the_groups_by_their_scale():
    model = classifiers.build("small")
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.1, layer_decay=0.5))
    Schedule(ScheduleConfig(name="constant", warmup=0.5), 0.1, 10, 1).set(optimizer, 0)
    assert {group["lr_scale"]: group["lr"] for group in optimizer.param_groups} == pytest.approx(
        {0.5**k: 0.02 * 0.5**k for k in range(4)}
    )


def test_a_schedule_without_steps_is_refused():
    with pytest.raises(ValueError, match="a schedule of 0 steps"):
        Schedule(ScheduleConfig(), 0.1, 0, 1)
