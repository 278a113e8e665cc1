"""Plots as hand-written SVG: the cross-dataset matrix as a heat map, and reliability diagrams.

One hue from light to dark, which every kind of colour vision can read, and the numbers printed in black or white,
whichever has more contrast (WCAG 2.2). Words outside the cells have the colour of the text around the picture.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from synthfer.report.markup import Markup, anchor, tag
from synthfer.report.matrix_grid import Grid, Matrix, percent, title, variant_title

_RAMP = ((242, 247, 246), (111, 179, 171), (11, 63, 59))
_FONT = "system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
_LEFT, _TOP, _HIGH, _GAP = 186, 60, 48, 6
_WIDE, _WIDER = 100, 124  # of a cell, without and with a standard deviation
_MEAN_WIDE = 86
_ROW_LETTERS, _LETTER = 22, 8
_SIDE, _MARGIN = 200, 34


def svg(matrix: Matrix, metric: str = "macro_f1", variant: str = "original") -> str:
    """The matrix as a heat map of one metric and variant: a standalone SVG that can stand within HTML, too.

    Width and height follow from the number of test sets and recipes. The diagonal is outlined, contaminated cells are
    hatched. `ValueError` for a metric or variant that the matrix does not have.
    """
    if metric not in matrix["metrics"]:
        raise ValueError(f"no metric {metric!r} in this matrix: it has {', '.join(matrix['metrics'])}.")
    layout = _Layout(Grid(matrix, variant), metric)
    name, bottom = layout.name, _TOP + len(layout.grid.recipes) * (_HIGH + _GAP)
    width = max(560, layout.mean_at(2) + 8)
    rows = [_row(layout, recipe, place) for place, recipe in enumerate(layout.grid.recipes)]
    said = f"{title(metric)} in percent, {variant_title(variant)}: recipes by test sets"
    return tag(
        "svg",
        tag("title", said, id=f"{name}-title"),
        tag("desc", _description(layout), id=f"{name}-desc"),
        tag("defs", _hatching(name)),
        _header(layout),
        rows,
        _key(bottom + 18, name, bool(matrix["baseline"])),
        **_frame(width, bottom + 124),
        aria_labelledby=f"{name}-title {name}-desc",
    )


class _Layout:
    """What is plotted, and where its columns are."""

    def __init__(self, grid: Grid, metric: str) -> None:
        self.grid, self.metric = grid, metric
        self.name = f"plot-{anchor(metric)}-{anchor(grid.variant)}"
        self.wide = _WIDER if any(grid.entry(*place, metric).sd for place in grid.cells) else _WIDE

    def at(self, column: int) -> int:
        """Left end of a test set's column."""
        return _LEFT + column * (self.wide + _GAP)

    def mean_at(self, column: int) -> int:
        """Left end of a column of means."""
        return self.at(len(self.grid.tests)) + 10 + column * _MEAN_WIDE


def _frame(width: int, height: int) -> dict[str, Any]:
    size = {"viewBox": f"0 0 {width} {height}", "width": width, "height": height}
    return {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "font_family": _FONT, "fill": "currentColor", **size}


def _description(layout: _Layout) -> str:
    """The whole plot in words, for those who hear it."""
    cells = []
    for recipe, test in layout.grid.cells:
        entry = layout.grid.entry(recipe, test, layout.metric)
        kinds = [*(["diagonal"] if entry.diagonal else []), *(["contaminated"] if entry.note else [])]
        cells.append(f"{recipe} on {test}: {entry.number}{''.join(f', {kind}' for kind in kinds)}.")
    return " ".join(cells) or "No cell was measured."


def _hatching(name: str) -> Markup:
    return tag(
        "pattern",
        tag("rect", width=7, height=7, fill="#ffffff"),
        tag("line", x1=0, y1=0, x2=0, y2=7, stroke="#bcb6ae", stroke_width=3),
        id=f"{name}-hatch",
        width=7,
        height=7,
        patternUnits="userSpaceOnUse",
        patternTransform="rotate(45)",
    )


def _text(words: str, x: float, y: float, size: float = 12, whole: str | None = None, **more: Any) -> Markup:
    return tag("text", tag("title", whole) if whole else None, words, x=x, y=y, font_size=size, **more)


def shortened(name: str, letters: int) -> str:
    """A name of at most so many letters, its middle left out: names often differ at their ends."""
    if len(name) <= letters:
        return name
    end = (letters - 1) // 2
    return f"{name[: letters - 1 - end]}…{name[len(name) - end :]}"


def _header(layout: _Layout) -> list[Markup]:
    middle: dict[str, Any] = {"text_anchor": "middle"}
    soft: dict[str, Any] = {"opacity": 0.7}
    said = [_text("trained: recipe", 0, _TOP - 12, **soft)]
    for column, (name, test) in enumerate(layout.grid.tests.items()):
        x = layout.at(column) + layout.wide / 2
        said += [
            _heading(name, layout.wide // _LETTER, x),
            _text(f"{test['rows']:,} rows", x, _TOP - 12, 11, **middle, **soft),
        ]
    for column, words in enumerate(("off-diagonal", "diagonal")):
        x = layout.mean_at(column) + _MEAN_WIDE / 2
        said += [
            _text(words, x, _TOP - 28, **middle, font_weight=600),
            _text("mean", x, _TOP - 12, 11, **middle, **soft),
        ]
    return said


def _heading(name: str, letters: int, x: float) -> Markup:
    """A name in at most two lines of so many letters, at words' ends where they fit."""
    short = shortened(name, 2 * letters)
    lines = textwrap.wrap(short, letters)
    lines = lines if len(lines) <= 2 else [short[:letters], short[letters:]]
    spans = [tag("tspan", line, x=x, y=_TOP - 28 - 15 * place) for place, line in enumerate(lines[::-1])]
    return tag("text", tag("title", name), spans[::-1], font_size=12, font_weight=600, text_anchor="middle")


def _row(layout: _Layout, recipe: str, place: int) -> list[Markup]:
    y = _TOP + place * (_HIGH + _GAP)
    summary = layout.grid.summary(recipe)
    said = [_text(shortened(recipe, _ROW_LETTERS), 0, y + 22, whole=recipe, font_weight=600)]
    if layout.metric == "macro_f1":  # which alone the ranks are by
        said.append(_text(f"rank {summary.rank}", 0, y + 38, 11, opacity=0.7))
    said += [_cell(layout, recipe, test, layout.at(column), y) for column, test in enumerate(layout.grid.tests)]
    for column, means in enumerate((summary.off_diagonal, summary.diagonal)):
        x = layout.mean_at(column) + _MEAN_WIDE / 2
        said.append(_text(means[layout.metric], x, y + 22, 14, text_anchor="middle"))
    if summary.left_out:
        x = layout.mean_at(0) + _MEAN_WIDE / 2
        said.append(_text(f"{summary.left_out} left out", x, y + 38, 11, text_anchor="middle", opacity=0.7))
    return said


def _cell(layout: _Layout, recipe: str, test: str, x: int, y: int) -> Markup:
    """A place of the matrix: heat, value, interval; empty where nothing was measured."""
    entry, wide = layout.grid.entry(recipe, test, layout.metric), layout.wide
    ink, fill = "currentColor", "none"
    if entry.share is not None:
        ink, fill = ("#000000", f"url(#{layout.name}-hatch)") if entry.note else _colours(entry.share)
    box = tag("rect", x=x, y=y, width=wide, height=_HIGH, rx=6, fill=fill, stroke="currentColor", stroke_opacity=0.25)
    around = {"x": x - 2, "y": y - 2, "width": wide + 4, "height": _HIGH + 4, "rx": 8, "fill": "none"}
    outline = tag("rect", **around, stroke="currentColor", stroke_width=2.5) if entry.diagonal else None
    middle = {"text_anchor": "middle", "fill": ink}
    after = f" †{entry.note}" if entry.note else f" {entry.mark}".rstrip()
    words = [_text(entry.value + after, x + wide / 2, y + 22, 15, **middle, font_weight=600)]
    if entry.spread:
        words.append(_text(entry.spread, x + wide / 2, y + 38, 11, **middle))
    kind = "cell" + " diagonal" * entry.diagonal + " contaminated" * bool(entry.note)
    return tag("g", tag("title", f"{recipe} on {test}: {entry.number}"), outline, box, words, class_=kind)


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


def _key(y: int, name: str, compared: bool) -> list[Markup]:
    """What colour, outline, hatching and arrows mean."""
    said = []
    for place in range(6):
        ink, fill = _colours(place / 5)
        said += [
            tag("rect", x=place * 34, y=y, width=34, height=18, fill=fill),
            _text(str(20 * place), place * 34 + 17, y + 13, 10, text_anchor="middle", fill=ink),
        ]
    said.append(_text("percent, the same scale in every plot", 214, y + 13))
    box = {"x": 8, "width": 18, "height": 14, "rx": 4}
    outline = tag("rect", **box, y=y + 31, fill="none", stroke="currentColor", stroke_width=2.5)
    hatched = tag("rect", **box, y=y + 54, fill=f"url(#{name}-hatch)", stroke="currentColor", stroke_opacity=0.25)
    said += [outline, _text("diagonal: the held-out split of a collection that was trained on", 36, y + 43)]
    said += [hatched, _text("contaminated: left out of means and ranks; † gives the reason's number", 36, y + 66)]
    if compared:
        words = "better, worse than the baseline (Holm-corrected)"
        said += [_text("↑ ↓", 17, y + 89, text_anchor="middle"), _text(words, 36, y + 89)]
    return said


def reliability_svg(table: Mapping[str, Any]) -> str:
    """A reliability diagram of `Reliability.to_json()`: per bin of confidence the share that is right.

    Bars are the shares, ticks the bins' mean confidence; on the dashed line both are equal. Empty bins have no bar.
    """
    end = _MARGIN + _SIDE
    bars = [_bin(*row) for row in zip([0.0, *table["upper"]], table["upper"], table["rows"], table["confidence"],
                                      table["right"], strict=False)]  # fmt: skip
    axes = tag("path", d=f"M{_MARGIN},8 V{8 + _SIDE} H{end}", fill="none", stroke="currentColor", stroke_opacity=0.5)
    even = tag("path", d=f"M{_MARGIN},{8 + _SIDE} L{end},8", stroke="currentColor", stroke_dasharray="4 4")
    said = f"Reliability: confidence against share right; calibration error {percent(table['error'])} %"
    marks = []
    for share in (0, 0.5, 1):
        marks += [
            _text(f"{100 * share:.0f}", _MARGIN + share * _SIDE, _SIDE + 22, 10, text_anchor="middle"),
            _text(f"{100 * share:.0f}", _MARGIN - 5, _SIDE + 11 - share * _SIDE, 10, text_anchor="end"),
        ]
    names = [
        _text("confidence, %", _MARGIN + _SIDE / 2, _SIDE + 36, 11, text_anchor="middle"),
        _text("right, %", 0, 0, 11, text_anchor="middle", transform=f"translate(10 {8 + _SIDE / 2}) rotate(-90)"),
    ]
    return tag(
        "svg", tag("title", said), bars, axes, even, marks, names, **_frame(end + 12, _SIDE + 42), aria_label=said
    )


def _bin(low: float, high: float, rows: int, confidence: float | None, right: float | None) -> Markup | None:
    if not rows or confidence is None or right is None:
        return None
    sure, true = percent(confidence), percent(right)
    said = f"confidence {percent(low)}–{percent(high)} %, mean {sure} %: {true} % of {rows:,} rows right"
    x, wide, base = _MARGIN + low * _SIDE, max(1.0, (high - low) * _SIDE - 1), 8 + _SIDE
    tick = base - confidence * _SIDE
    bar = tag("rect", x=f"{x:.1f}", y=f"{base - right * _SIDE:.1f}", width=f"{wide:.1f}", height=f"{right * _SIDE:.1f}",
              fill="#6fb3ab")  # fmt: skip
    line = tag("path", d=f"M{x:.1f},{tick:.1f} h{wide:.1f}", stroke="currentColor", stroke_width=2)
    return tag("g", tag("title", said), bar, line)
