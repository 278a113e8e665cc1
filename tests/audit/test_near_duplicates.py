"""Levels of likeness: strangers stay below them as promised, whatever the sample's size; what is said of matches."""

import numpy as np
import pytest

from synthfer.audit.copies import CopyScan
from synthfer.audit.near_duplicates import Levels, Limits, NearMatches, levels, strictest, verdicts
from synthfer.audit.neighbours import Matches, merge


def unit(rng: np.random.Generator, rows: int, size: int) -> np.ndarray:
    vectors = rng.normal(size=(rows, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(("train", "size"), [(40, 64), (200, 64), (4096, 32), (4096, 128)])
def test_at_most_one_unrelated_test_row_in_a_thousand_reaches_the_level(train, size):
    rng, reached, tested = np.random.default_rng(0), 0, 0
    for _ in range(2):
        known, strange = unit(rng, train, size), unit(rng, 4000, size)
        level = levels(known, train, Limits()).cosine
        reached += int(((strange @ known.T).max(1) >= level).sum())
        tested += len(strange)
    assert reached <= tested / 1000


def test_a_level_is_not_so_high_that_nothing_reaches_it():
    known = unit(np.random.default_rng(1), 4096, 64)
    assert levels(known, 100_000, Limits()).cosine < 0.9


def test_too_few_or_too_alike_pictures_give_no_level_and_the_guard_is_skipped():
    rng = np.random.default_rng(2)
    alike = unit(rng, 100, 8) * 0.01 + unit(rng, 1, 8)
    for known in (unit(rng, 1, 8), unit(rng, 28, 8), alike / np.linalg.norm(alike, axis=1, keepdims=True) * 1.05):
        verdict = verdicts(merge_nothing(), levels(known, 100_000, Limits()), CopyScan())[0][1]
        assert (verdict.guard, verdict.status) == ("G4", "skipped")
        assert "near.cosine" in verdict.message


def test_a_level_that_is_given_is_used_as_it_is():
    known = unit(np.random.default_rng(3), 5, 8)
    told = levels(known, 5, Limits(cosine=0.8))
    assert told.cosine == 0.8
    assert verdicts(merge_nothing(), told, CopyScan())[0][1].threshold == "cosine 0.800"


def test_a_row_with_all_the_matches_that_are_kept_is_told():
    limits = Limits(keep=3)
    pairs = Matches(np.arange(4), np.array([7, 7, 7, 9]), np.full(4, 0.95, np.float32), np.zeros(4, np.int64))
    nothing = merge(keep=1)
    verdict = verdicts(NearMatches(nothing, nothing, pairs, nothing), Levels(limits, 0.9, 0.5), CopyScan())[0][2]
    assert (verdict.status, verdict.numbers["test_rows"], verdict.numbers["pairs"]) == ("fail", 2, 4)
    assert "1 have 3 or more" in verdict.message


def merge_nothing() -> NearMatches:
    nothing = merge(keep=1)
    return NearMatches(nothing, nothing, nothing, nothing)


def test_the_strictest_level_is_that_of_the_most_alike_dataset():
    limits = Limits()
    alike, unlike, none = Levels(limits, 0.97, 0.9), Levels(limits, 0.6, 0.4), Levels(limits, 2.0, None)
    assert strictest([unlike, none, alike]) is alike
    assert strictest([none]) is none
