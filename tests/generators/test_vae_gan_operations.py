"""Arithmetic on codes: each operation against its formula, and rows that are refused."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from synthfer.generators.vae_gan.operations import OPERATIONS, Classes, Encoded, codes, refusal, slerp
from synthfer.planning import variations
from synthfer.sample import Row

LATENT = 8


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes() -> Classes:
    factors = noise(7, LATENT, LATENT)
    covariances = factors @ factors.transpose(1, 2) + torch.eye(LATENT)
    return Classes.of(noise(7, LATENT, seed=1), covariances, torch.tensor([9, 9, 0, 9, 9, 9, 9]))


def face(seed: int) -> Encoded:
    return Encoded(noise(LATENT, seed=seed), noise(LATENT, seed=seed + 1).exp())


def row(operation: str, *code: float, label: int = 3, seed: int = 77, **changes: Any) -> Row:
    return replace(Row(index=0, label=label, seed=seed, operation=operation, code=code), **changes)


def both(given: Row, *faces: Encoded) -> torch.Tensor:
    """The code that both halves of the generator are told."""
    early, late = codes(given, faces, classes())
    assert torch.equal(early, late)
    return early


def test_noise_is_scaled_by_the_encodings_own_deviations() -> None:
    one = face(10)
    assert torch.equal(both(row("noise", 0.0), one), one.mean)
    drawn = torch.randn(LATENT, generator=torch.Generator().manual_seed(77))
    torch.testing.assert_close(both(row("noise", 1.5), one), one.mean + 1.5 * one.deviation * drawn)
    assert not torch.equal(both(row("noise", 1.5), one), both(row("noise", 1.5, seed=78), one))


def test_interpolation_ends_at_its_ends() -> None:
    one, two = face(10), face(20)
    assert torch.equal(both(row("interpolate", 0.0), one, two), one.mean)
    assert torch.equal(both(row("interpolate", 1.0), one, two), two.mean)
    assert torch.equal(both(row("interpolate", 0.3), one, two), slerp(one.mean, two.mean, 0.3))


def test_the_arc_is_a_circles_and_a_line_where_there_is_none() -> None:
    x, y = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    for t in (0.25, 0.5, 0.75):
        expected = torch.tensor([2 * math.cos(t * math.pi / 2), 2 * math.sin(t * math.pi / 2)])
        torch.testing.assert_close(slerp(x, y, t), expected)
    torch.testing.assert_close(slerp(x, 3 * x, 0.5), 2 * x)
    torch.testing.assert_close(slerp(x, -x, 0.25), 0.5 * x)
    assert torch.equal(slerp(torch.zeros(2), x, 0.5), 0.5 * x)


def test_direction_goes_from_one_class_to_the_other() -> None:
    one, known = face(10), classes()
    assert torch.equal(both(row("direction", 0.0, 5.0), one), one.mean)
    assert torch.equal(both(row("direction", 2.0, 3.0), one), one.mean)  # from a class to itself
    expected = one.mean + 2 * (known.means[3] - known.means[5])
    torch.testing.assert_close(both(row("direction", 2.0, 5.0), one), expected)


def test_recondition_keeps_the_code_and_style_gives_the_late_blocks_the_partners() -> None:
    one, two = face(10), face(20)
    assert torch.equal(both(row("recondition", 5.0), one), one.mean)
    early, late = codes(row("style"), [one, two], classes())
    assert torch.equal(early, one.mean) and torch.equal(late, two.mean)


def test_tail_has_mean_and_covariance_of_its_class() -> None:
    known = classes()
    assert torch.equal(both(row("tail", 0.0)), known.means[3])
    drawn = np.stack([both(row("tail", 1.0, seed=seed)).numpy() for seed in range(4000)])
    covariance = known.factors[3] @ known.factors[3].T
    error = np.abs(np.cov(drawn.T) - covariance.numpy()).max() / float(covariance.diagonal().max())
    assert error < 0.1
    np.testing.assert_allclose(drawn.mean(0), known.means[3].numpy(), atol=0.25)


def test_covariances_of_no_spread_have_factors_and_damaged_ones_are_told() -> None:
    flat = torch.zeros(7, LATENT, LATENT)
    flat[:, 0, 0] = 4.0
    factors = Classes.of(torch.zeros(7, LATENT), flat, torch.ones(7)).factors
    torch.testing.assert_close(factors @ factors.transpose(1, 2), flat, atol=1e-5, rtol=0)
    for spoilt in (-flat, flat * float("nan")):
        with pytest.raises(ValueError, match="not positive definite: the file is damaged"):
            Classes.of(torch.zeros(7, LATENT), spoilt, torch.ones(7))


def test_the_plan_makes_rows_of_these_operations_only() -> None:
    assert set(variations.OPERATIONS) == set(OPERATIONS)
    for name, operation in OPERATIONS.items():
        numbers = (name in variations._CONFIG_OF) + (name in variations.FOREIGN)
        faces = 2 if name in variations.PAIRED else 0 if name == "tail" else 1
        assert (len(operation.code), operation.faces) == (numbers, faces), name


@pytest.mark.parametrize(
    ("given", "faces", "reason"),
    [
        (row("blend", 1.0), 1, "operation 'blend' is none of noise, interpolate"),
        (replace(row("noise", 1.0), operation=None), 1, "operation None is none of"),
        (row("noise", 1.0, label=7), 1, "noise: label 7 is no class; 0..6 are"),
        (replace(row("noise", 1.0), label=None), 1, "noise: label None is no class"),
        (row("noise", 1.0), 0, r"noise: needs 1 picture\(s\), has 0"),
        (row("interpolate", 0.5), 1, r"interpolate: needs 2 picture\(s\), has 1"),
        (row("tail", 1.0), 1, r"tail: needs 0 picture\(s\), has 1"),
        (row("noise"), 1, r"noise: the code has 0 numbers, expected 1 \(scale\)"),
        (row("noise", code=None), 1, "noise: the code has 0 numbers"),
        (row("style", 0.5), 2, r"style: the code has 1 numbers, expected 0 \(nothing\)"),
        (row("noise", 10.5), 1, "noise: scale is 10.5, allowed is 0 to 10"),
        (row("noise", float("nan")), 1, "noise: scale is nan, allowed is 0 to 10"),
        (row("interpolate", -0.1), 2, "interpolate: t is -0.1, allowed is 0 to 1"),
        (row("direction", 4.0, 1.0), 1, "direction: strength is 4, allowed is 0 to 3"),
        (row("direction", 1.0, 7.0), 1, "direction: label of the source is 7, allowed is 0 to 6"),
        (row("recondition", 1.5), 1, "recondition: label of the source is 1.5, allowed"),
        (row("noise", 1.0, split="test"), 1, "noise: the row is of split test; only train is ever varied"),
    ],
)
def test_what_cannot_be_done_is_refused(given: Row, faces: int, reason: str) -> None:
    import re

    assert re.match(reason, refusal(given, faces) or "")


def test_classes_without_pictures_have_no_direction_and_no_tail() -> None:
    known = classes()
    assert known.lacking(row("tail", 1.0, label=2)) == "tail: the network was trained on no picture of fear"
    assert known.lacking(row("direction", 1.0, 2.0)) == "direction: the network was trained on no picture of fear"
    assert known.lacking(row("recondition", 2.0)) is None and known.lacking(row("noise", 1.0, label=2)) is None
