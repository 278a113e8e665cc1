"""The details of each cell of the cross-dataset matrix: scores, classes, confusion, calibration, guards and groups."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from synthfer.report.html import render
from synthfer.report.matrix_grid import DASH, SHOWN, Grid, Matrix, interval, percent, title, variants
from synthfer.report.plot import reliability_svg

_SCORES = ("accuracy", "macro_f1", "balanced_accuracy", "weighted_f1", "cohen_kappa")
_PROBABILITY = ("top2", "ece", "classwise_ece", "nll", "brier")
_NO_SHARES = ("cohen_kappa", "nll", "brier")

Run = Mapping[str, Any]


def cell_id(matrix: Matrix, cell: Mapping[str, Any]) -> str:
    """The id of a cell's details within the page."""
    return f"cell-{next(number for number, other in enumerate(matrix['cells']) if other is cell)}"


def details(matrix: Matrix) -> Markup | None:
    """An article per recipe, with a fold per test set and variant; None where nothing was measured."""
    grids = [Grid(matrix, variant) for variant in variants(matrix)]
    recipes = {
        name: [(grid.cells[name, test], grid) for grid in grids for test in grid.tests if (name, test) in grid.cells]
        for name in (recipe["name"] for recipe in matrix["recipes"])
    }
    if not any(recipes.values()):
        return None
    return render(
        "matrix_details.html",
        recipes={name: cells for name, cells in recipes.items() if cells},
        metrics=SHOWN,
        score_names=_SCORES,
        probability_names=_PROBABILITY,
        metric_title=title,
        metric_value=_metric_value,
        percent=percent,
        bounds=_bounds,
        cell_id=lambda cell: cell_id(matrix, cell),
        differences=_differences,
        groups_of_run=_groups_of_run,
        reliability_svg=reliability_svg,
    )


def _differences(comparison: Mapping[str, Any]) -> list[list[str]]:
    """The rows of the table that compares a cell with the baseline's."""
    rows = []
    for metric in SHOWN:
        compared = comparison.get(metric) or {}
        difference = compared.get("difference")
        points = DASH if difference is None else f"{100 * difference:+.1f} points"
        rows.append(
            [title(metric), points, _p(compared.get("p")), _p(compared.get("p_holm")), compared.get("test") or DASH]
        )
    return rows


def _p(p: float | None) -> str:
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _metric_value(name: str, value: float | None) -> str:
    """A share in percent; other numbers as they are."""
    if name not in _NO_SHARES:
        return percent(value)
    return DASH if value is None else f"{value:.3f}"


def _bounds(bounds: Mapping[str, Any] | None) -> str:
    known = interval(bounds or {})
    return f"[{known}]" if known else DASH


def _groups_of_run(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """For each attribute the rates per group, the gaps between groups, and the rows in no group."""
    for attribute, groups in run["groups"].items():
        if groups:
            yield attribute, _groups(groups, run["scores"]["names"])


def _groups(groups: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    classes = names[: max((len(group["true_positive_rate"]) for group in groups["groups"]), default=0)]
    gaps = [[title(name), percent(gap["value"]), _bounds(gap), _p(gap["p"])] for name, gap in groups["gaps"].items()]
    return {
        "recalls": [f"recall, {name}" for name in classes],
        "rates": [_group(group) for group in groups["groups"]],
        "gaps": gaps,
        "left_out": _left_out(groups),
    }


def _group(group: Mapping[str, Any]) -> list[str]:
    accuracy, balanced = group["accuracy"], percent(group["balanced_accuracy"])
    recalls = map(percent, group["true_positive_rate"])
    return [group["name"], f"{group['rows']:,}", percent(accuracy["value"]), _bounds(accuracy), balanced, *recalls]


def _left_out(groups: Mapping[str, Any]) -> str:
    small = ", ".join(f"{name} ({rows:,})" for name, rows in groups["too_small"].items())
    too_few = f"Groups of too few rows: {small}. " if small else ""
    return f"{too_few}Rows without a value: {groups['unknown']:,}."
