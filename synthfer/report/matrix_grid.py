"""The entries of a cross-dataset matrix as its tables, plots and pages show them, formatted once for all.

They are read from the dict of `synthfer.evaluation.matrix` as matrix.json holds it, so that a report can be written
again from the file alone. A number that is null there is a dash here, and so is a cell that does not exist.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthfer.guards.verdict import Guard

Matrix = Mapping[str, Any]
"""A cross-dataset matrix, format synthfer-matrix/1."""

SHOWN = ("accuracy", "macro_f1")
ALPHA = 0.05
DASH = "–"
LETTERS = "Italics: diagonal. Bold: best of its column. Struck through: contaminated."

_TITLES = {"macro_f1": "macro-F1", "weighted_f1": "weighted F1", "ece": "ECE", "classwise_ece": "classwise ECE"}
_TITLES |= {"cohen_kappa": "Cohen's kappa", "top2": "top-2 accuracy", "nll": "log loss (nats)", "brier": "Brier score"}
_VARIANTS = {"original": "pictures as they are", "grey48": "pictures made grey and 48 x 48 pixels"}
_TESTS = {
    "mcnemar": "McNemar, exact, where no two rows are of one person or photo",
    "permutation of rows": "paired permutation of rows, where no two are of one person or photo",
    "permutation of lineages": "paired permutation of all rows of a person or photo at once",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One number of one cell, in percent with one decimal and as text.

    `share`: the number itself, None if unknown; `sd`: over seeds, None for one seed; `interval`: "low, high" or None;
    `mark`: "↑" or "↓" where it differs from the baseline after Holm's correction, else ""; `note`: number of the
    footnote of a contaminated cell, else None; `best`: no clean cell of the column is better.
    """

    share: float | None
    value: str
    sd: str | None
    interval: str | None
    mark: str
    diagonal: bool
    note: int | None
    best: bool

    @property
    def spread(self) -> str:
        """Standard deviation and interval after the value, as far as they are known."""
        parts = [f"± {self.sd}" if self.sd else "", f"[{self.interval}]" if self.interval else ""]
        return " ".join(part for part in parts if part)

    @property
    def number(self) -> str:
        """The value with its standard deviation and interval."""
        return f"{self.value} {self.spread}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The averages over a recipe's clean cells, in percent; `left_out` counts the cells that were not clean."""

    off_diagonal: Mapping[str, str]
    diagonal: Mapping[str, str]
    left_out: int
    rank: str


def percent(share: float | None) -> str:
    """A share in percent with one decimal, a dash for None."""
    return DASH if share is None else f"{100 * share:.1f}"


def title(metric: str) -> str:
    """The name of a metric, a gap or another number in a table."""
    return _TITLES.get(metric, metric.replace("_", " "))


def variant_title(variant: str) -> str:
    """A variant with its meaning, where that is known."""
    return f"{variant} ({_VARIANTS[variant]})" if variant in _VARIANTS else variant


def interval(bounds: Mapping[str, Any]) -> str | None:
    """ "low, high" in percent; None where either is unknown."""
    low, high = bounds.get("low"), bounds.get("high")
    return None if low is None or high is None else f"{percent(low)}, {percent(high)}"


def notes(matrix: Matrix) -> dict[str, int]:
    """Why cells are contaminated, each text once, with its number from 1 in the order of the cells."""
    texts = dict.fromkeys(_why(cell) for cell in matrix["cells"] if cell["contaminated"])
    return {text: number for number, text in enumerate(texts, 1)}


def _why(cell: Mapping[str, Any]) -> str:
    return " ".join(cell["reasons"]) or "No reason was recorded."


def banner_text(banner: Mapping[str, Any]) -> str:
    """A banner's cell and message: "recipe on test: message"."""
    cell = " on ".join(str(banner[end]) for end in ("recipe", "test") if banner.get(end) is not None)
    return f"{cell}: {banner['message']}" if cell else str(banner["message"])


def guard_title(number: str) -> str:
    """A guard's number and what it checks, where it is known."""
    return f"{number} {Guard(number).label}" if number in list(Guard) else number


def variants(matrix: Matrix) -> list[str]:
    """The variants of which there is a cell; all of them where there is no cell at all."""
    used = {cell["variant"] for cell in matrix["cells"]}
    return [variant for variant in matrix["variants"] if variant in used] or list(matrix["variants"])


class Grid:
    """The cells of one variant by recipe and test set."""

    def __init__(self, matrix: Matrix, variant: str) -> None:
        """`matrix` as above, `variant` one of its variants; `ValueError` names the ones there are."""
        if variant not in matrix["variants"]:
            raise ValueError(f"no variant {variant!r} in this matrix: it has {', '.join(matrix['variants'])}.")
        self.variant = variant
        self.recipes = [recipe["name"] for recipe in matrix["recipes"]]
        self.tests = {test["name"]: test for test in matrix["tests"]}
        self.cells = {(cell["recipe"], cell["test"]): cell for cell in matrix["cells"] if cell["variant"] == variant}
        self._metrics = matrix["metrics"]
        self._notes = notes(matrix)
        self._summary = {row["recipe"]: row for row in matrix["summary"] if row["variant"] == variant}

    def entry(self, recipe: str, test: str, metric: str) -> Entry:
        """The entry of a cell, a dash where there is no cell."""
        cell: Mapping[str, Any] = self.cells.get((recipe, test), {})
        bounds = _mean(cell, metric)
        share = bounds.get("mean")
        sd = bounds.get("sd")
        contaminated = cell.get("contaminated", False)
        return Entry(
            share=share,
            value=percent(share),
            sd=None if sd is None else percent(sd),
            interval=interval(bounds),
            mark=_mark(cell, metric),
            diagonal=cell.get("diagonal", False),
            note=self._notes[_why(cell)] if contaminated else None,
            best=share is not None and not contaminated and share == self._best(test, metric),
        )

    def _best(self, test: str, metric: str) -> float | None:
        clean = [self.cells.get((recipe, test), {}) for recipe in self.recipes]
        shares = [_mean(cell, metric).get("mean") for cell in clean if not cell.get("contaminated", False)]
        return max((share for share in shares if share is not None), default=None)

    def summary(self, recipe: str) -> Summary:
        """The averages of a recipe, dashes where there are none."""
        row = self._summary.get(recipe, {})
        off_diagonal, diagonal = (
            {metric: percent((row.get(side) or {}).get(metric)) for metric in self._metrics}
            for side in ("off_diagonal", "diagonal")
        )
        rank = DASH if row.get("rank") is None else str(row["rank"])
        return Summary(off_diagonal=off_diagonal, diagonal=diagonal, left_out=row.get("cells_left_out") or 0, rank=rank)

    def notes_of(self, tests: Sequence[str]) -> Iterator[tuple[int, str]]:
        """The footnotes that these columns need, by number."""
        used = {_why(cell) for (_, test), cell in self.cells.items() if cell["contaminated"] and test in tests}
        return ((number, text) for text, number in self._notes.items() if text in used)


def _mean(cell: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    return (cell.get("mean") or {}).get(metric) or {}


def _mark(cell: Mapping[str, Any], metric: str) -> str:
    """An arrow where the difference from the baseline is significant after the correction."""
    compared = (cell.get("comparison") or {}).get(metric) or {}
    difference, p = compared.get("difference"), compared.get("p_holm")
    if difference is None or p is None or p >= ALPHA or difference == 0:
        return ""
    return "↑" if difference > 0 else "↓"


def legend(matrix: Matrix) -> list[str]:
    """Sentences that explain the entries of a table, only those that this matrix needs."""
    cells = matrix["cells"]
    several = any(_mean(cell, metric).get("n", 1) > 1 for cell in cells for metric in SHOWN)
    level = (matrix.get("config") or {}).get("level", 0.95)
    lines = [
        "Rows are recipes (what was trained), columns test sets. Numbers are percent: accuracy, the share of right "
        "answers, and macro-F1, the mean of F1 over the expressions that the test set has.",
        f"[low, high] is the {100 * level:g} % interval: over training seeds where there are several (Student's t), "
        "else over the test set (bootstrap). " + ("± is the standard deviation over seeds." if several else ""),
        "Diagonal: the test set is the held-out split of a collection that the recipe was trained on. Off-diagonal: of "
        "any other collection. Means are over a recipe's clean cells, which may be other test sets than another "
        "recipe's; rank is by macro-F1 over the off-diagonal test sets that all ranked recipes have clean. Best of its "
        "column: no clean cell is higher, which does not make it significantly so.",
    ]
    if any(cell["contaminated"] for cell in cells):
        lines.append("† Contaminated: training data overlaps with this test set, or the checkpoint was selected on it. "
                     "The number is left out of every mean, rank and comparison.")  # fmt: skip
    if any(cell.get("comparison") for cell in cells):
        lines.append(f"↑ and ↓: better and worse than {matrix['baseline']} on the same rows, p < {ALPHA} after Holm's "
                     f"correction over all compared cells{_tests_used(cells)}. Without a mark no difference is "
                     "shown.")  # fmt: skip
    if unsearched := [test["name"] for test in matrix["tests"] if test.get("audited") is False]:
        lines.append(f"No audit was given (audits=) of {', '.join(unsearched)}: near copies in training data were not "
                     "searched for, and only lineage, equal pixels and declarations show overlap with training data. "
                     "An audit covers only the training data that it compared.")  # fmt: skip
    if any(run["unmasked"] for cell in cells for run in cell["runs"]):
        lines.append("Classes that a test set does not have are not allowed as predictions (masked); the page and "
                     "matrix.json have the unmasked numbers, too.")  # fmt: skip
    return [line.strip() for line in lines]


def _tests_used(cells: Sequence[Mapping[str, Any]]) -> str:
    """The tests behind the marks, in brackets: "(accuracy: McNemar ...; macro-F1: ...)"."""
    used = []
    for metric in SHOWN:
        names = [(cell.get("comparison") or {}).get(metric, {}).get("test") for cell in cells]
        if tests := [_TESTS.get(test, test) for test in dict.fromkeys(names) if test]:
            used.append(f"{title(metric)}: {' or '.join(tests)}")
    return f" ({'; '.join(used)})" if used else ""
