"""The summary of a matrix: means over seeds, means within and across collections, ranks, and banners.

Contaminated cells count in no mean and in no rank. A mean across collections is over those that the recipe did not
learn from, so two recipes' means may be over different test sets, which `off_diagonal_tests` names. Ranks are therefore
over the test sets that the ranked recipes share.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from synthfer.evaluation.runs import HEADLINES
from synthfer.guards.verdict import Guard, worst
from synthfer.statistics import mean_interval

Cell = dict[str, Any]

# Guards whose verdict does not depend on the variant of the pictures, and on the test set.
_OF_ALL_VARIANTS = (Guard.TRAINING_OVERLAP, Guard.CHECKPOINT_SELECTION)
_OF_ALL_TESTS = (Guard.CHECKPOINT_SELECTION,)


def over_seeds(runs: Sequence[dict[str, Any]], level: float) -> dict[str, Any]:
    """Per metric the mean of a cell's runs: of several, Student's interval over seeds; of one, its own interval."""
    means = {}
    for name in HEADLINES:
        values = [run["scores"][name] for run in runs]
        several = len(values) > 1
        bounds = mean_interval(values, level).to_json() if several else runs[0]["intervals"][name]
        means[name] = {
            "mean": bounds["value"],
            "sd": float(np.std(values, ddof=1)) if several else None,
            "low": bounds["low"],
            "high": bounds["high"],
            "n": len(values),
        }
    return means


def summary(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """Per recipe and variant: means over the clean cells, in their own collections (diagonal) and across collections.

    The rank, 1 for the best, is by the mean macro F1 over the test sets `ranked_over`, which are across collections for
    every ranked recipe. A recipe is ranked where it has such cells and all of them are clean.
    """
    rows: dict[str, dict[str, list[Cell]]] = {}
    for cell in cells:
        rows.setdefault(cell["variant"], {}).setdefault(cell["recipe"], []).append(cell)
    summaries = []
    for variant, recipes in rows.items():
        shared, ranks = _ranks(recipes)
        for recipe, own in recipes.items():
            rank = {"rank": ranks.get(recipe), "ranked_over": shared if recipe in ranks else []}
            summaries.append({"recipe": recipe, "variant": variant} | _row(own) | rank)
    return summaries


def _row(cells: Sequence[Cell]) -> dict[str, Any]:
    clean = [cell for cell in cells if not cell["contaminated"]]
    across = _across(clean)
    return {
        "diagonal": _means([cell for cell in clean if cell["diagonal"]]),
        "off_diagonal": _means(across),
        "off_diagonal_tests": [cell["test"] for cell in across],
        "cells_left_out": len(cells) - len(clean),
    }


def _across(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if not cell["diagonal"]]


def _ranks(recipes: Mapping[str, Sequence[Cell]]) -> tuple[list[str], dict[str, int]]:
    """The test sets that all ranked recipes share, and each ranked recipe's rank."""
    ranked = {
        recipe: {cell["test"]: cell["mean"]["macro_f1"]["mean"] for cell in across}
        for recipe, cells in recipes.items()
        if (across := _across(cells)) and not any(cell["contaminated"] for cell in across)
    }
    tests = next(iter(ranked.values()), {})
    shared = [test for test in tests if all(test in scores for scores in ranked.values())]
    if not shared:
        return [], {}
    means = {recipe: float(np.mean([scores[test] for test in shared])) for recipe, scores in ranked.items()}
    return shared, {recipe: 1 + sum(other > mean for other in means.values()) for recipe, mean in means.items()}


def _means(cells: Sequence[Cell]) -> dict[str, float | None]:
    means = {name: [cell["mean"][name]["mean"] for cell in cells] for name in HEADLINES}
    return {name: float(np.mean(values)) if values else None for name, values in means.items()}


def banners(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """The warnings above all numbers: one banner for each guard that warns or fails, recipe and test set.

    `test` is null for a guard that is about the checkpoint alone. The message is the worst run's; others are named.
    """
    banners_of: dict[tuple[Guard, str, str | None], dict[str, dict[str, Any]]] = {}
    for cell in cells:
        for run in cell["runs"]:
            for verdict in run["guards"]:
                if verdict["status"] in ("warn", "fail"):
                    guard = Guard(verdict["guard"])
                    key = (guard, cell["recipe"], None if guard in _OF_ALL_TESTS else cell["test"])
                    variant = "" if guard in _OF_ALL_VARIANTS else f" ({cell['variant']})"
                    banners_of.setdefault(key, {}).setdefault(f"{run['checkpoint']}{variant}", verdict)
    return [_banner(*key, runs) for key, runs in sorted(banners_of.items(), key=lambda item: _order(*item[0]))]


def _order(guard: Guard, recipe: str, test: str | None) -> tuple[int, str, str]:
    return guard.order, recipe, test or ""


def _banner(guard: Guard, recipe: str, test: str | None, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    status = worst(verdict["status"] for verdict in runs.values())
    first = next(who for who, verdict in runs.items() if verdict["status"] == status)
    others = ", ".join(who for who in runs if who != first)
    kind = "class-order mistake: " if guard is Guard.CLASS_ORDER and status == "fail" else ""
    message = f"{first}: {kind}{runs[first]['message']}" + (f" The same holds for {others}." if others else "")
    return {"guard": guard.value, "status": status, "message": message, "recipe": recipe, "test": test}
