"""Sharpness-aware minimisation: where it climbs to, that it comes back, and that the second pass leaves no trace."""

import pytest
import torch
from torch import nn

from synthfer import classifiers
from synthfer.training.sam import Sam, frozen_statistics


def test_on_a_quadratic_the_gradient_is_the_closed_form():
    """Of w A w / 2 the gradient is A w, hence at the climbed point A (w + rho A w / |A w|)."""
    matrix = torch.diag(torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64))
    start = torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64)
    weights = nn.Parameter(start.clone())
    sam = Sam([weights], rho=0.3)
    (weights @ matrix @ weights / 2).backward()
    sam.climb()
    torch.testing.assert_close(weights.detach(), start + 0.3 * matrix @ start / (matrix @ start).norm())
    weights.grad = None
    (weights @ matrix @ weights / 2).backward()
    sam.descend()
    assert torch.equal(weights.detach(), start)
    torch.testing.assert_close(weights.grad, matrix @ (start + 0.3 * matrix @ start / (matrix @ start).norm()))


def test_the_second_gradient_is_the_numeric_one_at_the_climbed_point():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    data = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    parameters, sam = list(model.parameters()), Sam(model.parameters(), rho=0.2)

    def loss() -> torch.Tensor:
        return model(data).exp().mean()

    loss().backward()
    gradients = [p.grad.clone() for p in parameters]
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    originals = [p.detach().clone() for p in parameters]
    sam.climb()
    for p, w, g in zip(parameters, originals, gradients, strict=True):
        torch.testing.assert_close(p.detach(), w + 0.2 * g / norm)
    model.zero_grad()
    loss().backward()
    numeric = []
    with torch.no_grad():
        for p in parameters:
            flat = p.view(-1)
            for i in range(len(flat)):
                kept = flat[i].item()
                flat[i] = kept + 1e-6
                above = loss()
                flat[i] = kept - 1e-6
                numeric.append((above - loss()) / 2e-6)
                flat[i] = kept
    sam.descend()
    torch.testing.assert_close(
        torch.cat([p.grad.flatten() for p in parameters]), torch.stack(numeric), atol=1e-8, rtol=1e-6
    )
    assert all(torch.equal(p, w) for p, w in zip(parameters, originals, strict=True))


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e25])
def test_the_way_is_rho_long_for_gradients_of_any_size(size: float):
    weights = [nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(2, 3))]
    sam = Sam(weights, rho=0.05)
    for p in weights:
        p.grad = torch.full_like(p, size)
    sam.climb()
    assert torch.cat([p.detach().flatten() for p in weights]).norm().item() == pytest.approx(0.05)
    sam.descend()
    assert all(not p.any() for p in weights)


def test_without_a_gradient_nothing_moves():
    still, frozen, zero = (nn.Parameter(torch.ones(3)) for _ in range(3))
    frozen.requires_grad_(False)
    frozen.grad, zero.grad = torch.ones(3), torch.zeros(3)
    sam = Sam([still, frozen, zero], rho=1.0)
    for _ in range(2):
        sam.climb()
        assert all(torch.equal(p, torch.ones(3)) for p in (still, frozen, zero))
        sam.descend()
    Sam([still], rho=1.0).climb()
    assert torch.equal(still, torch.ones(3))


def test_weights_come_back_bit_for_bit_also_from_what_is_not_finite():
    weights = nn.Parameter(torch.tensor([1e-8, 1.0, 3e7]))
    before, sam = weights.detach().clone(), Sam([weights], rho=10.0)
    for value in (1.0, float("inf"), float("nan")):
        weights.grad = torch.full((3,), value)
        sam.climb()
        assert not torch.equal(weights, before)
        sam.descend()
        assert torch.equal(weights, before)


def test_climbing_twice_is_a_mistake_of_the_loop():
    weights = nn.Parameter(torch.ones(2))
    weights.grad = torch.ones(2)
    sam = Sam([weights], rho=0.1)
    sam.climb()
    with pytest.raises(AssertionError, match="climbed twice"):
        sam.climb()


def test_statistics_stay_while_batches_are_still_normalised_by_their_own():
    model = classifiers.build("small").train()
    images = torch.rand(6, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    plain = model(images).logits.detach()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with frozen_statistics(model):
        inside = model(images).logits
    assert torch.equal(inside, plain)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model(images)
    moved = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert len(moved) == 3 * sum(isinstance(part, nn.BatchNorm2d) for part in model.modules())


def test_statistics_come_back_after_an_error_and_frozen_branches_keep_using_theirs():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(RuntimeError, match="on purpose"), frozen_statistics(model):
        raise RuntimeError("on purpose")
    assert [part.track_running_stats for part in model] == [True, False]
    model[0].eval()
    rows = torch.rand(4, 3) + 5
    with frozen_statistics(model):
        torch.testing.assert_close(model[0](rows), rows / (1 + 1e-5) ** 0.5)
