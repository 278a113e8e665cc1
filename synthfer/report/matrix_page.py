"""The cross-dataset matrix as one self-contained page: warnings, then plots and tables, then every cell's details."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from synthfer.evaluation.verdict import worst
from synthfer.report.markup import Markup, document, render, table, tag
from synthfer.report.matrix_details import details, place_of
from synthfer.report.matrix_grid import (
    DASH,
    LETTERS,
    SHOWN,
    Entry,
    Grid,
    Matrix,
    banner_text,
    legend,
    notes,
    percent,
    title,
    variant_title,
    variants,
)
from synthfer.report.plot import svg

_OVERALL = {
    "fail": ("Do not believe all of it", "A guard failed: read the warnings before any number."),
    "warn": ("Needs a look", "No guard failed, but one found something that a person should judge."),
    "pass": ("Clean", "No guard that ran found anything."),
    "skipped": ("Not checked", "No guard ran, so this page does not say whether the numbers can be believed."),
}
_FILES = {"matrix.json": "every number", "matrix.md": "Markdown tables", "matrix.tex": "LaTeX tables"}


def page(matrix: Matrix) -> str:
    """One HTML page without scripts that fetches nothing; matrix.json, matrix.md and matrix.tex are to lie beside it.

    `matrix`: the dict of `synthfer.evaluation.matrix`, format synthfer-matrix/1. The same matrix gives the same page.
    """
    parts = {
        "Warnings": _warnings(matrix),
        **{f"Matrix {variant}": _variant(matrix, variant) for variant in variants(matrix)},
        "Reading it": _reading(matrix),
        "Test sets": _tests(matrix),
        "Recipes": _recipes(matrix),
        "Details": details(matrix),
    }
    said = f"{_number(matrix['recipes'], 'recipe')} on {_number(matrix['tests'], 'test set')}"
    sheets = ["gallery.css", "audit.css", "matrix.css"]
    return document(said, sheets, _header(matrix, said), parts, _footer(matrix))


def _number(things: Sequence[Any], word: str) -> str:
    return f"{len(things):,} {word}" + "s" * (len(things) != 1)


def _status(status: str) -> Markup:
    return tag("span", status, class_=f"badge status {status}")


def _header(matrix: Matrix, heading: str) -> Markup:
    verdicts = [verdict for cell in matrix["cells"] for run in cell["runs"] for verdict in run["guards"]]
    status = worst(said["status"] for said in [*matrix["banners"], *verdicts])
    word, meaning = _OVERALL[status]
    files = [[tag("a", name, href=name), f" ({holds})"] for name, holds in _FILES.items()]
    return tag(
        "header",
        tag("p", "Cross-dataset matrix", class_="kicker"),
        tag("h1", heading),
        tag("p", tag("strong", word, class_=f"badge status overall {status}"), tag("span", meaning), class_="said"),
        tag("p", "Beside this page: ", files[0], ", ", files[1], ", ", files[2], class_="hash files"),
    )


def _warnings(matrix: Matrix) -> Markup | None:
    listed = [
        tag("li", _status(banner["status"]), " ", tag("b", banner["guard"]), " ", banner_text(banner))
        for banner in matrix["banners"]
    ]
    return render([tag("h2", "Warnings"), tag("ul", listed, class_="banners")]) if listed else None


def _variant(matrix: Matrix, variant: str) -> Markup:
    grid = Grid(matrix, variant)
    drawn = tag("div", Markup(svg(matrix, "macro_f1", variant)), class_="scroll plot", tabindex="0")
    heading = [tag("h2", f"Matrix {variant}"), tag("p", variant_title(variant), class_="lead")]
    plot = tag("article", tag("h3", f"{title('macro_f1')}, %"), drawn)
    return render([heading, plot, tag("article", tag("h3", "All means and intervals, %"), _grid(matrix, grid))])


def _grid(matrix: Matrix, grid: Grid) -> Markup:
    tests = [[name, tag("small", f"{test['rows']:,} rows")] for name, test in grid.tests.items()]
    head = ["Recipe", "Off-diagonal mean", "Diagonal mean", "Rank", *tests]
    return table(head, [_grid_row(matrix, grid, recipe) for recipe in grid.recipes], "grid")


def _grid_row(matrix: Matrix, grid: Grid, recipe: str) -> list[Any]:
    summary = grid.summary(recipe)
    cells = []
    for test in grid.tests:
        entries = [_entry(grid.entry(recipe, test, metric), metric) for metric in SHOWN]
        cells.append(tag("td", entries, _link(matrix, grid, recipe, test)))
    means = [
        [tag("div", tag("span", title(m), class_="metric"), " ", tag("span", side[m], class_="value"), class_="entry")
         for m in SHOWN]
        for side in (summary.off_diagonal, summary.diagonal)
    ]  # fmt: skip
    left_out = tag("small", f"{summary.left_out} left out") if summary.left_out else None
    return [recipe, tag("td", means[0], left_out), tag("td", means[1]), tag("td", summary.rank), *cells]


def _entry(entry: Entry, metric: str) -> Markup:
    kinds = {"diagonal": entry.diagonal, "best": entry.best, "contaminated": entry.note is not None}
    sd = f" ± {entry.sd}" if entry.sd else None
    value = tag("del" if entry.note else "span", tag("span", entry.value, class_="value"), sd)
    note = tag("sup", tag("a", f"†{entry.note}", href=f"#note-{entry.note}")) if entry.note else entry.mark
    bounds = tag("small", f"[{entry.interval}]") if entry.interval else None
    named = tag("span", title(metric), class_="metric")
    classes = ["entry", *(kind for kind, is_it in kinds.items() if is_it)]
    return tag("div", named, " ", value, " ", note, " ", bounds, class_=" ".join(classes))


def _link(matrix: Matrix, grid: Grid, recipe: str, test: str) -> Markup | None:
    cell = grid.cells.get((recipe, test))
    if cell is None:
        return None
    said = f"details, {recipe} on {test}"
    return tag("a", "details", href=f"#{place_of(matrix, cell)}", class_="more", aria_label=said)


def _reading(matrix: Matrix) -> Markup:
    lines = [tag("li", line) for line in [*legend(matrix), LETTERS]]
    reasons = [tag("li", tag("b", f"†{n}"), " ", text, id=f"note-{n}") for text, n in notes(matrix).items()]
    why = [tag("h3", "Why cells are contaminated"), tag("ul", reasons, class_="notes")] if reasons else None
    return render([tag("h2", "Reading it"), tag("article", tag("ul", lines), why)])


def _tests(matrix: Matrix) -> Markup:
    head = ["Test set", "Rows", *matrix["expressions"], "Ceiling, %", "Collections", "Dataset, splits and hash"]
    note = "Ceiling: an accuracy above it has not been reached honestly on this collection, and calls for an audit."
    rows = [_test(test) for test in matrix["tests"]]
    return render([tag("h2", "Test sets"), tag("article", table(head, rows, "tests"), tag("p", note, class_="count"))])


def _test(test: Mapping[str, Any]) -> list[Any]:
    counts = [tag("td", f"{rows:,}", class_="n") for rows in (test["rows"], *test["support"])]
    collections, splits = ", ".join(test["collections"]) or DASH, ", ".join(test["splits"])
    source = tag("td", f"{_public(test['uri'])} {splits} ", tag("code", test["hash"]), class_="source")
    return [test["name"], *counts, percent(test["ceiling"]), collections, source]


def _public(uri: str) -> str:
    """A URI without user name and password, should it hold any."""
    return re.sub(r"(?<=://)[^/]*@", "", uri)


def _recipes(matrix: Matrix) -> Markup:
    rows = [_recipe(recipe) for recipe in matrix["recipes"]]
    head = ["Recipe", "Seeds", "Checkpoints", "Trained on", "Chosen on"]
    compared = f"Compared with {matrix['baseline']}." if matrix["baseline"] is not None else "No baseline was named."
    article = tag("article", table(head, rows, "recipes"), tag("p", compared, class_="count"))
    return render([tag("h2", "Recipes"), article])


def _recipe(recipe: Mapping[str, Any]) -> list[Any]:
    seeds = ", ".join(DASH if seed is None else str(seed) for seed in recipe["seeds"])
    lists = (", ".join(map(str, recipe[key])) or DASH for key in ("checkpoints", "trained_on"))
    return [recipe["name"], seeds or DASH, *lists, recipe["selection"] or DASH]


def _footer(matrix: Matrix) -> Markup:
    return tag(
        "footer",
        tag("p", "Groups are what somebody perceived or a model guessed, not what people are."),
        tag("p", f"Made from matrix.json, format {matrix['format']}."),
    )
