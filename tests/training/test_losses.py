"""Losses against torch's own, double precision by hand and finite differences; pairs against a double loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from synthfer.training.balance import class_weights
from synthfer.training.losses import Criterion, intra_class
from synthfer.training.settings import LossConfig

COUNTS = np.array([705, 717, 281, 4772, 2524, 1982, 1290])
PLAIN = {"smoothing": 0.0}


def batch(rows=40, seed=0, scale=3.0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, 7, generator=rng, dtype=dtype)
    return logits, torch.randint(7, (rows,), generator=rng)


def one_hot(labels, dtype=torch.float64):
    return functional.one_hot(labels, 7).to(dtype)


def soft(rows=40, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(7, 0.5), rows))


def losses(logits, targets, weights=None, reweighted=False, counts=COUNTS, **options):
    return Criterion(LossConfig(**options), counts)(logits, targets, weights, reweighted=reweighted)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4, 1.0])
def test_cross_entropy_is_torchs(smoothing):
    logits, labels = batch()
    expected = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(losses(logits, one_hot(labels), smoothing=smoothing), expected)
    targets = soft()
    expected = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(losses(logits, targets, smoothing=smoothing), expected)


@pytest.mark.parametrize("kind", ["class_balanced", "inverse"])
def test_class_weights_are_torchs_and_begin_when_told(kind):
    logits, labels = batch()
    weights = torch.from_numpy(class_weights(kind, COUNTS, 0.999))
    expected = functional.cross_entropy(logits, labels, weight=weights, reduction="none")
    told = losses(logits, one_hot(labels), reweighted=True, class_weights=kind, **PLAIN)
    torch.testing.assert_close(told, expected, rtol=1e-6, atol=0)
    before = losses(logits, one_hot(labels), reweighted=False, class_weights=kind, **PLAIN)
    torch.testing.assert_close(before, functional.cross_entropy(logits, labels, reduction="none"))


def test_class_weights_and_smoothing_weigh_the_row_by_its_own_class():
    logits, labels = batch()
    weights = torch.from_numpy(class_weights("inverse", COUNTS, 0))
    expected = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=0.3) * weights[labels]
    told = losses(logits, one_hot(labels), reweighted=True, class_weights="inverse", smoothing=0.3)
    torch.testing.assert_close(told, expected, rtol=1e-6, atol=0)


def test_a_blended_row_has_the_blended_weight():
    logits, _ = batch(1)
    targets = torch.zeros(1, 7, dtype=torch.float64)
    targets[0, 2], targets[0, 3] = 0.25, 0.75
    weights = class_weights("inverse", COUNTS, 0)
    plain = losses(logits, targets, **PLAIN)
    told = losses(logits, targets, reweighted=True, class_weights="inverse", **PLAIN)
    assert (told / plain).item() == pytest.approx(0.25 * weights[2] + 0.75 * weights[3], rel=1e-6)


def test_row_weights_and_the_factor_multiply_and_are_not_divided_by_their_sum():
    logits, labels = batch()
    weights = torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    plain = losses(logits, one_hot(labels))
    torch.testing.assert_close(losses(logits, one_hot(labels), weights, factor=2.5), 2.5 * weights * plain)
    heavy = losses(logits[:1], one_hot(labels[:1]), torch.tensor([7.0]))
    torch.testing.assert_close(heavy, 7 * plain[:1])


@pytest.mark.parametrize("epsilon", [0.2, 0.4])
def test_two_smoothed_and_one_plain_are_three_less_smoothed(epsilon):
    logits, labels = batch()
    sums = 2 * functional.cross_entropy(logits, labels, reduction="none", label_smoothing=epsilon)
    sums = sums + functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(losses(logits, one_hot(labels), smoothing=2 * epsilon / 3, factor=3.0), sums)


def focal_by_hand(logits, targets, smoothing, gamma):
    total = np.zeros(len(logits))
    for row, (z, t) in enumerate(zip(logits, targets, strict=True)):
        log_p = z - z.max() - math.log(np.exp(z - z.max()).sum())
        for c in range(7):
            smooth = (1 - smoothing) * t[c] + smoothing / 7
            total[row] -= smooth * (1 - math.exp(log_p[c])) ** gamma * log_p[c]
    return total


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_focal_by_hand(gamma, smoothing):
    logits, labels = batch()
    for targets in (one_hot(labels), soft()):
        told = losses(logits, targets, name="focal", gamma=gamma, smoothing=smoothing)
        assert told.numpy() == pytest.approx(focal_by_hand(logits.numpy(), targets.numpy(), smoothing, gamma))


def test_focal_without_gamma_is_cross_entropy():
    logits, labels = batch()
    torch.testing.assert_close(
        losses(logits, one_hot(labels), name="focal", gamma=0.0), losses(logits, one_hot(labels))
    )


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("right", [True, False])
def test_focal_gradients_are_finite_for_rows_that_are_fully_sure(gamma, right):
    logits = torch.zeros(1, 7)
    logits[0, 0 if right else 1] = 500.0
    logits.requires_grad_()
    loss = losses(logits, one_hot(torch.tensor([0]), torch.float32), name="focal", gamma=gamma, **PLAIN)
    loss.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert loss.item() == pytest.approx(0.0 if right else 500.0)


def test_ldam_row_by_row():
    logits, labels = batch()
    scale, margin = 30.0, 0.5
    logits = scale * torch.tanh(logits)
    told = losses(logits, one_hot(labels), name="ldam", scale=scale, margin=margin, **PLAIN)
    rarest = min(COUNTS)
    for row, label in enumerate(labels.tolist()):
        cosines = logits[row].numpy() / scale
        shifted = [cosines[c] - margin * (rarest / COUNTS[c]) ** 0.25 * (c == label) for c in range(7)]
        powers = [math.exp(scale * z) for z in shifted]
        assert told[row].item() == pytest.approx(-math.log(powers[label] / sum(powers)), rel=1e-5, abs=1e-9)


def test_ldam_gives_the_rarest_class_the_whole_margin_and_is_cross_entropy_without():
    level = torch.zeros(7, 7, dtype=torch.float64)
    told = losses(level, torch.eye(7, dtype=torch.float64), name="ldam", scale=10.0, margin=0.3, **PLAIN)
    assert told[2].item() == pytest.approx(math.log(1 + 6 * math.exp(3.0)), rel=1e-6)
    assert told.argsort().tolist() == np.argsort(-COUNTS).tolist()
    logits, labels = batch()
    same = losses(logits, one_hot(labels), name="ldam", margin=0.0)
    torch.testing.assert_close(same, losses(logits, one_hot(labels)))


def test_ldam_shares_the_margin_of_a_blended_row():
    logits, _ = batch(1)
    targets = torch.tensor([[0, 0, 0.25, 0.75, 0, 0, 0]], dtype=torch.float64)
    margins = 0.5 * (COUNTS.min() / COUNTS) ** 0.25
    shifted = logits - 30 * torch.from_numpy(margins) * targets
    expected = functional.cross_entropy(shifted, targets, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(losses(logits, targets, name="ldam", smoothing=0.2), expected, rtol=1e-6, atol=0)


def test_logit_adjustment_with_tau_one_is_balanced_softmax():
    logits, labels = batch()
    powers = np.exp(logits.numpy()) * COUNTS
    expected = -np.log(powers[np.arange(40), labels] / powers.sum(1))
    told = losses(logits, one_hot(labels), logit_adjustment=1.0, **PLAIN)
    assert told.numpy() == pytest.approx(expected, rel=1e-5)


def test_logit_adjustment_grows_with_tau_and_leaves_even_classes_alone():
    logits, labels = batch()
    shifted = logits + 0.4 * torch.from_numpy(np.log(COUNTS / COUNTS.sum()))
    expected = functional.cross_entropy(shifted, labels, reduction="none", label_smoothing=0.1)
    told = losses(logits, one_hot(labels), logit_adjustment=0.4)
    torch.testing.assert_close(told, expected, rtol=1e-6, atol=0)
    even = losses(logits, one_hot(labels), counts=np.full(7, 30), logit_adjustment=1.0)
    torch.testing.assert_close(even, losses(logits, one_hot(labels)), rtol=1e-6, atol=1e-9)


def test_logits_fitted_under_the_adjustment_answer_as_if_classes_were_even():
    # The best constant logits for data of these counts: without adjustment the prior, with tau 1 all alike.
    logits = torch.zeros(1, 7, dtype=torch.float64, requires_grad=True)
    prior = torch.from_numpy(COUNTS / COUNTS.sum())
    per_class = losses(logits.expand(7, 7), torch.eye(7, dtype=torch.float64), logit_adjustment=1.0, **PLAIN)
    (per_class * prior).sum().backward()
    assert logits.grad.abs().max() < 1e-7


OPTIONS = [
    {"name": "cross_entropy", "smoothing": 0.1},
    {"name": "focal", "gamma": 2.0, "smoothing": 0.1},
    {"name": "focal", "gamma": 0.7, "smoothing": 0.0},
    {"name": "ldam", "scale": 5.0, "smoothing": 0.1},
    {"logit_adjustment": 1.0, "class_weights": "class_balanced", "factor": 1.7},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_are_those_of_finite_differences(options):
    logits, _ = batch(6)
    criterion = Criterion(LossConfig(**options), COUNTS)
    weights = torch.linspace(0.5, 2, 6, dtype=torch.float64)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: criterion(z, soft(6), weights, reweighted=True), (logits,))


@pytest.mark.parametrize("options", OPTIONS)
def test_short_floats_and_autocast_change_nothing_but_the_logits(options):
    logits, labels = batch(dtype=torch.float32)
    short, targets = logits.bfloat16(), one_hot(labels, torch.float32)
    criterion = Criterion(LossConfig(**options), COUNTS)
    expected = criterion(short.float(), targets, torch.ones(40), reweighted=True)
    with torch.autocast("cpu", torch.bfloat16):
        told = criterion(short, targets, torch.ones(40), reweighted=True)
    assert told.dtype == torch.float32
    assert torch.equal(told, expected)


@pytest.mark.parametrize("options", OPTIONS)
def test_extreme_logits_give_finite_losses(options):
    logits = torch.tensor([[3e4, -3e4, 0, 0, 0, 0, 0]] * 2)
    told = losses(logits, torch.eye(7)[:2], reweighted=True, **options)
    assert torch.isfinite(told).all()
    assert told[0] < told[1]


def test_rows_do_not_know_their_neighbours():
    logits, labels = batch()
    options = {"name": "focal", "class_weights": "inverse", "logit_adjustment": 0.5}
    whole = losses(logits, one_hot(labels), reweighted=True, **options)
    alone = [losses(logits[i : i + 1], one_hot(labels[i : i + 1]), reweighted=True, **options) for i in range(40)]
    torch.testing.assert_close(whole, torch.cat(alone))
    assert losses(logits[:0], one_hot(labels[:0]), reweighted=True, **options).shape == (0,)


def test_nothing_of_the_criterion_is_kept_in_checkpoints():
    assert Criterion(LossConfig(name="ldam"), COUNTS).state_dict() == {}


@pytest.mark.parametrize("options", OPTIONS)
def test_the_criterion_follows_the_logits_to_their_device(options):
    device = torch.device("cuda" if torch.cuda.is_available() else "meta")
    logits, labels = batch(dtype=torch.float32)
    criterion, targets = Criterion(LossConfig(**options), COUNTS), one_hot(labels, torch.float32)
    expected = criterion(logits, targets, None, reweighted=True)
    told = criterion(logits.to(device), targets.to(device), None, reweighted=True)
    assert (told.device.type, told.shape) == (device.type, expected.shape)
    if device.type == "cuda":
        torch.testing.assert_close(told.cpu(), expected)


@pytest.mark.parametrize("options", [{"name": "ldam"}, {"logit_adjustment": 1.0}, {"class_weights": "inverse"}])
def test_a_class_without_rows_is_named_where_classes_differ(options):
    counts = np.array([3, 4, 0, 1, 1, 1, 1])
    with pytest.raises(ValueError, match="class fear"):
        Criterion(LossConfig(**options), counts)
    Criterion(LossConfig(), counts)


def test_shapes_that_do_not_fit_are_refused():
    logits, labels = batch(4)
    with pytest.raises(ValueError, match=r"targets \(4,\).*one-hot"):
        losses(logits, labels)
    with pytest.raises(ValueError, match=r"must both be \(rows, 7\)"):
        losses(logits[:, :5], one_hot(labels)[:, :5])
    with pytest.raises(ValueError, match=r"weights \(4, 1\)"):
        losses(logits, one_hot(labels), torch.ones(4, 1))


def by_pairs(features, labels, synthetic):
    """Both means as a double loop over pairs."""
    among, across = [], []
    for i in range(len(labels)):
        for j in range(len(labels)):
            if labels[i] != labels[j] or labels[i] < 0 or synthetic[j]:
                continue
            distance = sum((a - b) ** 2 for a, b in zip(features[i], features[j], strict=True))
            if synthetic[i]:
                across.append(distance)
            elif i < j:
                among.append(distance)
    return sum(among) / max(len(among), 1), sum(across) / max(len(across), 1)


@given(
    st.lists(st.tuples(st.integers(-1, 3), st.booleans()), min_size=1, max_size=16),
    st.integers(0, 1000),
    st.sampled_from([0.0, 100.0]),
)
@settings(max_examples=60, deadline=None)
def test_intra_class_is_a_double_loop_over_pairs(rows, seed, offset):
    labels, synthetic = (torch.tensor(column) for column in zip(*rows, strict=True))
    features = offset + torch.randn(len(rows), 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = sum(by_pairs(features.tolist(), labels.tolist(), synthetic.tolist()))
    assert intra_class(features, labels, synthetic).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert intra_class(features.float(), labels, synthetic).item() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def faces(rows=24, seed=5):
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, 6, generator=rng, dtype=torch.float64, requires_grad=True)
    return features, torch.randint(3, (rows,), generator=rng), torch.rand(rows, generator=rng) < 0.5


def test_real_rows_are_moved_by_real_rows_only():
    features, labels, synthetic = faces()
    (whole,) = torch.autograd.grad(intra_class(features, labels, synthetic), features)
    real = ~synthetic
    (alone,) = torch.autograd.grad(intra_class(features[real], labels[real], synthetic[real]), features)
    torch.testing.assert_close(whole[real], alone[real])
    assert alone[real].abs().max() > 0
    assert alone[synthetic].abs().max() == 0


def test_one_real_row_stands_still_and_draws_the_synthetic_ones():
    features, labels, synthetic = faces(4)
    labels, synthetic = torch.zeros_like(labels), torch.tensor([False, True, True, True])
    (slope,) = torch.autograd.grad(intra_class(features, labels, synthetic), features)
    assert slope[0].tolist() == [0] * 6
    torch.testing.assert_close(slope[1:], 2 * (features[1:] - features[0]).detach() / 3)


def test_gradients_of_both_terms_are_those_of_the_pairs_written_out():
    features, labels, synthetic = faces()
    (told,) = torch.autograd.grad(intra_class(features, labels, synthetic), features)
    for term, side in ((0, ~synthetic), (1, synthetic)):
        free = features.detach().numpy().copy()
        for row in side.nonzero()[:4, 0].tolist():
            step = np.zeros_like(free)
            step[row, 2] = 1e-6
            up, down = (
                by_pairs(moved, labels.tolist(), synthetic.tolist())[term] for moved in (free + step, free - step)
            )
            assert told[row, 2].item() == pytest.approx((up - down) / 2e-6, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(
    ("labels", "synthetic"),
    [
        ([0, 1, 2], [False, False, False]),
        ([0, 0, 0], [True, True, True]),
        ([0, 1, 1], [False, True, True]),
        ([-1, -1, -1], [False, False, True]),
    ],
)
def test_without_pairs_it_is_zero_and_still_a_graph(labels, synthetic):
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = intra_class(features, torch.tensor(labels), torch.tensor(synthetic))
    assert loss.item() == 0
    loss.backward()
    assert features.grad.tolist() == [[0] * 4] * 3


def test_intra_class_keeps_its_precision_under_autocast():
    features, labels, synthetic = faces()
    short = features.detach().bfloat16()
    expected = intra_class(short.float(), labels, synthetic)
    with torch.autocast("cpu", torch.bfloat16):
        told = intra_class(short, labels, synthetic)
    assert told.dtype == torch.float32
    assert torch.equal(told, expected)


def test_intra_class_of_no_rows_is_zero_and_wrong_shapes_are_refused():
    none = torch.zeros(0, 4)
    assert intra_class(none, torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)).item() == 0
    features, labels, synthetic = faces()
    with pytest.raises(ValueError, match=r"labels \(24, 1\)"):
        intra_class(features, labels[:, None], synthetic)
