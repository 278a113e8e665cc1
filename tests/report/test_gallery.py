"""The gallery of real datasets: what it says, what it cannot be made to say, and how a browser takes it."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from PIL import Image

from synthfer import images
from synthfer.planning.prompts import Config as PlanConfig
from synthfer.planning.prompts import build
from synthfer.report import gallery
from synthfer.report.contact_sheets import MAX_BYTES, SIDE, contact_sheets, thumbnail
from synthfer.report.dataset_counts import count_rows, grouped
from synthfer.report.html import render
from synthfer.sample import SCHEMA, Row, pixels_hash
from synthfer.store import Dataset, Spec
from tests.report.browser import browse

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<script>alert(1)</script> \"'><img src=http://evil.example/x onerror=alert(2)> &amp;"

Change = Callable[[Row, dict[str, Any]], None]


def drawn(row: Row, side: int) -> np.ndarray:
    """A plain face: a disc on a background whose colours follow the row."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    rng = np.random.default_rng(row.seed)
    pixels = np.full((side, side, 3), rng.integers(170, 240, 3), np.uint8)
    pixels[x**2 + (y * 0.85) ** 2 < 0.6] = rng.integers(90, 230, 3)
    for eye in (-0.3, 0.3):
        pixels[(x - eye) ** 2 + (y + 0.2) ** 2 < 0.01] = 20
    pixels[(abs(x) < 0.3) & (abs(y - 0.35 - (row.label - 3) * 0.3 * x**2) < 0.04)] = (150, 40, 50)
    return pixels


def record(row: Row, side: int, change: Change) -> dict[str, Any]:
    """A row as a sample, which `change` may make another."""
    body = images.encode(drawn(row, side))
    sample = {
        "sample_id": row.sample_id,
        "label": row.label,
        "split": row.split,
        "source": "test",
        "source_id": row.sample_id,
        "attributes": dict(row.attributes),
        "prompt": row.prompt,
        "seed": row.seed,
        "producer": "test",
        "decision": "accepted",
        "scores": [{"gate": "sharpness", "value": 0.5}],
        "width": side,
        "height": side,
        "pixels_hash": pixels_hash(images.decode(body)),
        "image": {"bytes": body, "path": None},
    }
    change(row, sample)
    if sample["decision"] == "failed":
        sample |= {"image": None, "pixels_hash": None, "width": None, "height": None}
    return sample


def some_left_out(row: Row, sample: dict[str, Any]) -> None:
    if row.index % 10 == 3:
        sample |= {"decision": "failed", "reason": f"blank picture: deviation 0.{row.index} of 255"}
    if row.index % 10 == 5:
        sample |= {"decision": "rejected", "reason": "the teacher disagrees"}


def unchanged(row: Row, sample: dict[str, Any]) -> None:
    """All rows as they are."""


def make(folder: Path, units: int = 7, side: int = 32, change: Change = some_left_out, **spec: Any) -> Dataset:
    """70 rows of the default preset in 7 units, of which the first `units` are committed; sealed if all are."""
    plan = build(PlanConfig(total=70))
    contract = {"plan": plan.spec(), "producer": {"model": "test", "weights": {"unet": "a" * 64}}, "image": {"q": 95}}
    dataset = Dataset.create(str(folder / "faces"), Spec(**{**contract, "rows": 70, "unit_size": 10, **spec}))
    for unit in range(units):
        records = [record(row, side, change) for row in plan.rows(dataset.spec.unit_rows(unit))]
        dataset.commit(unit, pa.Table.from_pylist(records, schema=SCHEMA), {})
    if units == dataset.spec.units:
        dataset.seal()
    return dataset


class Page(HTMLParser):
    """What is in a page: tags with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.tags or self.tags[-1][0] != "style":
            self.text += f"{data} "


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    folder = tmp_path_factory.mktemp("complete")
    dataset = make(folder)
    return dataset, gallery(dataset, folder / "new" / "page.html")


def row_of(page: Page, title: str) -> list[str]:
    """The words that follow an expression's name in the first table."""
    return page.text.split("per cell", 1)[1].split(f" {title} ", 1)[1].split()[:4]


def test_counts_are_those_of_the_dataset(complete: tuple[Dataset, Path]) -> None:
    dataset, path = complete
    page, manifest = Page(path), dataset.manifest
    assert manifest is not None and manifest.manifest_hash in page.text
    assert "Complete" in page.text and "Synthetic faces" in page.text
    for name, counts in manifest.counts.items():
        wanted = [10, *(counts.get(decision, 0) for decision in ("accepted", "rejected", "failed"))]
        assert row_of(page, name) == [str(number) for number in wanted]
    counted = count_rows(dataset)
    assert counted.rows == manifest.rows
    assert {name: dict(found) for name, found in counted.decisions.items()} == manifest.counts
    assert sum(sum(found.values()) for found in counted.values["gender"].values()) == counted.total("accepted")


def test_left_out_rows_are_shown_with_reasons(complete: tuple[Dataset, Path]) -> None:
    text = Page(complete[1]).text
    assert re.search(r"failed\s+blank picture: deviation # of #\s+7 rows", text)
    assert re.search(r"rejected\s+the teacher disagrees\s+7 rows", text)
    assert "blank picture: deviation 0.3 of 255" in text


def test_every_attribute_value_has_pictures(complete: tuple[Dataset, Path]) -> None:
    dataset, path = complete
    page = Page(path)
    alts = [attributes["alt"] or "" for name, attributes in page.tags if name == "img"]
    for values in count_rows(dataset).values.values():
        for value in values:
            assert any(value in alt.split(", ") for alt in alts)


def test_a_page_is_the_same_each_time(complete: tuple[Dataset, Path], tmp_path: Path) -> None:
    dataset, path = complete
    assert gallery(Dataset(dataset.uri), tmp_path / "again.html").read_bytes() == path.read_bytes()


def test_a_dataset_in_the_making(tmp_path: Path) -> None:
    page = Page(gallery(make(tmp_path, units=2), tmp_path / "page.html"))
    assert "In progress: 2 of 7 units" in page.text
    assert re.search(r"to come\s+50", page.text)
    empty = Page(gallery(make(tmp_path / "empty", units=0), tmp_path / "empty.html"))
    assert "In progress: 0 of 7 units" in empty.text
    assert "Settings" in empty.text


def test_nothing_is_fetched_and_nothing_runs(complete: tuple[Dataset, Path]) -> None:
    path = complete[1]
    check_self_contained(Page(path))
    assert not re.search(r"@import|url\(", path.read_text(encoding="utf-8"))


def check_self_contained(page: Page) -> None:
    for name, attributes in page.tags:
        assert name not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not any(key.startswith("on") for key in attributes)
        for key in ("src", "href", "srcset", "action", "poster"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/jpeg;base64,"))
    policy = [a["content"] for name, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def hostile(row: Row, sample: dict[str, Any]) -> None:
    some_left_out(row, sample)
    sample |= {"prompt": HOSTILE, "attributes": {**row.attributes, "trait": HOSTILE}}
    if sample["decision"] != "accepted":
        sample["reason"] = HOSTILE


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    settings = {"plan": {HOSTILE: HOSTILE}, "producer": {"nested": {HOSTILE: [HOSTILE] * 3}}}
    path = gallery(make(tmp_path, change=hostile, **settings), tmp_path / "page.html")
    page = Page(path)
    check_self_contained(page)
    assert "<script" not in path.read_text(encoding="utf-8")
    assert page.text.count(HOSTILE) > 20
    titles = [attributes["title"] for name, attributes in page.tags if name == "img"]
    assert titles and all(title is not None and title.startswith(HOSTILE) for title in titles)


def test_templates_escape_all_but_markup() -> None:
    """In text and in attributes; a value that a template names and nobody gave is an error."""
    banner = {"status": '"<', "guard": "&", "message": 1}
    texts = {"guard_title": lambda number: number, "banner_text": lambda banner: Markup("<b>")}
    written = render("matrix_warnings.html", banners=[banner], **texts)
    assert '<span class="badge status &#34;&lt;">&#34;&lt;</span> <b>&amp;</b>, <b></li>' in written
    with pytest.raises(UndefinedError):
        render("matrix_warnings.html", banners=[banner])


def noise(row: Row, sample: dict[str, Any]) -> None:
    pixels = np.random.default_rng(row.seed).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    sample["image"] = {"bytes": images.encode(pixels), "path": None}


def test_large_pictures_make_no_large_page(tmp_path: Path) -> None:
    small = thumbnail(record(build(PlanConfig(total=7))[0], 32, noise)["image"]["bytes"])
    assert small.uri is not None and len(small.uri) < 1.4 * 2 * MAX_BYTES
    path = gallery(make(tmp_path, change=noise), tmp_path / "page.html")
    assert path.stat().st_size < 5e6


def damaged(row: Row, sample: dict[str, Any]) -> None:
    if row.index < 10:
        sample["image"] = {"bytes": b"\xff\xd8 no picture", "path": None}


def test_an_unreadable_picture_is_said_to_be_one(tmp_path: Path) -> None:
    assert "unreadable picture" in Page(gallery(make(tmp_path, change=damaged), tmp_path / "page.html")).text


def photographs(row: Row, sample: dict[str, Any]) -> None:
    sample |= {"label": None, "image": {"bytes": images.encode(drawn(row, 200), None, "digitalCapture"), "path": None}}


def test_photographs_are_not_called_synthetic(tmp_path: Path) -> None:
    page = Page(gallery(make(tmp_path, change=photographs, plan={"read": "from a folder"}), tmp_path / "page.html"))
    assert "Synthetic faces" not in page.text and "treat them as pictures of real people" in page.text
    assert row_of(page, "unlabelled") == ["–", "70", "0", "0"]


def test_thumbnails_are_small_and_declare_what_their_original_does() -> None:
    row = build(PlanConfig(total=7))[0]
    made = thumbnail(images.encode(drawn(row, 300)[:, :200]))
    assert made.source_type == images.GENERATED and made.uri is not None
    body = base64.b64decode(made.uri.partition(",")[2])
    assert images.decode(body).shape == (SIDE, 75, 3)
    assert (images.digital_source_type(body) or "").endswith(images.GENERATED)
    assert thumbnail(b"").uri is None


def test_draws_are_bounded_and_in_plan_order(complete: tuple[Dataset, Path]) -> None:
    dataset, _ = complete
    ids = [sample_id for batch in dataset.scan(columns=["sample_id"]) for sample_id in batch["sample_id"].to_pylist()]
    place = {sample_id: number for number, sample_id in enumerate(ids)}
    found = contact_sheets(
        dataset, {("expression", "fear"): 2, ("gender", "male"): 5, ("gender", "nobody"): 3}, max_units=4
    )
    assert {group: len(samples) for group, samples in found.groups.items()} == {
        ("expression", "fear"): 2,
        ("gender", "male"): 5,
        ("gender", "nobody"): 0,
    }
    for samples in found.groups.values():
        places = [place[sample["sample_id"]] for sample in samples]
        assert places == sorted(places)
        assert {number // 10 for number in places} <= {0, 2, 4, 6}
    assert found.units == 4


def test_the_job_writes_the_page(complete: tuple[Dataset, Path], tmp_path: Path) -> None:
    words = [sys.executable, "jobs/gallery.py", f"out={tmp_path}/page.html", "--json"]
    done = subprocess.run([*words, f"uri={complete[0].uri}"], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["bytes"] == Path(told["page"]).stat().st_size
    lost = subprocess.run([*words, f"uri={tmp_path}/nowhere"], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert lost.returncode == 2 and "nowhere" in json.loads(lost.stdout)["error"]


def test_a_browser_shows_the_page(complete: tuple[Dataset, Path], tmp_path: Path) -> None:
    path = complete[1]
    done = browse(path, tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    (tmp_path / "dom.html").write_text(done.stdout, encoding="utf-8")
    seen, written = Page(tmp_path / "dom.html"), Page(path)
    assert [name for name, _ in seen.tags if name != "tbody"] == [name for name, _ in written.tags if name != "tbody"]
    assert " ".join(seen.text.split()) == " ".join(written.text.split())


@pytest.mark.parametrize(("scheme", "dark"), [("1", False), ("0", True)])
@pytest.mark.parametrize("width", [500, 1200])
def test_a_browser_paints_it_light_dark_and_narrow(
    complete: tuple[Dataset, Path], tmp_path: Path, scheme: str, dark: bool, width: int
) -> None:
    shot = tmp_path / "shot.png"
    flags = f"--screenshot={shot}", f"--window-size={width},1600", f"--blink-settings=preferredColorScheme={scheme}"
    browse(complete[1], tmp_path / "profile", *flags)
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (pixels[5, 5].mean() < 60) == dark
    assert np.ptp(pixels[5:, width - 3], axis=0).max() < 60  # nothing runs over the edge
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500


def test_counting_in_many_small_tables_is_the_same(complete: tuple[Dataset, Path]) -> None:
    def rows_by_group(most: int) -> dict[str, int]:
        found: dict[str, int] = {}
        for table in grouped(complete[0].scan(columns=["label", "decision", "attributes"]), most):
            for group in table.to_pylist():
                rows = group.pop("rows")
                found[str(group)] = found.get(str(group), 0) + rows
        return found

    assert rows_by_group(5) == rows_by_group(1000)
    assert sum(rows_by_group(5).values()) == 70
