"""The cross-dataset matrix as Markdown, as LaTeX and in a terminal.

Each cell has accuracy above macro-F1. The diagonal is in italics, the best clean value of a column bold, contaminated
cells are struck through or carry a dagger, with the reasons below.
"""

import itertools
import re
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from synthfer.report.html import anchor
from synthfer.report.matrix_grid import (
    LETTERS,
    SHOWN,
    Entry,
    Grid,
    Matrix,
    banner_text,
    guard_title,
    legend,
    notes,
    title,
    variant_title,
)
from synthfer.report.matrix_grid import variants as variants_of

_MEANS = ("off-diagonal mean", "diagonal mean", "rank")
_TEX_TESTS = 4  # so many columns fit a page
_NAME_LETTERS, _MEANS_LETTERS, _MARK_LETTERS = 24, 32, 6  # of a terminal's line
_STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}
_TEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{letter: f"{{{letter}}}" for letter in "[]*"},  # after a line's \\ they would be read as its arguments
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "…": r"\ldots{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"$\dagger$",
}


def markdown(matrix: Matrix) -> str:
    """One GitHub table per variant, with banners above and legend and footnotes below; names and messages stay text."""
    warned = [f"> - **{banner['status']}** {_md(guard_title(banner['guard']))}, {_md(banner_text(banner))}"
              for banner in matrix["banners"]]  # fmt: skip
    tables = [(f"## {_md(variant_title(grid.variant))}", "\n".join(_md_table(grid))) for grid in _grids(matrix)]
    why = [f"- †{number} {_md(text)}" for text, number in notes(matrix).items()]
    read = [f"- {_md(line)}" for line in [*legend(matrix), LETTERS]]
    blocks = ["# Cross-dataset matrix", "\n".join(warned), *itertools.chain(*tables), "\n".join(why), "How to read it:"]
    return "\n\n".join(block for block in [*blocks, "\n".join(read)] if block) + "\n"


def _md(text: str) -> str:
    """Text with everything escaped that Markdown would read; a line break is a space."""
    return re.sub(r"([\\`*_\[\]<>|~&$!#])", r"\\\1", " ".join(str(text).split()))


def _md_table(grid: Grid) -> list[str]:
    head = ["recipe", *(f"{_md(name)}<br>{test['rows']:,} rows" for name, test in grid.tests.items()), *_MEANS]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for recipe in grid.recipes:
        summary = grid.summary(recipe)
        out = f"<br>{summary.left_out} left out" if summary.left_out else ""
        means = ["<br>".join(side[metric] for metric in SHOWN) for side in (summary.off_diagonal, summary.diagonal)]
        cells = ["<br>".join(_md_entry(grid.entry(recipe, test, metric), metric) for metric in SHOWN)
                 for test in grid.tests]  # fmt: skip
        rows.append([_md(recipe), *cells, means[0] + out, means[1], summary.rank])
    return [f"| {' | '.join(row)} |" for row in rows]


def _md_entry(entry: Entry, metric: str) -> str:
    if entry.share is None:
        return entry.value
    name = "acc" if metric == "accuracy" else "F1"
    number = f"**{entry.value}**" if entry.best else entry.value
    text = f"{name} {number} {entry.spread}".rstrip()
    text = f"*{text}*" if entry.diagonal else text
    return f"~~{text}~~ †{entry.note}" if entry.note else f"{text} {entry.mark}".rstrip()


def latex(matrix: Matrix) -> str:
    """Booktabs tables, one per variant and four test sets; they need `\\usepackage{booktabs}` and nothing else.

    Each is as wide as a page of two columns, with label tab:matrix-VARIANT-PART. The first one has the legend. Names in
    other than Latin letters need XeLaTeX or LuaLaTeX.
    """
    parts = [
        (grid, tests, f"tab:matrix-{anchor(grid.variant)}-{part}")
        for grid in _grids(matrix)
        for part, tests in enumerate(_panels(list(grid.tests), _TEX_TESTS), 1)
    ]
    tables = [_tex_table(matrix, *parts[0], read=[_tex(line) for line in legend(matrix)])]
    tables += [_tex_table(matrix, *part, read=[f"Read as Table~\\ref{{{parts[0][2]}}}."]) for part in parts[1:]]
    return "% needs \\usepackage{booktabs}\n" + "\n".join(tables)


def _grids(matrix: Matrix) -> list[Grid]:
    return [Grid(matrix, variant) for variant in variants_of(matrix)]


def _panels(tests: list[str], most: int) -> list[list[str]]:
    """Columns in groups of at most `most`, as equal as they can be; one empty group where there is none."""
    number = max(1, -(-len(tests) // most))
    ends = [len(tests) * panel // number for panel in range(number + 1)]
    return [tests[start:end] for start, end in itertools.pairwise(ends)]


def _tex(text: str) -> str:
    """Text that LaTeX prints as it is; hyphens in a row are kept from becoming a dash."""
    pieces = re.findall(r"-+|.", " ".join(str(text).split()))
    return "".join("{}".join(piece) if piece[0] == "-" else _TEX.get(piece, piece) for piece in pieces)


def _tex_table(matrix: Matrix, grid: Grid, tests: Sequence[str], label: str, read: Sequence[str]) -> str:
    """With banners above the table, footnotes and legend below."""
    last = tests[-1:] == list(grid.tests)[-1:]
    head = [*tests, *(_MEANS if last else ())]
    above = [
        _tex(f"{banner['status']}, {guard_title(banner['guard'])}: {banner_text(banner)}")
        for banner in matrix["banners"]
    ]
    below = [f"$^{{\\dagger {number}}}$ {_tex(text)}" for number, text in grid.notes_of(tests)]
    recipes = ["\\midrule\n" + "\n".join(_tex_recipe(grid, recipe, tests, last)) for recipe in grid.recipes]
    return "\n".join(
        [
            r"\begin{table*}[tp]",
            r"\centering\scriptsize\setlength{\tabcolsep}{4pt}",
            f"\\caption{{Cross-dataset matrix, {_tex(variant_title(grid.variant))}: accuracy and macro-F1. "
            r"Italics: diagonal. Bold: best clean value of its column.}",
            f"\\label{{{label}}}",
            *_tex_lines(above),
            f"\\begin{{tabular}}{{l{'r' * len(head)}}}",
            r"\toprule",
            " & ".join(["", *(f"\\parbox[b]{{7em}}{{\\raggedleft {_tex(name)}}}" for name in head)]) + r" \\",
            *recipes,
            r"\bottomrule",
            r"\end{tabular}",
            *_tex_lines([*below, *read]),
            r"\end{table*}",
            "",
        ]
    )


def _tex_lines(lines: Sequence[str]) -> list[str]:
    return [r"\par{\raggedright", *(f"{line}\\par" for line in lines), r"}\medskip"] if lines else []


def _tex_recipe(grid: Grid, recipe: str, tests: Sequence[str], last: bool) -> list[str]:
    """The recipe's name over the whole width, since it may be long, then a line per metric."""
    summary = grid.summary(recipe)
    left_out = f" ({summary.left_out} left out)" if summary.left_out else ""
    columns = 1 + len(tests) + len(_MEANS) * last
    lines = [f"\\multicolumn{{{columns}}}{{l}}{{{_tex(recipe)}}} \\\\"]
    for metric in SHOWN:
        rank = summary.rank if metric == SHOWN[0] else ""
        means = [summary.off_diagonal[metric] + left_out, summary.diagonal[metric], rank] if last else []
        entries = [_tex_entry(grid.entry(recipe, test, metric)) for test in tests]
        lines.append(" & ".join([f"\\quad {title(metric)}", *entries, *map(_tex, means)]) + r" \\")
    return lines


def _tex_entry(entry: Entry) -> str:
    text = _tex(entry.value)
    text = f"\\textbf{{{text}}}" if entry.best else text
    text = f"\\textit{{{text}}}" if entry.diagonal else text
    mark = f"$^{{\\dagger {entry.note}}}$" if entry.note else _tex(entry.mark)
    return text + mark + (f" {{\\tiny {_tex(entry.spread)}}}" if entry.spread else "")


def print_matrix(matrix: Matrix, console: Console) -> None:
    """Banners, a table per variant and as many test sets as the terminal has room for, footnotes and legend."""
    for banner in matrix["banners"]:
        status = (banner["status"], _STYLES.get(banner["status"], ""))
        console.print(Text.assemble(status, f" {guard_title(banner['guard'])}, {banner_text(banner)}"), soft_wrap=True)
    for grid in _grids(matrix):
        for tests in _panels(list(grid.tests), _room(grid, console.width)):
            console.print(_terminal_table(grid, tests))
    for text, number in notes(matrix).items():
        console.print(Text(f"†{number} {text}"), soft_wrap=True)
    for line in [*legend(matrix), LETTERS]:
        console.print(Text(line, style="dim"))


def _room(grid: Grid, width: int) -> int:
    """How many test sets' columns a terminal of this `width` has room for, at least one."""
    entries = [grid.entry(*cell, metric).number for cell in grid.cells for metric in SHOWN]
    column = max(map(len, [*entries, *grid.tests]), default=0) + _MARK_LETTERS
    names = min(max(map(len, grid.recipes), default=0), _NAME_LETTERS)
    return max(1, (width - names - _MEANS_LETTERS) // column)


def _terminal_table(grid: Grid, tests: Sequence[str]) -> Table:
    """Names are `Text`, so that nothing in them is read as a style."""
    heading = Text(f"{variant_title(grid.variant)}: accuracy above macro-F1, %")
    table = Table(title=heading, title_justify="left", box=None, padding=(0, 2, 1, 0))
    for name in ("recipe", *tests, *_MEANS):
        table.add_column(Text(name.replace(" mean", "\nmean"), style="bold"), justify="right")
    table.columns[0].justify = "left"
    for recipe in grid.recipes:
        summary = grid.summary(recipe)
        cells = [Text("\n").join(_styled(grid.entry(recipe, test, metric)) for metric in SHOWN) for test in tests]
        means = [Text("\n".join(side[m] for m in SHOWN)) for side in (summary.off_diagonal, summary.diagonal)]
        means[0].append(f"\n{summary.left_out} left out" if summary.left_out else "")
        table.add_row(Text(recipe), *cells, *means, Text(summary.rank))
    return table


def _styled(entry: Entry) -> Text:
    chosen = {"italic": entry.diagonal, "bold": entry.best, "strike dim": bool(entry.note)}
    text = Text(entry.number, style=" ".join(style for style, wanted in chosen.items() if wanted))
    return text.append(f" †{entry.note}" if entry.note else f" {entry.mark}".rstrip(), style="not strike")
