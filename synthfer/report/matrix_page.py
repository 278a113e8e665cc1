"""The cross-dataset matrix as one self-contained page: warnings, then plots and tables, then every cell's details."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from synthfer.guards.verdict import worst
from synthfer.report.html import document, render
from synthfer.report.matrix_details import cell_id, details
from synthfer.report.matrix_grid import (
    LETTERS,
    SHOWN,
    Grid,
    Matrix,
    banner_text,
    guard_title,
    legend,
    notes,
    percent,
    title,
    variant_title,
    variants,
)
from synthfer.report.plot import svg

_OVERALL = {
    "fail": ("Do not trust all of it", "A guard failed: read the warnings before any number."),
    "warn": ("Needs a look", "No guard failed, but one found something that a person should look at."),
    "pass": ("Clean", "No guard that ran found anything."),
    "skipped": ("Not checked", "No guard ran, so this page does not say whether the numbers can be trusted."),
}
_FILES = {"matrix.json": "every number", "matrix.md": "Markdown tables", "matrix.tex": "LaTeX tables"}


def page(matrix: Matrix) -> str:
    """One HTML page without scripts that fetches nothing; it links to matrix.json, matrix.md and matrix.tex beside it.

    `matrix`: the dict of `synthfer.evaluation.matrix`, format synthfer-matrix/1. The same matrix gives the same page.
    """
    banners, recipes, tests = matrix["banners"], matrix["recipes"], matrix["tests"]
    lines, texts = [*legend(matrix), LETTERS], {"guard_title": guard_title, "banner_text": banner_text}
    parts = {
        "Warnings": render("matrix_warnings.html", banners=banners, **texts) if banners else None,
        **{f"Matrix {variant}": _variant(matrix, variant) for variant in variants(matrix)},
        "Reading it": render("matrix_reading.html", lines=lines, notes=notes(matrix)),
        "Test sets": render("matrix_tests.html", tests=tests, expressions=list(matrix["expressions"]), percent=percent),
        "Recipes": render("matrix_recipes.html", recipes=recipes, baseline=matrix["baseline"]),
        "Details": details(matrix),
    }
    return document(
        "matrix.html",
        title=f"{_number(recipes, 'recipe')} on {_number(tests, 'test set')}",
        styles=["gallery.css", "audit.css", "matrix.css"],
        parts=parts,
        files=_FILES,
        format=matrix["format"],
        **_overall(matrix),
    )


def _number(things: Sequence[Any], word: str) -> str:
    return f"{len(things):,} {word}" + "s" * (len(things) != 1)


def _overall(matrix: Matrix) -> Mapping[str, str]:
    """The worst status of all guards, with a word for it and what it means."""
    verdicts = [verdict for cell in matrix["cells"] for run in cell["runs"] for verdict in run["guards"]]
    status = worst(verdict["status"] for verdict in [*matrix["banners"], *verdicts])
    word, meaning = _OVERALL[status]
    return {"status": status, "word": word, "meaning": meaning}


def _variant(matrix: Matrix, variant: str) -> Markup:
    grid = Grid(matrix, variant)
    return render(
        "matrix_variant.html",
        grid=grid,
        heading=variant_title(variant),
        plot=svg(matrix, "macro_f1", variant),
        metrics=SHOWN,
        metric_title=title,
        links={key: cell_id(matrix, cell) for key, cell in grid.cells.items()},
    )
