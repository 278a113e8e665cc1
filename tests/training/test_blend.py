"""Blends against what the tensors show: shares, boxes, partners, and the distribution of lambda."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.training.blend import blend, partners_of
from synthfer.training.settings import BlendConfig

KINDS = st.lists(st.booleans(), min_size=0, max_size=30).map(lambda kinds: np.array(kinds, bool))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(rows=6, height=12, width=12):
    """Pictures filled with their row's number, and targets that name the row: the one tells of the other."""
    images = torch.arange(rows, dtype=torch.float64).view(rows, 1, 1, 1).expand(rows, 3, height, width).contiguous()
    return images, torch.eye(rows, dtype=torch.float64)


def marks(rows=6):
    return torch.arange(rows) % 2 == 1


def test_nothing_is_touched_where_blending_is_off():
    images, targets = numbered()
    for config in (BlendConfig(), BlendConfig(mixup=0.2, cutmix=1.0, share=0.0)):
        told = blend(images, targets, marks(), config, generator())
        assert told[0] is images
        assert told[1] is targets


@pytest.mark.parametrize("config", [BlendConfig(mixup=0.4), BlendConfig(cutmix=1.0)])
@pytest.mark.parametrize("partners", ["any", "same", "other"])
def test_pictures_and_targets_are_blended_alike(config, partners):
    images, targets = numbered(height=9, width=14)
    before = images.clone(), targets.clone()
    config = BlendConfig(mixup=config.mixup, cutmix=config.cutmix, partners=partners)
    for seed in range(30):
        mixed, told = blend(images, targets, marks(), config, generator(seed))
        rows = torch.arange(6, dtype=torch.float64)
        torch.testing.assert_close(mixed.mean((1, 2, 3)), told @ rows)
        torch.testing.assert_close(told.sum(1), torch.ones(6, dtype=torch.float64))
        assert torch.equal(images, before[0])
        assert torch.equal(targets, before[1])


def test_mixup_has_one_lambda_for_the_batch():
    images, targets = numbered()
    for seed in range(20):
        mixed, told = blend(images, targets, marks(), BlendConfig(mixup=1.0, partners="other"), generator(seed))
        kept = told.diagonal()
        torch.testing.assert_close(kept, kept[:1].expand(6))
        assert ((told > 0).sum(1) == 2).all()
        torch.testing.assert_close(mixed, mixed[:, :1, :1, :1].expand_as(mixed))


@pytest.mark.parametrize("size", [(12, 12), (9, 14), (1, 1)])
def test_cutmix_pastes_one_box_and_shares_targets_by_its_exact_area(size):
    images, targets = numbered(height=size[0], width=size[1])
    areas = set()
    for seed in range(40):
        config = BlendConfig(cutmix=1.0, partners="other")
        mixed, told = blend(images, targets, marks(), config, generator(seed))
        pasted = mixed != images
        assert (pasted == pasted[:1, :1]).all()
        rows, columns = pasted[0, 0].any(1).nonzero()[:, 0], pasted[0, 0].any(0).nonzero()[:, 0]
        assert pasted[0, 0].sum() == len(rows) * len(columns)
        if len(rows):
            assert len(rows) == rows[-1] - rows[0] + 1
            assert len(columns) == columns[-1] - columns[0] + 1
        area = int(pasted[0, 0].sum())
        assert told.diagonal().tolist() == pytest.approx([1 - area / math.prod(size)] * 6, abs=1e-15)
        areas.add(area)
    assert len(areas) > 8 or size == (1, 1)


def test_a_cutmix_box_has_one_minus_lambda_of_the_area_before_the_frame_cuts_it():
    images, targets = numbered(2, 20, 40)
    sizes = set()
    for seed in range(60):
        half = BlendConfig(cutmix=1e8, partners="other")  # lambda is 1/2, and a side is sqrt(1/2) of the picture's
        box = blend(images, targets, marks(2), half, generator(seed))[0][0, 0] != 0
        sizes.add((int(box.any(1).sum()), int(box.any(0).sum())))
    assert (max(height for height, _ in sizes), max(width for _, width in sizes)) == (14, 28)
    assert min(height for height, _ in sizes) >= 7  # the centre is always inside
    assert len(sizes) > 20


def test_cutmix_boxes_reach_every_pixel_and_keep_the_proportions():
    images, targets = numbered(2, 20, 40)
    covered = torch.zeros(20, 40)
    inner = []
    for seed in range(300):
        config = BlendConfig(cutmix=1.0, partners="other")
        mixed, _ = blend(images, targets, marks(2), config, generator(seed))
        box = mixed[0, 0] != 0
        covered += box
        rows, columns = box.any(1), box.any(0)
        if box.any() and not (rows[0] or rows[-1] or columns[0] or columns[-1]):
            inner.append((int(rows.sum()), int(columns.sum())))
    assert covered.min() > 0
    assert len(inner) > 20
    assert all(abs(width - 2 * height) <= 1 for height, width in inner)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_lambda_has_the_moments_of_its_beta_distribution(alpha):
    images, targets = torch.zeros(2, 3, 1, 1), torch.eye(2, dtype=torch.float64)
    rng, config = generator(1), BlendConfig(mixup=alpha, partners="other")
    drawn = np.array([blend(images, targets, marks(2), config, rng)[1][0, 0].item() for _ in range(4000)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert drawn.mean() == pytest.approx(0.5, abs=4 * math.sqrt(variance / 4000))
    assert drawn.var() == pytest.approx(variance, rel=0.1)
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_lambda_of_alpha_one_is_uniform():
    images, targets = torch.zeros(2, 3, 1, 1), torch.eye(2, dtype=torch.float64)
    rng, config = generator(2), BlendConfig(mixup=1.0, partners="other")
    drawn = sorted(blend(images, targets, marks(2), config, rng)[1][0, 0].item() for _ in range(3000))
    gaps = np.abs(np.array(drawn) - (np.arange(3000) + 0.5) / 3000)
    assert gaps.max() < 1.63 / math.sqrt(3000)  # Kolmogorov-Smirnov, one in a hundred


def test_a_share_of_the_batches_is_blended_and_both_kinds_take_turns():
    images, targets = numbered(2)
    rng = generator(3)
    config = BlendConfig(mixup=1.0, cutmix=1.0, share=0.6, partners="other")
    kinds = {"none": 0, "mixup": 0, "cutmix": 0}
    for _ in range(1000):
        mixed, told = blend(images, targets, marks(2), config, rng)
        if told is targets:
            kinds["none"] += 1
        else:
            whole = bool(((mixed == 0) | (mixed == 1)).all())
            kinds["cutmix" if whole else "mixup"] += 1
    assert kinds["none"] == pytest.approx(400, abs=60)
    assert kinds["mixup"] == pytest.approx(300, abs=60)
    assert kinds["cutmix"] == pytest.approx(300, abs=60)


def test_the_same_generator_gives_the_same_bytes_and_moves_on():
    images, targets = numbered()
    config = BlendConfig(mixup=0.2, cutmix=1.0)
    first, second = generator(7), generator(7)
    told = [blend(images, targets, marks(), config, first) for _ in range(5)]
    again = [blend(images, targets, marks(), config, second) for _ in range(5)]
    for one, other in zip(told, again, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    assert len({tuple(targets.ravel().tolist()) for _, targets in told}) > 1


def test_global_random_state_is_left_alone():
    images, targets = numbered()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    blend(images, targets, marks(), BlendConfig(mixup=0.2), generator())
    assert torch.equal(torch.get_rng_state(), before)


@given(KINDS, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_partners_of_any_kind_are_a_permutation(synthetic, seed):
    found = partners_of(synthetic, "any", np.random.default_rng(seed))
    assert sorted(found.tolist()) == list(range(len(synthetic)))


@given(KINDS, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_partners_of_the_same_kind_are_a_permutation_within_it(synthetic, seed):
    found = partners_of(synthetic, "same", np.random.default_rng(seed))
    assert sorted(found.tolist()) == list(range(len(synthetic)))
    assert (synthetic[found] == synthetic).all()


@given(KINDS, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_partners_of_the_other_kind_are_of_it_where_it_exists(synthetic, seed):
    found = partners_of(synthetic, "other", np.random.default_rng(seed))
    if synthetic.any() and not synthetic.all():
        assert (synthetic[found] != synthetic).all()
    else:
        assert found.tolist() == list(range(len(synthetic)))


@pytest.mark.parametrize("partners", ["any", "same", "other"])
def test_each_possible_partner_is_drawn_alike(partners):
    synthetic, rng = np.arange(6) >= 2, np.random.default_rng(0)
    seen = np.zeros((6, 6))
    for _ in range(3000):
        seen[np.arange(6), partners_of(synthetic, partners, rng)] += 1
    kinds = synthetic[:, None] == synthetic
    allowed = {"any": np.ones((6, 6), bool), "same": kinds, "other": ~kinds}[partners]
    expected = allowed / allowed.sum(1, keepdims=True)
    assert seen / 3000 == pytest.approx(expected, abs=0.05)


def test_partners_of_the_other_kind_are_drawn_for_each_row_by_itself():
    found = partners_of(np.arange(200) >= 100, "other", np.random.default_rng(0))
    # Of 100 draws from 100 rows about 63 are different ones.
    assert len(set(found[:100].tolist())) == pytest.approx(63, abs=15)
    assert len(set(found[100:].tolist())) == pytest.approx(63, abs=15)


@pytest.mark.parametrize("config", [{"mixup": 0.7}, {"cutmix": 0.7}])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_rows_without_the_other_kind_keep_every_bit(config, rows):
    images = torch.rand(rows, 3, 8, 8, generator=generator())
    targets = torch.softmax(torch.randn(rows, 7, generator=generator()), 1)
    for seed in range(10):
        mixed, told = blend(
            images,
            targets,
            torch.ones(rows, dtype=torch.bool),
            BlendConfig(**config, partners="other"),
            generator(seed),
        )
        assert torch.equal(mixed, images)
        assert torch.equal(told, targets)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [BlendConfig(mixup=0.7), BlendConfig(cutmix=0.7)])
def test_types_are_kept(config, dtype):
    images, targets = numbered()
    mixed, told = blend(images.to(dtype), targets.float(), marks(), config, generator())
    assert mixed.dtype == dtype
    assert told.dtype == torch.float32


def test_wrong_input_is_named():
    images, targets = numbered()
    config = BlendConfig(mixup=0.2)
    with pytest.raises(ValueError, match=r"uint8 \(6, 3, 12, 12\).*floating point"):
        blend(images.byte(), targets, marks(), config, generator())
    with pytest.raises(ValueError, match="6 images, 5 targets and 6 flags of synthetic rows"):
        blend(images, targets[:5], marks(), config, generator())
    with pytest.raises(ValueError, match="'mine' are unknown: give any, same or other"):
        partners_of(marks().numpy(), "mine", np.random.default_rng(0))
