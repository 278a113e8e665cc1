"""The editor's networks: the published counts, keys and arithmetic; and codes as points of the plane."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synthfer.expressions import EXPRESSIONS
from synthfer.generators.expression_editor.codes import TO_NETWORK, Plane
from synthfer.generators.expression_editor.networks import (
    Discriminator,
    Generator,
    InstanceNorm,
    ModulatedBlock,
    NetworkConfig,
    ResidualBlock,
    parameters,
)
from synthfer.sample import Row

HAPPY, NEUTRAL, SAD, SURPRISE = (EXPRESSIONS.index(name) for name in ("happy", "neutral", "sad", "surprise"))


def small(seed: int = 0, **options: Any) -> Generator:
    torch.manual_seed(seed)
    return Generator(
        NetworkConfig(**({"space": "linear", "channels": "RGB", "size": 16, "width": 4, "blocks": 1} | options))
    )


def published(space: str) -> Generator:
    return Generator(NetworkConfig(space=space, channels="BGR"))


def faces(n: int = 2, size: int = 16) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


# -- the published networks


@pytest.mark.parametrize(("space", "number"), [("linear", 8_421_138), ("gaussian", 8_421_155)])
def test_the_published_generator_has_the_published_number_of_parameters(space: str, number: int) -> None:
    generator = published(space)
    assert parameters(generator) == number
    own = {"axes.weight": (6, 2), "axes.bias": (6,)}
    if space == "gaussian":
        own = {"covariance_angles.weight": (1, 7), "covariance_axes.weight": (7, 2), "mu.weight": (7, 2)}
    found = {key: tuple(value.shape) for key, value in generator.state_dict().items() if not key.startswith("main.")}
    assert found == own


def test_the_published_generator_has_the_published_keys_and_shapes() -> None:
    """StarGAN's: convolutions at 0, 3, 6; six blocks at 9 to 14; the way up at 15 and 18; the picture at 21."""
    state = published("linear").state_dict()
    shapes = {
        "main.0.weight": (64, 5, 7, 7),
        "main.3.weight": (128, 64, 4, 4),
        "main.6.weight": (256, 128, 4, 4),
        "main.9.main.0.weight": (256, 256, 3, 3),
        "main.14.main.3.weight": (256, 256, 3, 3),
        "main.15.weight": (256, 128, 4, 4),
        "main.18.weight": (128, 64, 4, 4),
        "main.21.weight": (3, 64, 7, 7),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    for norm, channels in {"main.1": 64, "main.4": 128, "main.9.main.4": 256, "main.16": 128, "main.19": 64}.items():
        for key in ("weight", "bias", "running_mean", "running_var"):
            assert tuple(state[f"{norm}.{key}"].shape) == (channels,)
        assert state[f"{norm}.num_batches_tracked"].item() == 0
    assert "main.0.bias" not in state
    # 17 norms with five tensors each, 17 other convolutions ... and nothing else.
    assert len(state) == 18 + 17 * 5 + 2


@pytest.mark.parametrize("space", ["linear", "gaussian"])
def test_the_published_discriminator_has_44_8_million_parameters_and_three_heads(space: str) -> None:
    critic = Discriminator(space)
    assert parameters(critic) == 44_794_816
    classes = {"conv2.weight": (7, 2048, 2, 2), "conv3.weight": (2, 2048, 2, 2)}
    if space == "gaussian":
        classes = {"conv2.weight": (9, 2048, 2, 2)}
    heads = {"conv1.weight": (1, 2048, 3, 3)} | classes
    found = {key: tuple(v.shape) for key, v in critic.state_dict().items() if key.startswith("conv")}
    assert found == heads


@pytest.mark.parametrize("space", ["linear", "gaussian"])
def test_the_discriminator_tells_patches_classes_and_a_point(space: str) -> None:
    patches, classes, point = Discriminator(space, size=32, width=4, layers=3)(faces(3, 32))
    assert patches.shape == (3, 1, 4, 4)
    assert classes.shape == (3, 7)
    assert point.shape == (3, 2)


# -- arithmetic


def test_norms_use_the_instance_in_any_mode_and_keep_their_buffers() -> None:
    norm = InstanceNorm(3)
    norm.running_mean.fill_(5.0)  # type: ignore[union-attr]
    norm.weight.data[:] = torch.tensor([1.0, 2.0, 3.0])
    maps = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 4 + 7
    mean, variance = maps.mean((2, 3), keepdim=True), maps.var((2, 3), unbiased=False, keepdim=True)
    by_hand = (maps - mean) / (variance + 1e-5).sqrt() * norm.weight[:, None, None]
    for mode in (True, False):
        norm.train(mode)
        torch.testing.assert_close(norm(maps), by_hand)
    assert norm.running_mean.tolist() == [5.0] * 3  # type: ignore[union-attr]
    assert norm.num_batches_tracked == 0
    trained_as_published = nn.InstanceNorm2d(3, affine=True, track_running_stats=True).train()
    trained_as_published.weight.data.copy_(norm.weight.data)
    torch.testing.assert_close(norm(maps), trained_as_published(maps))


def test_the_code_goes_in_as_two_constant_maps() -> None:
    generator, images = small(), faces()
    points = torch.tensor([[0.3, -0.7], [0.9, 0.1]])
    maps = torch.ones(2, 2, 16, 16) * points[:, :, None, None]
    expected = generator.main(torch.cat([images, maps], 1))
    assert torch.equal(generator(images, points), expected)
    assert not torch.allclose(generator(images, points.flip(0)), expected)


def test_a_residual_block_adds_to_what_comes_in() -> None:
    block = ResidualBlock(4)
    block.main[4].weight.data.zero_()
    maps = torch.randn(1, 4, 6, 6)
    assert torch.equal(block(maps), maps)


def test_a_modulated_block_is_told_the_point() -> None:
    torch.manual_seed(0)
    block, maps = ModulatedBlock(4), torch.randn(1, 4, 6, 6)
    told = torch.randn(2, 64)
    assert not torch.allclose(block(maps, told[:1]), block(maps, told[1:]))


@pytest.mark.parametrize("code", ["maps", "blocks"])
def test_a_blend_leaves_the_source_where_its_weight_is_nothing(code: str) -> None:
    generator, images, points = small(output="blend", code=code), faces(), torch.zeros(2, 2)
    last = generator.main[-1]
    last.weight.data.zero_()
    last.bias.data[:] = torch.tensor([0.5, 0.5, 0.5, -50.0])
    torch.testing.assert_close(generator(images, points), images)
    last.bias.data[3] = 50.0
    torch.testing.assert_close(generator(images, points), torch.full_like(images, 0.5).tanh())


@pytest.mark.parametrize("options", [{}, {"output": "blend", "code": "blocks", "kernel": 5}])
def test_faces_come_out_in_size_and_range(options: dict[str, Any]) -> None:
    out = small(**options)(faces(3), torch.rand(3, 2))
    assert out.shape == (3, 3, 16, 16)
    assert out.abs().max() <= 1


# -- the plane


def test_linear_places_are_unit_axes_about_neutral() -> None:
    generator = small()
    generator.axes.weight.data = torch.tensor(
        [[3.0, 4.0], [-2.0, 0.0], [0.0, 9.0], [1.0, 1.0], [0.0, -1.0], [5.0, 0.0]]
    )
    root = 0.5**0.5
    expected = torch.tensor([[0, 0], [0.6, 0.8], [-1, 0], [0, 1], [root, root], [0, -1], [1, 0]])
    torch.testing.assert_close(generator.landmarks(), expected)


def test_closeness_is_minus_the_squared_mahalanobis_distance() -> None:
    generator = small(space="gaussian")
    chance = torch.Generator().manual_seed(0)
    generator.covariance_angles.weight.data = torch.rand(1, 7, generator=chance) * 3
    generator.covariance_axes.weight.data = torch.rand(7, 2, generator=chance) * 2 - 1
    points = torch.rand(5, 2, generator=chance) * 2 - 1
    means = generator.landmarks()
    torch.testing.assert_close(means, generator.mu.weight.tanh())
    for k in range(7):
        angle = generator.covariance_angles.weight[0, k].item()
        turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        covariance = turn @ torch.diag(generator.covariance_axes.weight[k].abs()) @ turn.T
        torch.testing.assert_close(generator.covariances()[k], covariance)
        away = points - means[k]
        distance = (away * torch.linalg.solve(covariance, away.T).T).sum(1)
        torch.testing.assert_close(generator.closeness(points)[:, k], -distance, rtol=1e-3, atol=1e-4)


def asked(operation: str | None, *code: float, label: int | None = HAPPY) -> Row:
    return Row(index=0, label=label, seed=0, operation=operation, code=code)


def plane(space: str = "linear") -> Plane:
    return Plane(small(space=space))


def test_labels_go_to_affectnets_classes() -> None:
    order = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
    assert [order[c] for c in TO_NETWORK] == list(EXPRESSIONS)


def test_an_expression_is_its_axis_times_the_intensity() -> None:
    generator = small()
    generator.axes.weight.data = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [-1, 1], [-1, -1], [0, -1]])
    found = Plane(generator)
    for label, intensity, point in ((HAPPY, 0.5, (0.5, 0)), (SAD, 1.2, (-1.2, 0)), (SURPRISE, 1.0, (0, 1))):
        np.testing.assert_allclose(found.point(asked("expression", intensity, label=label)), point, atol=1e-6)
    assert found.point(asked("expression", 0.8, label=NEUTRAL)).tolist() == [0, 0]
    assert found.point(asked("expression", 0.8)).dtype == np.float32


def test_a_gaussian_expression_is_on_the_way_from_neutral_to_its_mean() -> None:
    found = plane("gaussian")
    neutral, happy = found.landmarks[NEUTRAL], found.landmarks[HAPPY]
    np.testing.assert_allclose(found.point(asked("expression", 1.0)), happy, atol=1e-6)
    np.testing.assert_allclose(found.point(asked("expression", 0.25)), neutral + 0.25 * (happy - neutral), atol=1e-6)
    np.testing.assert_allclose(found.point(asked("expression", 0.0)), neutral, atol=1e-6)


@pytest.mark.parametrize("space", ["linear", "gaussian"])
def test_polar_and_point_say_the_point(space: str) -> None:
    found = plane(space)
    np.testing.assert_allclose(found.point(asked("polar", math.pi / 2, 0.5)), [0, 0.5], atol=1e-6)
    np.testing.assert_allclose(found.point(asked("polar", -math.pi, 0.5, label=None)), [-0.5, 0], atol=1e-6)
    np.testing.assert_allclose(found.point(asked("point", -0.25, 0.75, label=None)), [-0.25, 0.75])
    assert found.point(asked("point", *(float(np.float32(v)) for v in (-1.0, -0.6416)))).tolist()[0] == -1


@pytest.mark.parametrize(
    ("space", "row", "problem"),
    [
        ("linear", asked(None, 1.0), "unknown operation None; an edit is one of expression, polar, point"),
        ("linear", asked("noise", 1.0), "unknown operation 'noise'"),
        ("linear", asked("expression"), r"the code of expression is \[\], expected \(intensity\)"),
        ("linear", asked("expression", 1.0, 2.0), "expected"),
        ("linear", asked("polar", 1.0), r"expected \(theta, rho\), finite"),
        ("linear", asked("polar", math.nan, 0.5), "finite"),
        ("linear", asked("point", math.inf, 0.5), "finite"),
        ("linear", asked("expression", 1.0, label=None), r"its label is None, expected 0\.\.6"),
        ("linear", asked("expression", 1.0, label=7), "its label is 7"),
        ("linear", asked("expression", 1.6), r"intensity is 1\.6, expected 0\.\.1\.5"),
        ("linear", asked("expression", -0.1), r"intensity is -0\.1"),
        ("linear", asked("polar", 7.0, 0.5), "theta is 7, expected -2 pi..2 pi"),
        ("linear", asked("polar", 1.0, -0.5), r"rho is -0\.5, expected 0\.\.1\.5"),
        ("linear", asked("point", 1.2, 1.2), r"the point \(1\.2, 1\.2\) is further than 1\.5 from the origin"),
        ("gaussian", asked("point", 1.1, 0.0), r"the point \(1\.1, 0\) is outside -1\.\.1"),
        ("gaussian", asked("expression", 1.2), r"intensity is 1\.2, expected 0\.\.1 in a gaussian space"),
        ("gaussian", asked("polar", 0.0, 1.2), "outside"),
    ],
)
def test_a_wrong_code_is_refused_with_its_range(space: str, row: Row, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        plane(space).point(row)


def test_networks_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel: 4 is even"):
        NetworkConfig(space="linear", channels="RGB", kernel=4)
    with pytest.raises(ValueError, match="size: 50 is not a multiple of 4"):
        NetworkConfig(space="linear", channels="RGB", size=50)
    with pytest.raises(ValueError, match="use 4 at most"):
        Discriminator("linear", size=48, layers=5)
