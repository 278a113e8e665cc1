"""Cross-dataset matrices made up for tests of the report, in the form of matrix.json."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from synthfer.evaluation.calibration import of_predictions
from synthfer.evaluation.fairness import assess
from synthfer.expressions import EXPRESSIONS
from synthfer.metrics import METRICS, confusion, finite, probability_sums, scores
from synthfer.statistics import cluster_bootstrap, mean_interval

METRIC_NAMES = ("accuracy", "macro_f1", "balanced_accuracy")
CONTAMINATED = "12 rows of the test set are among the training data."


def answers(rng: np.random.Generator, rows: int = 150, sure: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (rows, 7) and truth (rows,), better than chance the larger `sure` is."""
    truth = np.arange(rows) % 7
    powers = np.exp(rng.normal(size=(rows, 7)) + sure * np.eye(7)[truth])
    return powers / powers.sum(1, keepdims=True), truth


def run(rng: np.random.Generator, checkpoint: str, seed: int | None, masked: bool = False) -> dict[str, Any]:
    """A cell's numbers for one checkpoint."""
    probs, truth = answers(rng, sure=rng.uniform(0.5, 3))
    counts = confusion(truth, probs.argmax(1))
    sums = probability_sums(probs, truth)
    values = [("old", "young", None)[place % 3] for place in range(len(truth) - 1)] + ["other"]
    verdict = {"guard": "G9", "name": "Class order", "status": "pass", "threshold": "none better", "numbers": {}}
    return {
        "checkpoint": checkpoint,
        "seed": seed,
        "scores": scores(counts).to_json(),
        "unmasked": scores(np.roll(counts, 1, 1)).to_json() if masked else None,
        "intervals": {name: interval(truth, probs.argmax(1), name) for name in METRIC_NAMES},
        "probability": finite({"top2": sums.top2, "nll": sums.nll, "brier": sums.brier, "ece": 0.0871,
                               "classwise_ece": math.nan}),
        "reliability": of_predictions(probs, truth).to_json(),
        "without_flagged": {"rows": 140, "accuracy": 0.4321, "macro_f1": 0.1234} if masked else None,
        "guards": [{**verdict, "message": f"The order is right for {checkpoint}."}],
        "groups": {"age": assess(truth, probs.argmax(1), values, replicates=20).to_json()},
    }  # fmt: skip


def interval(truth: np.ndarray, predicted: np.ndarray, metric: str) -> dict[str, Any]:
    """The bootstrap interval of a metric over rows."""
    return cluster_bootstrap(truth, predicted, np.arange(len(truth)), METRICS[metric], replicates=50).to_json()


def cell(rng: np.random.Generator, recipe: str, test: str, variant: str, seeds: Sequence[int | None]) -> dict[str, Any]:
    """A clean off-diagonal cell."""
    runs = [run(rng, f"{recipe}/{place}", seed, masked=place == 0) for place, seed in enumerate(seeds)]
    return {
        "recipe": recipe,
        "test": test,
        "variant": variant,
        "diagonal": False,
        "contaminated": False,
        "reasons": [],
        "flagged_rows": 0,
        "runs": runs,
        "mean": {name: mean(runs, name) for name in METRIC_NAMES},
        "comparison": None,
    }


def mean(runs: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
    """A metric over seeds."""
    if len(runs) == 1:
        found = runs[0]["intervals"][metric]
        return {"mean": found["value"], "sd": None, "low": found["low"], "high": found["high"], "n": 1}
    values = [one["scores"][metric] for one in runs]
    over = mean_interval(values)
    return {"mean": over.value, "sd": float(np.std(values, ddof=1)), "low": over.low, "high": over.high, "n": len(runs)}


def compared(baseline: str, difference: float, p_holm: float) -> dict[str, Any]:
    """A comparison with the same difference of accuracy, and the opposite one of macro-F1."""
    accuracy = {"test": "mcnemar", "difference": difference, "p": p_holm / 4, "p_holm": p_holm}
    macro_f1 = {**accuracy, "test": "permutation of rows", "difference": -difference}
    return {"baseline": baseline, "accuracy": accuracy, "macro_f1": macro_f1}


def example_matrix(
    recipes: Sequence[str] = ("real", "mixed", "synthetic"),
    tests: Sequence[str] = ("fer2013", "rafdb"),
    seeds: Sequence[int | None] = (0,),
    variants: Sequence[str] = ("original", "grey48"),
) -> dict[str, Any]:
    """A matrix whose first recipe is the baseline. On the first test set the first recipe stands on the diagonal, the
    second, if there is one, is contaminated, and the third, if there is one, differs from the baseline."""
    rng = np.random.default_rng(7)
    cells = [cell(rng, r, t, variant, seeds) for variant in variants for r in recipes for t in tests]
    for one in (one for one in cells if one["test"] == tests[0]):
        place = list(recipes).index(one["recipe"])
        one["diagonal"] = place == 0
        if place == 1:
            one.update(contaminated=True, reasons=[CONTAMINATED], flagged_rows=12)
        if place == 2:
            one["comparison"] = compared(recipes[0], 0.0312, 0.004)
    banner = {"guard": "G7", "status": "fail", "message": CONTAMINATED, "recipe": recipes[-1], "test": tests[0]}
    return {
        "format": "synthfer-matrix/1",
        "expressions": list(EXPRESSIONS),
        "metrics": list(METRIC_NAMES),
        "variants": list(variants),
        "baseline": recipes[0],
        "tests": [test_set(name) for name in tests],
        "recipes": [recipe(name, seeds) for name in recipes],
        "cells": cells,
        "summary": [summary(cells, r, variant) for variant in variants for r in recipes],
        "banners": [banner, {"guard": "G10", "status": "warn", "message": "Unknown.", "recipe": None, "test": None}],
    }


def test_set(name: str) -> dict[str, Any]:
    """A test set of 150 rows."""
    support = np.bincount(np.arange(150) % 7).tolist()
    about = {"uri": f"s3://bucket/{name}", "hash": "ab" * 32, "splits": ["test"], "collections": [name]}
    return {"name": name, **about, "rows": 150, "support": support, "ceiling": 0.8, "audited": True}


test_set.__test__ = False  # type: ignore[attr-defined]


def recipe(name: str, seeds: Sequence[int | None]) -> dict[str, Any]:
    """A recipe with a checkpoint per seed."""
    checkpoints = [f"{name}/{place}" for place in range(len(seeds))]
    classes = {one: list(EXPRESSIONS) for one in checkpoints}
    more = {"seeds": list(seeds), "classes": classes, "trained_on": [f"{name}:train"], "selection": "validation"}
    return {"name": name, "checkpoints": checkpoints, **more}


def summary(cells: Sequence[dict[str, Any]], recipe: str, variant: str) -> dict[str, Any]:
    """Means over the clean cells of a recipe."""
    own = [one for one in cells if (one["recipe"], one["variant"]) == (recipe, variant)]
    clean = [one for one in own if not one["contaminated"]]
    sides: dict[str, Any] = {}
    for side, wanted in (("diagonal", True), ("off_diagonal", False)):
        of_side = [one for one in clean if one["diagonal"] == wanted]
        sides[side] = {
            name: float(np.mean([one["mean"][name]["mean"] for one in of_side])) if of_side else None
            for name in METRIC_NAMES
        }
    left_out = len(own) - len(clean)
    return {"recipe": recipe, "variant": variant, **sides, "cells_left_out": left_out, "rank": None if left_out else 1}
