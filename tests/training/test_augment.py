"""Augmentation: right pixels by independent references, the same for any division of the batch."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from synthfer.training.augment import SMALL, AugmentParams, augment, draw
from synthfer.training.settings import AugmentConfig

OFF = {"flip": 0.0, "shift": 0}
EVERYTHING = AugmentConfig(
    flip=0.5, shift=3, rotate=20, scale=0.2, shear=10, brightness=0.3, contrast=0.3, saturation=0.3, grey=0.3,
    shrink=0.5, noise=0.5, erase=0.5,
)  # fmt: skip


def faces(rows: int = 8, size: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (rows, 3, size, size), dtype=np.uint8))


def smooth(rows: int = 2, size: int = 64) -> torch.Tensor:
    """Pictures without sharp edges, which survive sampling between pixels."""
    coarse = faces(rows, 4).float()
    return F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False).clamp(0, 255).to(torch.uint8)


def floats(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255


def one(images: torch.Tensor, **draws: object) -> torch.Tensor:
    return augment(images, AugmentParams(size=images.shape[-1], **draws))


def test_flip_and_shift_repeat_the_edges_of_each_row():
    images, config = faces(40, 9), AugmentConfig(flip=0.5, shift=4)
    draws = draw(config, 40, 9, seed=3)
    moved = augment(images, draws)
    assert moved.dtype == torch.uint8
    for row, (flip, (down, right)) in enumerate(zip(draws.flip.tolist(), draws.shift.tolist(), strict=True)):
        picture = images[row].numpy()
        picture = np.pad(picture[..., ::-1] if flip else picture, ((0, 0), (4, 4), (4, 4)), mode="edge")
        expected = picture[:, 4 - down : 13 - down, 4 - right : 13 - right]
        np.testing.assert_array_equal(moved[row].numpy(), expected)
    assert {0, 1} == set(draws.flip.int().tolist()) and draws.shift.unique().tolist() == list(range(-4, 5))


def test_nothing_asked_is_nothing_done():
    images = faces()
    assert torch.equal(augment(images, draw(AugmentConfig(**OFF), 8, 20, seed=0)), images)


def test_a_quarter_turn_is_anticlockwise_and_exact():
    images = faces()
    turned = one(images, angle=torch.tensor([0.0, 90, 180, 270, -90, 360, 90, 0]))
    for row, quarters in enumerate([0, 1, 2, 3, 3, 0, 1, 0]):
        expected = np.rot90(floats(images[row]).numpy(), quarters, axes=(1, 2))
        np.testing.assert_allclose(turned[row].numpy(), expected, atol=2e-3)


def test_turning_scaling_and_shearing_together_are_those_of_pillow():
    images = smooth(1, 65)  # with a middle pixel
    angle, scale, shear = 25.0, 1.2, 12.0
    ours = one(images, angle=torch.tensor([angle]), scale=torch.tensor([scale]), shear=torch.tensor([shear]))
    a, centre, lean = np.deg2rad(angle), 32.5, np.tan(np.deg2rad(shear))
    forth = scale * np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) @ np.array([[1, lean], [0, 1]])
    back = np.linalg.inv(forth)
    offset = centre - back @ [centre, centre]
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    theirs = picture.transform((65, 65), Image.Transform.AFFINE, [*back[0], offset[0], *back[1], offset[1]], 2)
    difference = np.abs(ours[0].permute(1, 2, 0).numpy() * 255 - np.asarray(theirs))
    assert difference[12:-12, 12:-12].max() <= 2  # Pillow rounds, and leaves what is outside black


def test_what_was_outside_is_the_edge():
    images = torch.full((1, 3, 20, 20), 77, dtype=torch.uint8)
    turned = one(images, angle=torch.tensor([45.0]), scale=torch.tensor([0.5]))
    torch.testing.assert_close(turned, floats(images))


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.7])
@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_colour_changes_are_those_of_pillow(name: str, enhancer: type, factor: float):
    images = faces(3)
    ours = one(images, **{name: torch.full((3,), factor)})
    for row in range(3):
        theirs = enhancer(Image.fromarray(images[row].permute(1, 2, 0).numpy())).enhance(factor)
        difference = ours[row].permute(1, 2, 0).numpy() * 255 - np.asarray(theirs)
        assert np.abs(difference).max() <= 1.6  # Pillow rounds the grey and the result


def test_grey_rows_have_the_luma_of_pillow_and_others_stay():
    images = faces(2)
    grey = one(images, grey=torch.tensor([True, False]))
    expected = np.asarray(Image.fromarray(images[0].permute(1, 2, 0).numpy()).convert("L"))
    for channel in grey[0]:
        assert np.abs(channel.numpy() * 255 - expected).max() <= 1
    assert torch.equal(grey[1], floats(images[1]))


def test_shrunk_rows_are_those_of_pillow_there_and_back():
    images = faces(2, 112)
    shrunk = one(images, shrink=torch.tensor([False, True]))
    picture = Image.fromarray(images[1].permute(1, 2, 0).numpy())
    there = picture.resize((SMALL, SMALL), Image.Resampling.BILINEAR)
    back = np.asarray(there.resize((112, 112), Image.Resampling.BILINEAR))
    assert np.abs(shrunk[1].permute(1, 2, 0).numpy() * 255 - back).max() <= 2
    assert torch.equal(shrunk[0], floats(images[0]))


@pytest.mark.parametrize("size", [20, SMALL])
def test_small_pictures_do_not_shrink(size: int):
    assert draw(AugmentConfig(**OFF, shrink=1), 4, size, seed=0).shrink is None


def test_noise_has_its_variance_and_only_where_drawn():
    images = torch.full((6, 3, 112, 112), 128, dtype=torch.uint8)
    draws = draw(AugmentConfig(**OFF, noise=0.5, noise_variance=30.0), 6, 112, seed=1)
    noise = (augment(images, draws) - floats(images)) * 255
    for row, noisy in enumerate(draws.noise >= 0):
        if noisy:
            assert noise[row].var().item() == pytest.approx(30, rel=0.05) and abs(noise[row].mean().item()) < 0.15
        else:
            assert not noise[row].any()
    assert 0 < (draws.noise >= 0).sum() < 6
    assert len({int(seed) for seed in draws.noise if seed >= 0}) == (draws.noise >= 0).sum()


def test_rectangles_have_the_area_asked_and_the_mean_colour():
    rows, size = 400, 112
    draws = draw(AugmentConfig(**OFF, erase=0.5, erase_area=(0.02, 0.1)), rows, size, seed=2)
    top, left, height, width = draws.erase.unbind(1)
    area = (height * width).double() / size**2
    erased = area > 0
    assert 160 < erased.sum() < 240
    assert area[erased].min() > 0.018 and area[erased].max() < 0.103
    assert area[erased].mean().item() == pytest.approx(0.06, abs=0.005)
    ratio = height[erased] / width[erased]
    assert 0.27 < ratio.min() < 0.5 and 2 < ratio.max() < 3.7
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= size).all() and (left + width <= size).all()

    images = faces(8, size)
    result = augment(images, draws[:8])
    for row in range(8):
        expected, (t, left_edge, h, w) = floats(images[row]), draws.erase[row].tolist()
        colour = expected.mean((1, 2), keepdim=True)
        expected[:, t : t + h, left_edge : left_edge + w] = colour
        torch.testing.assert_close(result[row], expected)


@pytest.mark.parametrize("area", [(1.0, 1.0), (0.9, 1.0), (0.0, 0.0)])
def test_rectangles_fit_at_the_extremes(area: tuple[float, float]):
    boxes = draw(AugmentConfig(**OFF, erase=1, erase_area=area), 50, 16, seed=0).erase
    share = (boxes[:, 2] * boxes[:, 3]) / 256
    assert (boxes[:, :2] + boxes[:, 2:] <= 16).all() and (boxes >= 0).all()
    assert (share >= area[0] - 0.1).all() and (share <= area[1]).all()


@given(st.integers(0, 2**62), st.lists(st.integers(0, 11), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_any_part_of_the_batch_is_augmented_as_the_whole(seed: int, rows: list[int]):
    images = faces(12, 56)
    draws = draw(EVERYTHING, 12, 56, seed)
    whole = augment(images, draws)
    assert torch.equal(augment(images[rows], draws[rows]), whole[rows])


def test_parts_by_slice_mask_and_stride_are_the_whole():
    images, draws = faces(12, 56), draw(EVERYTHING, 12, 56, seed=5)
    whole, mask = augment(images, draws), torch.arange(12) > 4
    for part in (slice(0, 5), slice(1, None, 3), mask, slice(3, 3)):
        assert torch.equal(augment(images[part], draws[part]), whole[part])


def test_draws_are_a_pure_function_and_a_change_turned_on_leaves_the_others():
    full, again = (draw(EVERYTHING, 16, 64, seed=9) for _ in range(2))
    other = draw(EVERYTHING, 16, 64, seed=10)
    for field in dataclasses.fields(AugmentParams):
        value = getattr(full, field.name)
        if isinstance(value, torch.Tensor):
            assert value.device.type == "cpu" and len(value) == 16
            assert torch.equal(value, getattr(again, field.name)) and not torch.equal(value, getattr(other, field.name))
    less = draw(dataclasses.replace(EVERYTHING, rotate=0, erase=0, shift=0), 16, 64, seed=9)
    assert less.angle is None and less.erase is None and less.shift is None
    assert torch.equal(less.flip, full.flip) and torch.equal(less.noise, full.noise)


def test_draws_are_spread_over_what_was_asked():
    draws = draw(EVERYTHING, 20_000, 64, seed=0)
    for name, low, high in (
        ("angle", -20, 20), ("scale", 0.8, 1.2), ("shear", -10, 10), ("brightness", 0.7, 1.3),
        ("contrast", 0.7, 1.3), ("saturation", 0.7, 1.3),
    ):  # fmt: skip
        values = getattr(draws, name)
        assert low <= values.min() and values.max() <= high
        spread = torch.histc(values, 10, low, high) / 20_000
        assert (spread - 0.1).abs().max() < 0.01, name
    for name, share in (("flip", 0.5), ("grey", 0.3), ("shrink", 0.5)):
        assert getattr(draws, name).float().mean().item() == pytest.approx(share, abs=0.015), name


def test_all_happens_on_the_device_of_the_pictures():
    """On the meta device nothing is computed, but tensors of two devices meet as little as on a GPU."""
    images = faces(12, 56).to("meta")
    result = augment(images, draw(EVERYTHING, 12, 56, seed=0))
    assert (result.device.type, result.dtype, result.shape) == ("meta", torch.float32, images.shape)
    assert augment(images, draw(AugmentConfig(), 12, 56, seed=0)).dtype == torch.uint8


def test_pictures_stay_in_range_and_the_given_ones_untouched():
    images = faces(12, 56)
    before = images.clone()
    result = augment(images, draw(EVERYTHING, 12, 56, seed=0))
    assert result.dtype == torch.float32 and result.min() >= 0 and result.max() <= 1
    assert torch.equal(images, before)


def test_global_random_state_is_neither_read_nor_moved():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = augment(faces(4, 56), draw(EVERYTHING, 4, 56, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(augment(faces(4, 56), draw(EVERYTHING, 4, 56, seed=1)), first)


@pytest.mark.parametrize(
    "images", [faces(3), faces(4, 16), faces(4).float(), faces(4)[:, :1]], ids=["rows", "size", "dtype", "channels"]
)
def test_pictures_of_other_parameters_are_refused(images: torch.Tensor):
    with pytest.raises(ValueError, match=r"the parameters are for uint8 \(4, 3, 20, 20\)"):
        augment(images, draw(AugmentConfig(), 4, 20, seed=0))


@pytest.mark.parametrize("area", [(0.1,), (0.2, 0.1), (0.1, 0.2, 0.3)])
def test_an_area_that_is_no_range_is_refused(area: tuple[float, ...]):
    with pytest.raises(ValueError, match=r"augment.erase_area is \[.*give the least and the most"):
        draw(AugmentConfig(erase=0.5, erase_area=area), 4, 20, seed=0)
