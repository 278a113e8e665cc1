"""The cross-dataset matrix: every recipe on every test set, with intervals, guards and what may be averaged.

The result is plain JSON, `synthfer-matrix/1`, from which report/ draws tables and pages. A cell is contaminated where
one of its checkpoints has learned from its test rows, or was selected on test rows of its own collection. It keeps its
numbers, but no mean, rank or comparison includes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from synthfer.evaluation import comparisons, summary
from synthfer.evaluation.contamination import NO_AUDITS, Audits, Overlap, ceiling_of, checkpoint_selection, overlap
from synthfer.evaluation.inputs import (
    SELECTIONS,
    VARIANTS,
    Candidate,
    MatrixConfig,
    Predictions,
    TestSet,
    align,
    diagonal,
)
from synthfer.evaluation.runs import HEADLINES, run
from synthfer.expressions import EXPRESSIONS
from synthfer.metrics import finite
from synthfer.schema import ConfigError
from synthfer.suggest import nearest

FORMAT = "synthfer-matrix/1"

_Predicted = dict[tuple[str, str], dict[str, np.ndarray]]
"""By test set and variant, the predictions of each candidate by name, int64 (n,)."""


def matrix(
    candidates: Sequence[Candidate],
    tests: Sequence[TestSet],
    predictions: Predictions,
    config: MatrixConfig,
    audits: Audits = NO_AUDITS,
) -> dict[str, Any]:
    """The whole matrix as JSON-able values, the same for the same input: cells by recipe, test set and variant.

    `audits`: what audits of training data against test data found. `ValueError` (`ConfigError` for a key of `config`)
    names what is missing, occurs twice or does not fit.
    """
    recipes = _recipes(candidates, config)
    variants = _variants(candidates, tests, predictions)
    audited = {test.name: audits.cover(test) for test in tests}
    overlaps = {
        (one.name, test.name): overlap(one, test, audits, audited[test.name], config.max_flagged_share)
        for one in candidates
        for test in tests
    }
    predicted: _Predicted = {}
    cells = [
        _cell(recipe, test, variant, predictions, overlaps, config, predicted.setdefault((test.name, variant), {}))
        for recipe in recipes.values()
        for test in tests
        for variant in variants
    ]
    _compare(cells, recipes, tests, predicted, config)
    return finite(
        {
            "format": FORMAT,
            "config": {field.name: getattr(config, field.name) for field in fields(MatrixConfig)},
            "expressions": EXPRESSIONS,
            "metrics": HEADLINES,
            "variants": variants,
            "baseline": config.baseline,
            "tests": [_described(test, config) | {"audited": audited[test.name]} for test in tests],
            "recipes": [_row(name, members) for name, members in recipes.items()],
            "cells": cells,
            "summary": summary.summary(cells),
            "banners": summary.banners(cells),
        }
    )


def _recipes(candidates: Sequence[Candidate], config: MatrixConfig) -> dict[str, list[Candidate]]:
    """Candidates by recipe, in the order given."""
    _unique("candidate", [candidate.name for candidate in candidates])
    recipes: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        recipes.setdefault(candidate.recipe, []).append(candidate)
    for name, members in recipes.items():
        _unique(f"seed of recipe {name}:", [one.seed for one in members if one.seed is not None])
    if config.baseline is not None and config.baseline not in recipes:
        hint = nearest(config.baseline, recipes)
        raise ConfigError(f"baseline={config.baseline}: no such recipe{hint} There are {', '.join(recipes)}.")
    return recipes


def _variants(candidates: Sequence[Candidate], tests: Sequence[TestSet], predictions: Predictions) -> list[str]:
    """The variants that there are predictions of; each needs them for every candidate on every test set."""
    _unique("test set", [test.name for test in tests])
    variants = [variant for variant in VARIANTS if any(key[2] == variant for key in predictions)]
    wanted = {(one.name, test.name, variant) for one in candidates for test in tests for variant in variants}
    if not wanted:
        raise ValueError(
            f"a matrix needs a candidate, a test set, and predictions of a variant {' or '.join(VARIANTS)}."
        )
    for keys, problem in (
        (wanted - predictions.keys(), "are missing: give them, or leave the candidate or the test set out"),
        (predictions.keys() - wanted, "belong to no candidate, test set and variant of the matrix: check the names"),
    ):
        if keys:
            first = ", ".join(sorted(keys)[0])
            raise ValueError(
                f"predictions of {len(keys):,} (candidate, test set, variant), first ({first}), {problem}."
            )
    return variants


def _unique(what: str, names: Sequence[str | int]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{what} {twice[0]} occurs twice: the matrix identifies them by it, so give each its own.")


def _cell(
    recipe: Sequence[Candidate],
    test: TestSet,
    variant: str,
    predictions: Predictions,
    overlaps: Mapping[tuple[str, str], Overlap],
    config: MatrixConfig,
    predicted: dict[str, np.ndarray],
) -> dict[str, Any]:
    """One cell, not yet compared; puts the predictions of its candidates into `predicted`."""
    runs = []
    for candidate in recipe:
        aligned = align(candidate, test, predictions[candidate.name, test.name, variant])
        predicted[candidate.name] = aligned.predicted
        runs.append(run(candidate, test, variant, aligned, overlaps[candidate.name, test.name], config))
    reasons = [
        f"{one.name}: {reason}" for one in recipe for reason in _reasons(one, test, overlaps[one.name, test.name])
    ]
    flagged = np.any([overlaps[one.name, test.name].flagged for one in recipe], axis=0)
    return {
        "recipe": recipe[0].recipe,
        "test": test.name,
        "variant": variant,
        "diagonal": any(diagonal(one, test) for one in recipe),
        "contaminated": bool(reasons),
        "reasons": reasons,
        "flagged_rows": int(flagged.sum()),
        "runs": runs,
        "mean": summary.over_seeds(runs, config.level),
        "comparison": None,
    }


def _reasons(candidate: Candidate, test: TestSet, overlap: Overlap) -> list[str]:
    """Why a candidate's scores on a test set do not count."""
    selection = checkpoint_selection(candidate)
    own = selection.status == "fail" and diagonal(candidate, test)
    return [*overlap.reasons, *([selection.message] if own else [])]


def _compare(
    cells: Sequence[dict[str, Any]],
    recipes: Mapping[str, Sequence[Candidate]],
    tests: Sequence[TestSet],
    predicted: _Predicted,
    config: MatrixConfig,
) -> None:
    """Fills the `comparison` of every clean cell whose baseline is clean."""
    clean = {(cell["recipe"], cell["test"], cell["variant"]): cell for cell in cells if not cell["contaminated"]}
    by_name = {test.name: test for test in tests}
    for (recipe, test, variant), cell in clean.items():
        if config.baseline not in (None, recipe) and (config.baseline, test, variant) in clean:
            pairs = comparisons.pairs_of_seeds(recipes[recipe], recipes[config.baseline])
            cell["comparison"] = comparisons.compare(pairs, by_name[test], predicted[test, variant], variant, config)
    comparisons.correct([cell["comparison"] for cell in cells if cell["comparison"]])


def _described(test: TestSet, config: MatrixConfig) -> dict[str, Any]:
    return {
        "name": test.name,
        "uri": test.uri,
        "hash": test.hash,
        "splits": test.splits,
        "rows": len(test),
        "support": test.support.tolist(),
        "collections": test.collections,
        "ceiling": ceiling_of(test, config.ceilings),
    }


def _row(name: str, members: Sequence[Candidate]) -> dict[str, Any]:
    """A recipe; of its checkpoints' selections the worst. `classes`: the outputs of each, in order."""
    return {
        "name": name,
        "checkpoints": [one.name for one in members],
        "seeds": [one.seed for one in members],
        "classes": {one.name: one.outputs for one in members},
        "trained_on": sorted({named for one in members for named in (*one.trained_on, *(one.ancestors or ()))}),
        "selection": max((one.selection for one in members), key=SELECTIONS.index),
    }
