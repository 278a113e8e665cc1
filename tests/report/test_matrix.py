"""What a reader sees of a cross-dataset matrix: every number where it belongs, and names that stay names."""

import copy
import io
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from rich.console import Console

from synthfer.evaluation.inputs import VARIANTS, MatrixConfig
from synthfer.evaluation.matrix import matrix as evaluated
from synthfer.expressions import EXPRESSIONS
from synthfer.report.matrix import latex, markdown, print_matrix
from synthfer.report.matrix_page import page
from synthfer.report.plot import luminance, reliability_svg, shortened, svg
from tests.evaluation.matrix_inputs import a_test_set, candidate, labels, probabilities
from tests.report.browser import browse
from tests.report.matrices import CONTAMINATED, METRIC_NAMES, example_matrix

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = r"""<script>alert(1)</script>|100%_a & b#c$d {e} ~f^ \g [bold]h[/bold] *i* `j` !k "l" 'm' ]]> --> é†"""


def terminal(matrix: dict[str, Any], width: int = 160) -> str:
    written = io.StringIO()
    print_matrix(matrix, Console(file=written, width=width))
    return written.getvalue()


WRITERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "markdown": markdown,
    "latex": latex,
    "svg": svg,
    "page": page,
    "terminal": terminal,
}


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def tree(written: str) -> Element:
    """The page as a tree: apart from its <meta>, it is well-formed XML, too."""
    return ElementTree.fromstring(re.sub(r"<meta([^>]*)>", r"<meta\1/>", written.removeprefix("<!doctype html>\n")))


def words(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def of_class(root: Element, name: str) -> list[Element]:
    return [one for one in root.iter() if name in one.get("class", "").split()]


def rendered(matrix: dict[str, Any]) -> Element:
    """The Markdown as a reader's browser gets it."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return ElementTree.fromstring(f"<all>{parser.render(markdown(matrix)).replace('<br>', '<br/>')}</all>")


def places(matrix: dict[str, Any]) -> Iterator[tuple[int, int, int, dict[str, Any]]]:
    """Every cell with the places of its variant, recipe and test set."""
    orders = [matrix["variants"], *([one["name"] for one in matrix[key]] for key in ("recipes", "tests"))]
    for cell in matrix["cells"]:
        v, r, t = (order.index(cell[key]) for order, key in zip(orders, ("variant", "recipe", "test"), strict=True))
        yield v, r, t, cell


def said(cell: dict[str, Any], metric: str) -> str:
    """A cell's number as every table writes it."""
    found = cell["mean"][metric]
    spread = f" ± {percent(found['sd'])}" if found["sd"] is not None else ""
    return f"{percent(found['mean'])}{spread} [{percent(found['low'])}, {percent(found['high'])}]"


def best_of_columns(matrix: dict[str, Any], metric: str) -> set[tuple[int, int, int]]:
    shares: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for v, r, t, cell in places(matrix):
        if not cell["contaminated"]:
            shares.setdefault((v, t), []).append((cell["mean"][metric]["mean"], r))
    return {(v, r, t) for (v, t), found in shares.items() for share, r in found if share == max(found)[0]}


@pytest.fixture(scope="module", params=[(0,), (0, 1, 2)], ids=["one seed", "three seeds"])
def matrix(request: pytest.FixtureRequest) -> dict[str, Any]:
    return example_matrix(seeds=request.param)


def test_markdown_has_every_number_in_its_place(matrix: dict[str, Any]) -> None:
    tables = [[[*row] for row in table.iter("tr")] for table in rendered(matrix).iter("table")]
    assert [words(head) for head in tables[0][0]][1:3] == ["fer2013150 rows", "rafdb150 rows"]
    best = {metric: best_of_columns(matrix, metric) for metric in ("accuracy", "macro_f1")}
    for v, r, t, cell in places(matrix):
        shown = tables[v][1 + r][1 + t]
        assert f"acc {said(cell, 'accuracy')}" in words(shown) and f"F1 {said(cell, 'macro_f1')}" in words(shown)
        assert len([*shown.iter("em")]) == 2 * cell["diagonal"] and len([*shown.iter("s")]) == 2 * cell["contaminated"]
        assert len([*shown.iter("strong")]) == sum((v, r, t) in places_of for places_of in best.values())
    for place, row in enumerate(matrix["summary"]):
        shown = [words(cell) for cell in tables[place // 3][1 + place % 3]]
        wanted = ["".join(percent(row[side][m]) if row[side][m] is not None else "–" for m in ("accuracy", "macro_f1"))
                  for side in ("off_diagonal", "diagonal")]  # fmt: skip
        out = f"{row['cells_left_out']} left out" if row["cells_left_out"] else ""
        assert shown[0] == row["recipe"] and shown[-3:] == [wanted[0] + out, wanted[1], str(row["rank"] or "–")]


def test_only_several_seeds_have_a_deviation(matrix: dict[str, Any]) -> None:
    several = len(matrix["recipes"][0]["seeds"]) > 1
    for write in (markdown, page, svg, terminal):
        assert ("±" in write(matrix)) == several
    assert (r"$\pm$" in latex(matrix)) == several


def test_the_legend_and_the_page_say_which_tests_and_audits_stand_behind_the_numbers() -> None:
    alone, kin = example_matrix(), example_matrix()
    for comparison in (cell["comparison"] for cell in kin["cells"] if cell["comparison"]):
        for metric in ("accuracy", "macro_f1"):
            comparison[metric]["test"] = "permutation of lineages"
    together, rows = "all rows of a person or photo at once", "paired permutation of rows"
    for write in (markdown, page, terminal, latex):
        said_alone, said_kin = (" ".join(write(one).split()) for one in (alone, kin))
        assert "accuracy: McNemar" in said_alone and f"macro-F1: {rows}" in said_alone and together not in said_alone
        assert "McNemar" not in said_kin and said_kin.count(together) == 2
        assert "No audit was given" not in said_alone
        kin["tests"][1]["audited"] = False
        assert "No audit was given (audits=) of rafdb:" in " ".join(write(kin).split())
        kin["tests"][1]["audited"] = True
    told = [words(row) for row in tree(page(kin)).iter("tr") if "+3.1 points" in words(row)]
    assert told and all(row.endswith("permutation of lineages") for row in told)


def test_marks_follow_the_corrected_p(matrix: dict[str, Any]) -> None:
    changed = copy.deepcopy(matrix)
    (cell,) = (cell for cell in changed["cells"] if cell["comparison"] and cell["variant"] == "original")
    cells = [row for row in rendered(changed).iter("td") if "↑" in words(row)]
    assert len(cells) == 2 and all(re.search(r"acc [^F]*↑F1.*↓", words(one)) for one in cells)
    assert [svg(changed, metric).count(mark) for metric, mark in (("accuracy", "↑"), ("macro_f1", "↓"))] == [2, 2]
    cell["comparison"]["accuracy"]["p_holm"] = 0.05
    assert svg(changed, "accuracy").count("↑") == 1  # the legend's
    cell["comparison"] = None
    assert svg(changed).count("↓") == 1


def test_banners_stand_above_all_tables_and_reasons_below(matrix: dict[str, Any]) -> None:
    top = words(next(rendered(matrix).iter("blockquote")))
    assert (
        top == f"fail G7 training overlap, synthetic on fer2013: {CONTAMINATED} warn G10 checkpoint selection, Unknown."
    )
    for write in (markdown, latex, terminal):
        written = write(matrix)
        assert written.index("synthetic on fer2013") < written.index("rafdb") < written.rindex(CONTAMINATED)
    root = tree(page(matrix))
    assert [part.get("id") for part in root.iter("section")][:2] == ["warnings", "matrix-original"]
    assert [words(one) for one in of_class(root, "banners")[0]] == [
        f"fail G7 training overlap, synthetic on fer2013: {CONTAMINATED}",
        "warn G10 checkpoint selection, Unknown.",
    ]
    assert [words(one) for one in of_class(root, "notes")] == [f"†1 {CONTAMINATED}"]


def latex_rows(written: str) -> list[tuple[int, list[str]]]:
    """Every row of every tabular as its columns, with the columns that the tabular has."""
    found = []
    for columns, inside in re.findall(r"\\begin\{tabular\}\{([lr]+)\}\n(.*?)\\end\{tabular\}", written, re.DOTALL):
        lines = [line for line in inside.splitlines() if line not in (r"\toprule", r"\midrule", r"\bottomrule")]
        assert all(line.endswith(r" \\") for line in lines)
        found += [(len(columns), re.split(r"(?<!\\) & ", line[:-3])) for line in lines]
    return found


def check_latex(written: str) -> None:
    """Braces, environments, dollars and columns balance, outside of escaped letters."""
    bare = re.sub(r"\\[\\{}$&#_%]", "", re.sub(r"^% needs.*|(?<=Table)~", "", written))
    depth = list(itertools.accumulate({"{": 1, "}": -1}.get(letter, 0) for letter in bare))
    assert min(depth) == 0 and depth[-1] == 0
    assert bare.count("$") % 2 == 0 and not set(bare) & set("#%~<>|")
    assert not re.search(r"[_^]", re.sub(r"\$[^$]*\$", "", bare))
    open_: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", written):
        if kind == "begin":
            open_.append(name)
        else:
            assert open_.pop() == name
    assert not open_
    for columns, row in latex_rows(written):
        spans = [re.match(r"\\multicolumn\{(\d+)\}", cell) for cell in row]
        assert sum(int(span[1]) if span else 1 for span in spans) == columns
    commands = set(re.findall(r"\\([a-zA-Z]+)", written))
    known = (
        "begin end caption label ref usepackage centering scriptsize tiny setlength tabcolsep par medskip raggedright"
    )
    known += (
        " raggedleft parbox toprule midrule bottomrule multicolumn quad textit textbf dagger pm times uparrow downarrow"
    )
    known += " ldots textbackslash textasciitilde textasciicircum textbar textless textgreater"
    assert commands <= set(known.split())


def test_latex_has_every_number_in_its_place(matrix: dict[str, Any]) -> None:
    written = latex(matrix)
    check_latex(written)
    rows = [row for _, row in latex_rows(written)]
    per_variant = 1 + 3 * 3
    best = {metric: best_of_columns(matrix, metric) for metric in ("accuracy", "macro_f1")}
    for v, r, t, cell in places(matrix):
        for line, metric in enumerate(("accuracy", "macro_f1")):
            shown = rows[v * per_variant + 1 + 3 * r + 1 + line][1 + t]
            found = cell["mean"][metric]
            value, bounds = percent(found["mean"]), f"{percent(found['low'])}, {percent(found['high'])}"
            assert re.search(rf"(?<![\d.]){re.escape(value)}\b", shown) and bounds in shown
            assert (r"\textit{" in shown) == cell["diagonal"]
            assert (r"$^{\dagger 1}$" in shown) == cell["contaminated"]
            assert (r"\textbf{" in shown) == ((v, r, t) in best[metric])
    labels = re.findall(r"\\label\{(.*?)\}", written)
    assert labels == ["tab:matrix-original-1", "tab:matrix-grey48-1"]
    assert re.findall(r"\\ref\{(.*?)\}", written) == labels[:1]


def test_an_engine_compiles_it(tmp_path: Path) -> None:
    engine = next((one for one in ("xelatex", "lualatex", "pdflatex", "tectonic") if shutil.which(one)), None)
    if engine is None:
        pytest.skip("no LaTeX engine is installed")
    document = "\\documentclass[twocolumn]{article}\\usepackage{booktabs}\\begin{document}%s\\end{document}"
    (tmp_path / "all.tex").write_text(document % f"\n{latex(hostile())}", encoding="utf-8")
    words = [engine, *(["-interaction=nonstopmode", "-halt-on-error"] if engine != "tectonic" else []), "all.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and (tmp_path / "all.pdf").exists(), done.stdout[-2000:]


def test_wide_matrices_are_split_into_tables_that_fit() -> None:
    wide = example_matrix(["one"], [f"test {i}" for i in range(9)], variants=["original"])
    written = latex(wide)
    check_latex(written)
    labels = re.findall(r"\\label\{(.*?)\}", written)
    assert labels == [f"tab:matrix-original-{part}" for part in (1, 2, 3)]
    assert sorted(columns for columns, _ in latex_rows(written))[::4] == [4, 4, 7]
    assert written.count("off-diagonal mean}") == 1
    heads = re.findall(r"raggedleft (test \d)", written)
    assert heads == [f"test {i}" for i in range(9)]


def cells_of(root: Element) -> list[Element]:
    return of_class(root, "cell")


def test_svg_has_every_number_in_its_place(matrix: dict[str, Any]) -> None:
    for (v, variant), metric in itertools.product(enumerate(matrix["variants"]), METRIC_NAMES):
        root = ElementTree.fromstring(svg(matrix, metric, variant))
        drawn = cells_of(root)
        for place, (_, _, _, cell) in enumerate(one for one in places(matrix) if one[0] == v):
            texts = " ".join("".join(text.itertext()) for text in drawn[place].iter(f"{SVG}text"))
            assert re.sub(r" (†1|↑|↓)", "", texts) == said(cell, metric)
            assert f"{cell['recipe']} on {cell['test']}: {said(cell, metric)}" == drawn[place][0].text
            kinds = drawn[place].get("class", "").split()
            assert ("diagonal" in kinds, "contaminated" in kinds) == (cell["diagonal"], cell["contaminated"])
            boxes = [*drawn[place].iter(f"{SVG}rect")]
            assert len(boxes) == 1 + cell["diagonal"]
            assert ("url(#" in boxes[-1].get("fill", "")) == cell["contaminated"]


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def test_numbers_can_be_read_on_every_shade_and_shades_follow_the_numbers() -> None:
    """WCAG 2.2 asks for a contrast of 4.5."""
    matrix = example_matrix([f"{i}" for i in range(12)], [f"{i}" for i in range(9)], variants=["original"])
    shares = np.linspace(-0.1, 1.1, len(matrix["cells"]))
    for cell, share in zip(matrix["cells"], shares, strict=True):
        cell["mean"]["macro_f1"]["mean"], cell["contaminated"] = float(share), False
    lights = []
    for cell in cells_of(ElementTree.fromstring(svg(matrix))):
        box = [*cell.iter(f"{SVG}rect")][-1]
        fill, ink = (luminance(rgb(one.get("fill", ""))) for one in (box, next(cell.iter(f"{SVG}text"))))
        assert (max(fill, ink) + 0.05) / (min(fill, ink) + 0.05) >= 4.5
        lights.append(fill)
    assert (np.diff(lights) <= 0).all() and lights[0] > 0.9 and lights[-1] < 0.1


def test_luminance_has_the_published_values() -> None:
    assert luminance([255, 255, 255]) == pytest.approx(1) and luminance([0, 0, 0]) == 0
    assert luminance([255, 0, 0]) == pytest.approx(0.2126) and luminance([119, 119, 119]) == pytest.approx(
        0.1845, abs=1e-4
    )


def test_svg_grows_with_its_columns_and_holds_all_it_draws() -> None:
    widths = []
    for tests in (4, 8):
        root = ElementTree.fromstring(svg(example_matrix(tests=[f"t{i}" for i in range(tests)], variants=["original"])))
        width, height = (float(root.get(key, 0)) for key in ("width", "height"))
        assert root.get("viewBox") == f"0 0 {width:.0f} {height:.0f}"
        for box in (box for cell in cells_of(root) for box in cell.iter(f"{SVG}rect")):
            x, y, wide, high = (float(box.get(key, 0)) for key in ("x", "y", "width", "height"))
            assert x >= 0 and y >= 0 and x + wide <= width and y + high <= height
        widths.append(width)
    assert widths[1] >= widths[0] + 4 * 100


def test_long_names_are_short_with_the_whole_name_at_hand() -> None:
    name = "a recipe whose name goes on and on, v1"
    root = ElementTree.fromstring(svg(example_matrix([name, name.replace("v1", "v2")], [name])))
    labels = [text for text in root.iter(f"{SVG}text") if text.find(f"{SVG}title") is not None]
    assert [text[0].text for text in labels] == [name, name, name.replace("v1", "v2")]
    shown = ["".join(text.itertext()).removeprefix(text[0].text or "") for text in labels]
    assert all("…" in one and len(one) <= 24 for one in shown) and shown[1] != shown[2]
    assert [len([*text.iter(f"{SVG}tspan")]) for text in labels] == [2, 0, 0]


@given(st.text(), st.integers(3, 30))
def test_a_shortened_name_keeps_its_ends(name: str, letters: int) -> None:
    short = shortened(name, letters)
    assert len(short) == min(len(name), letters)
    place = (letters - 1) - (letters - 1) // 2
    if short != name:
        assert short[place] == "…" and name.startswith(short[:place]) and name.endswith(short[place + 1 :])


def test_reliability_bars_are_the_shares_that_were_right() -> None:
    table = {"upper": [0.25, 0.5, 0.75, 1.0], "rows": [0, 10, 30, 60], "confidence": [None, 0.4, 0.7, 0.9],
             "right": [None, 0.5, 0.0, 1.0], "error": 0.1}  # fmt: skip
    root = ElementTree.fromstring(reliability_svg(table))
    bars = [*root.iter(f"{SVG}rect")]
    assert [float(bar.get("height", 0)) for bar in bars] == [100, 0, 200]
    assert [float(bar.get("y", 0)) + float(bar.get("height", 0)) for bar in bars] == [208] * 3
    assert np.diff([float(bar.get("x", 0)) for bar in bars]).tolist() == [50, 50]
    assert "mean 40.0 %: 50.0 % of 10 rows right" in "".join(root.itertext())


def test_unknown_metrics_and_variants_are_named() -> None:
    with pytest.raises(ValueError, match=r"no metric 'kappa'.*accuracy, macro_f1, balanced_accuracy"):
        svg(example_matrix(), "kappa")
    with pytest.raises(ValueError, match=r"no variant 'sepia'.*original, grey48"):
        svg(example_matrix(), variant="sepia")


def test_the_page_tells_every_cell_in_table_and_details(matrix: dict[str, Any]) -> None:
    root = tree(page(matrix))
    tables = [[[*row] for row in one.iter("tr")] for one in of_class(root, "grid")]
    by_id = {one.get("id"): one for one in root.iter() if one.get("id")}
    for v, r, t, cell in places(matrix):
        shown = tables[v][1 + r][4 + t]
        for metric, line in zip(("accuracy", "macro-F1"), of_class(shown, "entry"), strict=True):
            key = metric.lower().replace("-", "_")
            assert re.sub(r" (†1|↑|↓)", "", words(line)) == f"{metric} {said(cell, key)}"
            assert ("diagonal" in line.get("class", ""), line.find("del") is not None) == (
                cell["diagonal"],
                cell["contaminated"],
            )
        links = [link.get("href", "")[1:] for link in of_class(shown, "more")]
        check_details(by_id[links[0]], cell)
    for place, row in enumerate(matrix["summary"]):
        off_diagonal, diagonal, rank = tables[place // 3][1 + place % 3][1:4]
        for shown, side in ((off_diagonal, "off_diagonal"), (diagonal, "diagonal")):
            wanted = [row[side][metric] for metric in ("accuracy", "macro_f1")]
            assert [words(one) for one in of_class(shown, "value")] == [
                percent(x) if x is not None else "–" for x in wanted
            ]
        assert words(rank) == str(row["rank"] or "–")


def check_details(shown: Element, cell: dict[str, Any]) -> None:
    assert len(of_class(shown, "run")) == len(cell["runs"])
    for drawn, run in zip(of_class(shown, "run"), cell["runs"], strict=True):
        scores, classes, confusion, *_ = drawn.iter("table")
        rows = {words(row[0]): [words(one) for one in row][1:] for row in scores.iter("tr")}
        assert rows["accuracy"][0] == percent(run["scores"]["accuracy"])
        assert rows["Cohen's kappa"][0] == f"{run['scores']['cohen_kappa']:.3f}"
        assert rows["top-2 accuracy"][0] == percent(run["probability"]["top2"])
        assert rows["log loss (nats)"][0] == f"{run['probability']['nll']:.3f}" and rows["classwise ECE"][0] == "–"
        if run["unmasked"]:
            assert rows["macro-F1"][-1] == percent(run["unmasked"]["macro_f1"])
            assert "Without flagged rows (140 left): accuracy 43.2, macro-F1 12.3." in words(drawn)
        told = [[words(one) for one in row] for row in classes.iter("tr")][1:]
        shares = [[percent(x) for x in run["scores"][name]] for name in ("precision", "recall", "f1")]
        support = map(str, run["scores"]["support"])
        assert told == [list(one) for one in zip(run["scores"]["names"], *shares, support, strict=True)]
        counts = [[int(words(one)) for one in row.iter("td")] for row in confusion.iter("tr")][1:]
        assert counts == run["scores"]["confusion"]
        shades = [float(re.findall(r"[\d.]+", one.get("style", ""))[0]) for one in confusion.iter("td")]
        of_row = np.array(counts) / np.sum(counts, 1, keepdims=True)
        assert np.abs(np.array(shades) - 100 * of_row.ravel()).max() <= 0.5
        assert f"The order is right for {run['checkpoint']}." in words(drawn)
        check_groups(drawn, run["groups"]["age"])


def check_groups(drawn: Element, found: dict[str, Any]) -> None:
    rates, gaps = [[[words(one) for one in row] for row in one.iter("tr")][1:] for one in drawn.iter("table")][-2:]
    assert [row[:2] for row in rates] == [["old", "50"], ["young", "50"]]
    first = found["groups"][0]["accuracy"]
    assert rates[0][2:4] == [percent(first["value"]), f"[{percent(first['low'])}, {percent(first['high'])}]"]
    assert {row[0].replace(" ", "_"): row[1] for row in gaps} == {
        k: percent(g["value"]) for k, g in found["gaps"].items()
    }
    assert "Groups of too few rows: other (1). Rows without a value: 49." in words(drawn)


def test_links_lead_somewhere_and_ids_are_unique(matrix: dict[str, Any]) -> None:
    root = tree(page(matrix))
    ids = [one.get("id") for one in root.iter() if one.get("id")]
    assert len(ids) == len(set(ids))
    links = [one.get("href", "") for one in root.iter("a")]
    assert {link for link in links if not link.startswith("#")} == {"matrix.json", "matrix.md", "matrix.tex"}
    named = [value for one in root.iter() for value in re.findall(r"url\(#(.*?)\)", one.get("fill", ""))]
    assert named and {link[1:] for link in links if link.startswith("#")} | set(named) <= set(ids)


@pytest.mark.parametrize(("status", "word"), [("fail", "Do not trust all of it"), ("warn", "Needs a look")])
def test_the_header_says_the_worst_status(status: str, word: str) -> None:
    matrix = example_matrix(["one"], ["two"])
    matrix["banners"] = [{**matrix["banners"][0], "status": status}]
    assert [words(one) for one in of_class(tree(page(matrix)), "overall")] == [word]


def test_without_banners_the_guards_speak() -> None:
    matrix = example_matrix(["one"], ["two"])
    matrix["banners"] = []
    assert [words(one) for one in of_class(tree(page(matrix)), "overall")] == ["Clean"]
    for cell in matrix["cells"]:
        cell["runs"][0]["guards"] = []
    root = tree(page(matrix))
    assert [words(one) for one in of_class(root, "overall")] == ["Not checked"]
    assert "warnings" not in [part.get("id") for part in root.iter("section")]


def without_numbers(value: Any) -> Any:
    """Every float gone, as where nothing is defined; counts stay."""
    if isinstance(value, dict):
        return {key: without_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_numbers(item) for item in value]
    return None if isinstance(value, float) else value


def unknown() -> dict[str, Any]:
    matrix = without_numbers(example_matrix(seeds=[None]))
    for run in (run for cell in matrix["cells"] for run in cell["runs"]):
        run["reliability"]["upper"] = [(place + 1) / 15 for place in range(15)]  # bounds are always known
    return matrix


def empty() -> dict[str, Any]:
    return {**example_matrix(), "tests": [], "recipes": [], "cells": [], "summary": [], "banners": [], "baseline": None}


def alone() -> dict[str, Any]:
    """A single recipe on its own test set: nothing is off the diagonal."""
    return {**example_matrix(["one"], ["own"]), "baseline": None}


def sparse() -> dict[str, Any]:
    """Cells and runs that were never measured."""
    matrix = example_matrix()
    matrix["cells"] = [{**cell, "runs": [], "mean": {}, "reasons": []} for cell in matrix["cells"][::2]]
    return matrix


@pytest.mark.parametrize("make", [unknown, empty, alone, sparse])
@pytest.mark.parametrize("name", WRITERS)
def test_what_is_missing_is_a_dash(name: str, make: Callable[[], dict[str, Any]]) -> None:
    written = WRITERS[name](make())
    assert not re.search(r"\b(None|nan|null)\b", written)
    assert make is empty or ("--" if name == "latex" else "–") in written
    if name == "latex":
        check_latex(written)
    if name == "page":
        tree(written)


def hostile() -> dict[str, Any]:
    matrix = example_matrix([HOSTILE, HOSTILE + "2"], [HOSTILE])
    matrix["banners"][0].update(message=HOSTILE, guard=HOSTILE)
    for cell in matrix["cells"]:
        cell.update(contaminated=True, reasons=[HOSTILE])
        for run in cell["runs"]:
            run["guards"][0].update(name=HOSTILE, threshold=HOSTILE, message=HOSTILE)
            run["groups"][HOSTILE] = run["groups"].pop("age")
            run["groups"][HOSTILE]["groups"][0]["name"] = HOSTILE
            run["groups"][HOSTILE]["too_small"] = {HOSTILE: 3}
    return matrix


def test_the_matrix_of_the_evaluation_can_be_shown() -> None:
    """Three seeds, a recipe that learned from a test set, a network with contempt, a test set without disgust."""
    names = [("base", s, {}) for s in range(3)] + [("other", s, {}) for s in range(3)]
    names += [("leaky", 0, {"trained_on": ("rafdb:test",)}), ("eight", 0, {"classes": (*EXPRESSIONS, "contempt")})]
    candidates = [candidate(f"{recipe}-{s}", recipe, s, **more) for recipe, s, more in names]
    ages = [{"age": "old" if i % 2 else "young"} for i in range(300)]
    tests = [a_test_set("rafdb", attributes=ages), a_test_set("ckplus", labels(210, 1, (0, 2, 3, 4, 5, 6)))]
    sure = {"base": 1.0, "other": 2.5, "leaky": 1.0, "eight": 1.0}
    answers = {
        (one.name, test.name, variant): probabilities(test.labels, sure[one.recipe], i, len(one.classes))
        for i, one in enumerate(candidates)
        for test in tests
        for variant in VARIANTS
    }
    config = MatrixConfig(baseline="base", replicates=100, permutations=200)
    matrix = json.loads(json.dumps(evaluated(candidates, tests, answers, config)))
    root, rows = tree(page(matrix)), [[words(one) for one in row] for row in rendered(matrix).iter("tr")]
    check_latex(latex(matrix))
    for v, r, t, cell in places(matrix):
        assert f"F1 {said(cell, 'macro_f1')}" in rows[5 * v + 1 + r][1 + t] and said(cell, "accuracy") in terminal(
            matrix
        )
        assert ("†" in rows[5 * v + 1 + r][1 + t]) == cell["contaminated"] == (cell["recipe"] == "leaky" and t == 0)
    assert all("↑" in cell for cell in rows[2][1:3]) and "rafdb:test" in words(of_class(root, "notes")[0])
    ran = sum(len(cell["runs"]) for cell in matrix["cells"])
    assert len(of_class(root, "run")) == ran and len(of_class(root, "guards")) == ran


def test_hostile_names_stay_names() -> None:
    matrix, name = hostile(), " ".join(HOSTILE.split())
    shown = rendered(matrix)
    assert [words(row[0]) for row in shown.iter("tr")][1] == name and not [*shown.iter("script")]
    assert len([*next(shown.iter("tr"))]) == 5
    root = tree(page(matrix))
    assert not [one for one in root.iter() if one.tag.endswith("script")]
    assert not [key for one in root.iter() for key in one.attrib if key.startswith("on")]
    assert words(root).count(name) > 40
    drawn = ElementTree.fromstring(svg(matrix))
    assert [*drawn.iter(f"{SVG}text")][1][0].text == HOSTILE
    check_latex(latex(matrix))
    assert name in terminal(matrix, 2000)


@given(st.text(st.characters(exclude_categories=("C",)), min_size=1))
@settings(max_examples=60, deadline=None)
def test_any_name_comes_through(name: str) -> None:
    matrix = _SMALL | {"banners": [{**_SMALL["banners"][0], "message": f"x{name}x"}]}
    wanted = " ".join(f"x{name}x".split())
    assert wanted in words(next(rendered(matrix).iter("blockquote")))
    check_latex(latex(matrix))
    plain = latex(matrix).split("one on two: ")[1].split("\\par")[0]
    assert unescaped(plain) == wanted


_SMALL = example_matrix(["one"], ["two"], variants=["original"])


def unescaped(written: str) -> str:
    """What LaTeX prints for escaped text."""
    written = written.replace("-{}", "-")
    symbols = {"textbackslash{}": "\\", "textasciitilde{}": "~", "textasciicircum{}": "^", "textbar{}": "|",
               "textless{}": "<", "textgreater{}": ">", "ldots{}": "…"}  # fmt: skip
    maths = {"pm": "±", "times": "×", "uparrow": "↑", "downarrow": "↓", "dagger": "†"}
    parts = re.findall(r"\\[a-z]+\{\}|\$\\[a-z]+\$|\{[\[\]*]\}|\\.|--|.", written)
    found = []
    for part in parts:
        if part.startswith("$"):
            found.append(maths[part[2:-1]])
        elif part == "--":
            found.append("–")
        elif part.startswith("{"):
            found.append(part[1])
        else:
            found.append(symbols.get(part[1:], part[1:]) if part.startswith("\\") else part)
    return "".join(found)


def test_the_terminal_has_every_number(matrix: dict[str, Any]) -> None:
    written = terminal(matrix)
    for _, _, _, cell in places(matrix):
        assert said(cell, "accuracy") in written and said(cell, "macro_f1") in written
    for row in matrix["summary"]:
        assert percent(row["off_diagonal"]["macro_f1"]) in written
    assert written.startswith("fail G7 training overlap, synthetic on fer2013") and f"†1 {CONTAMINATED}" in written
    narrow = terminal(matrix, 80)
    assert max(map(len, narrow.splitlines()[2:])) <= max(80, len(f"†1 {CONTAMINATED}"))


@pytest.mark.parametrize("name", WRITERS)
def test_a_report_can_be_made_again_from_the_file(name: str, matrix: dict[str, Any]) -> None:
    before = copy.deepcopy(matrix)
    assert WRITERS[name](matrix) == WRITERS[name](json.loads(json.dumps(matrix)))
    assert matrix == before


@pytest.fixture(scope="module")
def large() -> str:
    """Twelve recipes on eight test sets, long names among them, every fold open."""
    recipes = ["a-recipe-with-a-name-that-is-as-long-as-names-get-and-has-nowhere_to_break" + str(i) for i in range(12)]
    written = page(
        example_matrix(recipes, [f"test-set-with-quite-a-long-name-{i}" for i in range(8)], variants=["original"])
    )
    assert len(written.encode()) < 3e6
    return written.replace("<details", '<details open=""')


def test_nothing_is_fetched_and_nothing_runs(large: str) -> None:
    root = tree(large)
    assert not {one.tag for one in root.iter()} & {"script", "link", "iframe", "object", "embed", "base", "form", "img"}
    assert not re.search(r"@import|url\((?!#)", large)
    (policy,) = (one for one in root.iter("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy.get("content") == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_a_browser_shows_it_on_a_phone(large: str, tmp_path: Path) -> None:
    """In a frame 390 pixels wide, since a window of chromium cannot be that narrow."""
    measure = """<script>onload = () => {
        const inside = document.querySelector("iframe").contentDocument, root = inside.documentElement;
        const plots = [...inside.querySelectorAll(".plot svg")].filter(plot => plot.clientHeight > 500).length;
        document.title = [root.clientWidth, root.scrollWidth, plots].join(" ");
    }</script>"""
    frame = f'<iframe style="width:390px;height:800px;border:0" srcdoc="{escape(large)}"></iframe>'
    outer = tmp_path / "outer.html"
    outer.write_text(f"<!doctype html><title></title>{measure}{frame}", encoding="utf-8")
    done = browse(outer, tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    assert re.findall(r"<title>(.*?)</title>", done.stdout)[0] == "390 390 1"


@pytest.mark.parametrize(("scheme", "dark"), [("1", False), ("0", True)])
def test_a_browser_paints_it_light_and_dark(tmp_path: Path, scheme: str, dark: bool) -> None:
    path, shot = tmp_path / "page.html", tmp_path / "shot.png"
    path.write_text(page(example_matrix()), encoding="utf-8")
    flags = f"--screenshot={shot}", "--window-size=1200,1000", f"--blink-settings=preferredColorScheme={scheme}"
    done = browse(path, tmp_path / "profile", *flags)
    assert "CONSOLE" not in done.stderr, done.stderr
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (pixels[5, 5].mean() < 60) == dark
    teal = (pixels[..., 1] - pixels[..., 0] > 25) & (pixels[..., 1] >= pixels[..., 2])
    assert teal.sum() > 5000  # the heat of the plot
