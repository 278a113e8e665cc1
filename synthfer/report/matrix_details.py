"""The details of each cell of the cross-dataset matrix: scores, classes, confusion, calibration, guards and groups."""

from collections.abc import Mapping, Sequence
from typing import Any

from synthfer.report.markup import Markup, render, table, tag
from synthfer.report.matrix_grid import DASH, SHOWN, Grid, Matrix, interval, percent, title, variants
from synthfer.report.pictures import dot
from synthfer.report.plot import reliability_svg

_SCORES = ("accuracy", "macro_f1", "balanced_accuracy", "weighted_f1", "cohen_kappa")
_PROBABILITY = ("top2", "ece", "classwise_ece", "nll", "brier")
_NO_SHARES = ("cohen_kappa", "nll", "brier")
_PER_CLASS = ("precision", "recall", "f1")

Run = Mapping[str, Any]


def place_of(matrix: Matrix, cell: Mapping[str, Any]) -> str:
    """The id of a cell's details within the page."""
    return f"cell-{next(place for place, other in enumerate(matrix['cells']) if other is cell)}"


def details(matrix: Matrix) -> Markup | None:
    """An article per recipe, with a fold per test set and variant."""
    grids = [Grid(matrix, variant) for variant in variants(matrix)]
    articles = []
    for recipe in [recipe["name"] for recipe in matrix["recipes"]]:
        folds = [
            _fold(matrix, grid, recipe, test) for grid in grids for test in grid.tests if (recipe, test) in grid.cells
        ]
        articles.append(tag("article", tag("h3", recipe), folds) if folds else None)
    lead = "Each cell opens to all that was measured of it, each checkpoint by itself."
    return render([tag("h2", "Details"), tag("p", lead, class_="lead"), articles]) if any(articles) else None


def _fold(matrix: Matrix, grid: Grid, recipe: str, test: str) -> Markup:
    cell = grid.cells[recipe, test]
    numbers = ", ".join(f"{title(metric)} {grid.entry(recipe, test, metric).number}" for metric in SHOWN)
    badges = [tag("span", "diagonal", class_="badge")] if cell["diagonal"] else []
    if cell["contaminated"]:
        badges.append(tag("span", f"contaminated, {cell['flagged_rows']:,} flagged rows", class_="badge failed"))
    summary = tag("summary", tag("b", test), f" · {grid.variant} ", badges, " ", tag("span", numbers, class_="numbers"))
    why = tag("ul", [tag("li", reason) for reason in cell["reasons"]], class_="reasons") if cell["reasons"] else None
    runs = [_run(run) for run in cell["runs"]]
    inside = tag("div", why, _comparison(cell["comparison"]), runs, id=place_of(matrix, cell), class_="cell")
    return tag("details", summary, inside, class_="fold")


def _comparison(comparison: Mapping[str, Any] | None) -> Markup | None:
    if not comparison:
        return None
    rows = []
    for metric in SHOWN:
        found = comparison.get(metric) or {}
        difference = found.get("difference")
        points = DASH if difference is None else f"{100 * difference:+.1f} points"
        rows.append([title(metric), points, _p(found.get("p")), _p(found.get("p_holm")), found.get("test") or DASH])
    head = [f"Against {comparison['baseline']}", "difference", "p", "p, Holm-corrected", "test"]
    return table(head, rows, "facts")


def _p(p: float | None) -> str:
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _run(run: Run) -> Markup:
    seed = tag("small", f"seed {run['seed']}") if run["seed"] is not None else None
    scores = run["scores"]
    parts = [
        tag("div", tag("h4", "Scores, shares in %"), _scores(run), _flagged(run["without_flagged"])),
        tag("div", tag("h4", "Classes, %"), _classes(scores)),
        tag("div", tag("h4", "Confusion: truth by answer, counts"), _confusion(scores["names"], scores["confusion"])),
        tag("div", tag("h4", "Reliability"), Markup(reliability_svg(run["reliability"]))),
    ]
    groups = [_groups(attribute, found, scores["names"]) for attribute, found in run["groups"].items()]
    heading = tag("h4", run["checkpoint"], seed)
    return tag("div", heading, tag("div", parts, class_="facets"), _guards(run["guards"]), groups, class_="run")


def _scores(run: Run) -> Markup:
    """Masked and, where something was masked, unmasked scores; then what the probabilities tell."""
    scores, unmasked = run["scores"], run["unmasked"]
    probability = run["probability"] or {}
    beside = [unmasked] if unmasked else []
    rows = [
        [title(name), _value(name, scores[name]), _bounds(run["intervals"].get(name)),
         *(_value(name, other[name]) for other in beside)]
        for name in _SCORES
    ]  # fmt: skip
    rows += [[title(name), _value(name, probability.get(name)), "", *("" for _ in beside)] for name in _PROBABILITY]
    return table(["", "masked" if unmasked else "value", "interval", *("unmasked" for _ in beside)], rows, "facts")


def _value(name: str, value: float | None) -> str:
    """A share in percent; what is no share as it is."""
    if name not in _NO_SHARES:
        return percent(value)
    return DASH if value is None else f"{value:.3f}"


def _bounds(bounds: Mapping[str, Any] | None) -> str:
    known = interval(bounds or {})
    return f"[{known}]" if known else DASH


def _flagged(without: Mapping[str, Any] | None) -> Markup | None:
    if not without:
        return None
    numbers = ", ".join(f"{title(metric)} {percent(without[metric])}" for metric in SHOWN)
    return tag("p", f"Without flagged rows ({without['rows']:,} left): {numbers}.", class_="count")


def _classes(scores: Mapping[str, Any]) -> Markup:
    columns = zip(scores["names"], *(scores[name] for name in _PER_CLASS), scores["support"], strict=True)
    rows = [[dot(name), *map(percent, shares), f"{support:,}"] for name, *shares, support in columns]
    return table(["", "precision", "recall", "F1", "rows"], rows, "facts")


def _confusion(names: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """Counts, shaded by their share of the row."""
    rows = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row)
        shares = [count / total if total else None for count in row]
        cells = [
            tag("td", f"{count:,}", class_="heat", style=f"--heat:{100 * (share or 0):.0f}%",
                title=f"{name} answered as {answer}: {percent(share)} % of {total:,}")
            for answer, count, share in zip(names, row, shares, strict=True)
        ]  # fmt: skip
        rows.append([dot(name), *cells])
    return table(["", *names], rows, "matrix confusion")


def _guards(verdicts: Sequence[Mapping[str, Any]]) -> Markup | None:
    if not verdicts:
        return None
    rows = [
        [
            f"{verdict['guard']} {verdict['name']}",
            tag("td", tag("span", verdict["status"], class_=f"badge status {verdict['status']}")),
            tag("td", verdict["threshold"], class_="threshold"),
            tag("td", verdict["message"], class_="finding"),
        ]
        for verdict in verdicts
    ]
    return render([tag("h4", "Guards"), table(["Guard", "Status", "Threshold", "Finding"], rows, "guards")])


def _groups(attribute: str, found: Mapping[str, Any] | None, names: Sequence[str]) -> Markup | None:
    """Rates per group, the gaps between groups, and who is in no group."""
    if not found:
        return None
    rates = [_group(group) for group in found["groups"]]
    classes = names[: max((len(group["true_positive_rate"]) for group in found["groups"]), default=0)]
    head = [attribute, "rows", "accuracy", "interval", "balanced accuracy", *(f"recall, {name}" for name in classes)]
    gaps = [[title(name), percent(gap["value"]), _bounds(gap), _p(gap["p"])] for name, gap in found["gaps"].items()]
    tables = [table(head, rates, "facts"), table(["Gap", "value", "interval", "p"], gaps, "facts")] if rates else None
    left_out = tag("p", _left_out(found), class_="count")
    return render([tag("h4", f"Groups by {attribute}, %"), tables, left_out])


def _group(group: Mapping[str, Any]) -> list[str]:
    accuracy, balanced = group["accuracy"], percent(group["balanced_accuracy"])
    recalls = map(percent, group["true_positive_rate"])
    return [group["name"], f"{group['rows']:,}", percent(accuracy["value"]), _bounds(accuracy), balanced, *recalls]


def _left_out(found: Mapping[str, Any]) -> str:
    small = ", ".join(f"{name} ({rows:,})" for name, rows in found["too_small"].items())
    too_few = f"Groups of too few rows: {small}. " if small else ""
    return f"{too_few}Rows without a value: {found['unknown']:,}."
