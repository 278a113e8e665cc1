"""Plots as SVG: the cross-dataset matrix as a heat map, and reliability diagrams. `templates/` has the drawings.

One hue from light to dark, which every kind of colour vision can read, and the numbers printed in black or white,
whichever has more contrast (WCAG 2.2). Words outside the cells have the colour of the text around the picture.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from synthfer.report.html import anchor, render
from synthfer.report.matrix_grid import Grid, Matrix, percent, title, variant_title

_RAMP = ((242, 247, 246), (111, 179, 171), (11, 63, 59))
_FONT = "system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
_LEFT, _TOP, _HIGH, _GAP = 186, 60, 48, 6
_WIDE, _WIDER = 100, 124  # of a cell, without and with a standard deviation
_MEAN_WIDE = 86
_ROW_LETTERS, _LETTER = 22, 8
_SIDE, _MARGIN = 200, 34  # of a reliability diagram


def svg(matrix: Matrix, metric: str = "macro_f1", variant: str = "original") -> Markup:
    """The matrix as a heat map of one metric and variant: a standalone SVG that can stand within HTML, too.

    Width and height follow from the number of test sets and recipes. The diagonal is outlined, contaminated cells are
    hatched. `ValueError` for a metric or variant that the matrix does not have.
    """
    if metric not in matrix["metrics"]:
        raise ValueError(f"no metric {metric!r} in this matrix: it has {', '.join(matrix['metrics'])}.")
    plot = _HeatMap(Grid(matrix, variant), metric)
    return render(
        "heat_map.svg",
        plot=plot,
        font=_FONT,
        heading=f"{title(metric)} in percent, {variant_title(variant)}: recipes by test sets",
        description=plot.description(),
        shades=[_colours(step / 5) for step in range(6)],
        compared=bool(matrix["baseline"]),
    )


class _HeatMap:
    """What is plotted, and where it stands; lengths are in pixels."""

    top, cell_height = _TOP, _HIGH

    def __init__(self, grid: Grid, metric: str) -> None:
        self.grid, self.metric = grid, metric
        self.name = f"plot-{anchor(metric)}-{anchor(grid.variant)}"
        self.cell_width = _WIDER if any(grid.entry(*place, metric).sd for place in grid.cells) else _WIDE
        self.bottom = _TOP + len(grid.recipes) * (_HIGH + _GAP)
        self.width, self.height = max(560, self._mean_left(2) + 8), self.bottom + 124

    def _left(self, column: int) -> int:
        """Left end of a test set's column."""
        return _LEFT + column * (self.cell_width + _GAP)

    def _mean_left(self, column: int) -> int:
        """Left end of a column of means."""
        return self._left(len(self.grid.tests)) + 10 + column * _MEAN_WIDE

    def mean_middle(self, column: int) -> float:
        """Middle of a column of means: off-diagonal 0, diagonal 1."""
        return self._mean_left(column) + _MEAN_WIDE / 2

    def columns(self) -> Iterator[dict[str, Any]]:
        """The heads of the test sets' columns, their names in at most two lines."""
        for column, (name, test) in enumerate(self.grid.tests.items()):
            lines = _in_two_lines(name, self.cell_width // _LETTER)
            middle = self._left(column) + self.cell_width / 2
            yield {"name": name, "lines": lines, "rows": test["rows"], "middle": middle}

    def rows(self) -> Iterator[dict[str, Any]]:
        """A recipe each: its name, rank, cells and means."""
        for number, recipe in enumerate(self.grid.recipes):
            summary = self.grid.summary(recipe)
            yield {
                "recipe": recipe,
                "short": shortened(recipe, _ROW_LETTERS),
                "y": _TOP + number * (_HIGH + _GAP),
                "rank": summary.rank if self.metric == "macro_f1" else None,  # which alone the ranks are by
                "cells": [self._cell(recipe, test, self._left(column)) for column, test in enumerate(self.grid.tests)],
                "means": [means[self.metric] for means in (summary.off_diagonal, summary.diagonal)],
                "left_out": summary.left_out,
            }

    def _cell(self, recipe: str, test: str, x: int) -> dict[str, Any]:
        """Colours and number of a cell; empty where nothing was measured."""
        entry = self.grid.entry(recipe, test, self.metric)
        ink, fill = "currentColor", "none"
        if entry.share is not None:
            ink, fill = ("#000000", f"url(#{self.name}-hatch)") if entry.note else _colours(entry.share)
        mark = f" †{entry.note}" if entry.note else f" {entry.mark}".rstrip()
        return {"test": test, "x": x, "entry": entry, "ink": ink, "fill": fill, "words": entry.value + mark}

    def description(self) -> str:
        """The whole plot in words, for those who hear it."""
        cells = []
        for recipe, test in self.grid.cells:
            entry = self.grid.entry(recipe, test, self.metric)
            kinds = [*(["diagonal"] if entry.diagonal else []), *(["contaminated"] if entry.note else [])]
            cells.append(f"{recipe} on {test}: {entry.number}{''.join(f', {kind}' for kind in kinds)}.")
        return " ".join(cells) or "No cell was measured."


def shortened(name: str, letters: int) -> str:
    """A name of at most so many letters, its middle left out: names often differ at their ends."""
    if len(name) <= letters:
        return name
    end = (letters - 1) // 2
    return f"{name[: letters - 1 - end]}…{name[len(name) - end :]}"


def _in_two_lines(name: str, letters: int) -> list[str]:
    """A name in at most two lines of so many letters, broken between words where they fit."""
    short = shortened(name, 2 * letters)
    lines = textwrap.wrap(short, letters)
    return lines if len(lines) <= 2 else [short[:letters], short[letters:]]


def _colours(share: float) -> tuple[str, str]:
    """Ink and fill of a share in 0..1 (others count as the nearer end), as #rrggbb."""
    place = min(max(share, 0.0), 1.0) * (len(_RAMP) - 1)
    below = min(int(place), len(_RAMP) - 2)
    ends = zip(_RAMP[below], _RAMP[below + 1], strict=True)
    fill = [round(low + (high - low) * (place - below)) for low, high in ends]
    light = luminance(fill)
    ink = "#000000" if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "#ffffff"
    return ink, "#" + "".join(f"{channel:02x}" for channel in fill)


def luminance(rgb: Sequence[int]) -> float:
    """Relative luminance, 0..1, of an sRGB colour of three numbers 0..255 (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (channel / 255 for channel in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def reliability_svg(table: Mapping[str, Any]) -> Markup:
    """A reliability diagram of `Reliability.to_json()`: per bin of confidence the share that is right.

    Bars are the shares, ticks the bins' mean confidence; on the dashed line both are equal. Empty bins have no bar.
    """
    columns = [[0.0, *table["upper"]], *(table[name] for name in ("upper", "rows", "confidence", "right"))]
    return render(
        "reliability.svg",
        side=_SIDE,
        margin=_MARGIN,
        font=_FONT,
        heading=f"Reliability: confidence against share right; calibration error {percent(table['error'])} %",
        bins=[_bin(*row) for row in zip(*columns, strict=False) if row[2] and None not in row[3:]],
    )


def _bin(low: float, high: float, rows: int, confidence: float, right: float) -> dict[str, Any]:
    bounds, sure = f"{percent(low)}–{percent(high)} %", f"mean {percent(confidence)} %"
    return {
        "words": f"confidence {bounds}, {sure}: {percent(right)} % of {rows:,} rows right",
        "x": _MARGIN + low * _SIDE,
        "width": max(1.0, (high - low) * _SIDE - 1),
        "confidence": confidence,
        "right": right,
    }
