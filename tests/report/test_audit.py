"""The audit's page: what it says of each guard and pair, what it cannot be made to say, and how a browser takes it."""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from synthfer import images
from synthfer.audit.result import AuditResult
from synthfer.expressions import EXPRESSIONS
from synthfer.guards.verdict import PAIRS, Guard, Status, Verdict
from synthfer.report.audit import PER_GUARD, page, shown
from tests.report.browser import browse

HOSTILE = "<script>alert(1)</script> \"'><img src=http://evil.example/x onerror=alert(2)> &amp;"
FACES, CROWD = "s3://bucket/imports/faces", "file:///data/crowd"


class ParsedPage(HTMLParser):
    """A parsed page: its tags, its words, and which of them each element holds."""

    def __init__(self, written: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[tuple[str, dict[str, str], int]] = []
        self._said: list[tuple[dict[str, str], str]] = []
        self.feed(written)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.tags.append((tag, given))
        if tag not in ("img", "meta"):
            self._open.append((tag, given, len(self.text)))

    def handle_endtag(self, tag: str) -> None:
        name, given, start = self._open.pop()
        assert name == tag, f"<{name}> is closed by </{tag}>"
        self._said.append((given, " ".join(self.text[start:].split())))

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] != "style":
            self.text += f"{data} "

    def said(self, name: str) -> list[str]:
        """The words of all elements of this class."""
        return [words for given, words in self._said if name in given.get("class", "").split()]

    def all(self, tag: str) -> list[dict[str, str]]:
        return [given for name, given in self.tags if name == tag]


def end(side: str, sample_id: str, label: int | None = 3, dataset: str = FACES, split: str | None = None) -> dict:
    return {
        "side": side,
        "sample_id": sample_id,
        "dataset": dataset,
        "split": split or side,
        "label": label,
        "source_id": f"root of {sample_id}",
    }


def pair(left: Mapping, right: Mapping, status: str = "fail", guard: str = "G2", score: float | None = 0.5) -> dict:
    named = {f"left_{k}": v for k, v in left.items()} | {f"right_{k}": v for k, v in right.items()}
    return {"guard": guard, "status": status, "score": score, "detail": f"{guard} detail", **named}


def pairs(number: int, guard: str = "G2", status: str = "fail") -> list[dict]:
    return [
        pair(end("train", f"{guard}-{status}-l{i}"), end("test", f"{guard}-{status}-r{i}"), status, guard)
        for i in range(number)
    ]


def verdict(guard: str = "G2", status: Status = "fail", **more: Any) -> Verdict:
    words = {"threshold": "any pair fails", "message": f"what {guard} found"}
    return Verdict(guard=Guard(guard), status=status, **{**words, **more})


def audit(verdicts: Sequence[Verdict], rows: Sequence[dict] = (), **sides: Mapping[str, Any]) -> AuditResult:
    train = {"uris": [FACES], "hashes": ["aa11"], "splits": ["train", "val"], "rows": 28709}
    test = {"uris": [CROWD], "hashes": ["bb22"], "splits": ["test"], "rows": 3589}
    return AuditResult(
        sides={"train": train, "test": test, **sides},
        verdicts=tuple(verdicts),
        pairs=pa.Table.from_pylist(list(rows), schema=PAIRS),
        flagged={"train": 17, "test": 1234},
    )


def plain(red: int, green: int, blue: int, side: int = 48) -> bytes:
    return images.encode(np.full((side, side, 3), (red, green, blue), np.uint8))


def colour(uri: str) -> list[int]:
    """The mean colour of an inline picture."""
    return images.decode(base64.b64decode(uri.partition(",")[2])).mean((0, 1)).round().astype(int).tolist()


def mixed() -> AuditResult:
    """All four statuses, pairs of both kinds, and more than one guard can show."""
    verdicts = [
        verdict("G1", "skipped", message="No sample names its source."),
        verdict("G2", "fail", numbers={"pairs": 1234, "share_of_test": 0.34382, "smallest": None}),
        verdict("G3", "pass", threshold="6 fails & 10 warns"),
        verdict("G6", "warn"),
    ]
    return audit(verdicts, [*pairs(10, status="warn"), *pairs(1224), *pairs(3, "G6", "warn")])


@pytest.mark.parametrize(
    ("statuses", "badge"),
    [
        (["pass", "warn", "fail", "skipped"], "Contaminated"),
        (["pass", "warn", "skipped"], "Needs a look"),
        (["skipped", "pass"], "Clean"),
        (["skipped"], "Not checked"),
        ([], "Not checked"),
    ],
)
def test_the_header_says_the_worst_status(statuses: list[Status], badge: str) -> None:
    written = page(audit([verdict(f"G{i}", status) for i, status in enumerate(statuses, 1)]), {})
    assert ParsedPage(written).said("overall") == [badge]


def test_every_guard_is_listed_with_its_status_in_words() -> None:
    seen = ParsedPage(page(mixed(), {}))
    table = seen.said("guards")[0]
    for guard in mixed().verdicts:
        assert f"{guard.guard.value} {guard.guard.label} {guard.status} {guard.threshold} {guard.message}" in table
    assert "4 guards: 1 failed, 1 to look at, 1 passed, 1 skipped" in seen.text
    assert seen.said("numbers") == ["Numbers pairs 1,234 share of test 0.3438 smallest –"]
    assert {given.get("scope") for given in seen.all("th")} == {"row", "col"}


def test_both_sides_are_named_with_their_hashes_and_rows() -> None:
    two = {"uris": [FACES, CROWD], "hashes": ["aa11", "bb22"], "splits": ["train", "val"], "rows": 32298}
    seen = ParsedPage(page(audit([], train=two), {}))
    assert seen.said("compared")[0].endswith(f"Training train, val {FACES} aa11 {CROWD} bb22 Test test {CROWD} bb22")
    assert seen.said("card") == [
        "training rows 32,298",
        "test rows 3,589",
        "training rows in failing pairs 17",
        "test rows in failing pairs 1,234",
    ]
    assert "faces + crowd against crowd" in seen.text


def test_credentials_in_a_uri_are_not_shown() -> None:
    secret = "s3://key:secret@bucket/faces"
    side = {"uris": [secret], "hashes": ["aa11"], "splits": ["train"], "rows": 1}
    written = page(audit([verdict()], [pair(end("train", "l", dataset=secret), end("test", "r"))], train=side), {})
    assert "secret" not in written and "s3://bucket/faces" in written


def test_each_guard_shows_its_worst_pairs_failing_ones_first() -> None:
    ids = shown(mixed())
    wanted = [f"G2-fail-{end}{i}" for i in range(PER_GUARD) for end in "lr"]
    assert ids == wanted + [f"G6-warn-{end}{i}" for i in range(3) for end in "lr"]
    few = audit([verdict()], [*pairs(2, status="warn"), *pairs(1)])
    assert shown(few) == ["G2-fail-l0", "G2-fail-r0", "G2-warn-l0", "G2-warn-r0", "G2-warn-l1", "G2-warn-r1"]
    same = [pair(end("train", "one"), end("test", name)) for name in ("a", "b")]
    assert shown(audit([verdict()], same)) == ["one", "a", "b"]


def test_what_is_not_shown_is_counted() -> None:
    seen = ParsedPage(page(mixed(), {}))
    assert seen.said("count") == [
        "24 of 1,234 pairs shown; all in pairs.parquet",
        "3 of 3 pairs shown; all in pairs.parquet",
    ]
    assert len(seen.said("pair")) == 27


def test_guards_without_pairs_have_no_section_and_links_lead_somewhere() -> None:
    seen = ParsedPage(page(mixed(), {}))
    sections = [given["id"] for given in seen.all("section")]
    assert sections == ["compared", "guards", "g2-identical-pixels", "g6-conflicting-labels"]
    links = [given["href"] for given in seen.all("a")]
    assert links.count("#g6-conflicting-labels") == 2 and {link[1:] for link in links} == set(sections)


def test_left_stands_left_and_each_picture_with_its_own_caption() -> None:
    rows = [
        pair(end("train", "a" * 32, 3, split="val"), end("test", "b" * 32, None, CROWD), score=0.98765),
        pair(end("train", "c" * 32, 0), end("train", "d" * 32, 6, CROWD), "warn", score=None),
    ]
    colours = {"a" * 32: (200, 30, 30), "b" * 32: (30, 200, 30), "c" * 32: (30, 30, 200), "d" * 32: (200, 200, 30)}
    seen = ParsedPage(page(audit([verdict()], rows), {name: plain(*rgb) for name, rgb in colours.items()}))
    found = seen.all("img")
    for given, (name, rgb) in zip(found, colours.items(), strict=True):
        assert given["title"] == f"{name}\nsource root of {name}"
        assert np.abs(np.subtract(colour(given["src"]), rgb)).max() <= 3
    assert [given["alt"] for given in found[:2]] == ["Training picture, val, happy", "Test picture, test, unlabelled"]
    first, second = seen.said("pair")
    both = "Training · val happy faces aaaaaaaa… Test · test unlabelled crowd bbbbbbbb…"
    assert first == f"{both} fail score 0.9877 G2 detail"
    assert second.endswith("Training · train surprise crowd dddddddd… warn labels differ score – G2 detail")
    assert [given["title"] for given in seen.all("code") if "title" in given] == list(colours)


def test_only_two_different_labels_are_a_conflict() -> None:
    labels = [(0, 0), (None, 0), (0, None), (None, None), (0, 6), (6, 0)]
    rows = [pair(end("train", f"l{i}", left), end("test", f"r{i}", right)) for i, (left, right) in enumerate(labels)]
    marked = ["labels differ" in words for words in ParsedPage(page(audit([verdict()], rows), {})).said("pair")]
    assert marked == [False, False, False, False, True, True]


def test_datasets_of_the_same_name_are_told_apart() -> None:
    one, other = "s3://bucket/2024/faces", "s3://bucket/2025/faces"
    rows = [pair(end("train", "l", dataset=one), end("test", "r", dataset=other))]
    sides = {"uris": [one], "hashes": ["aa11"], "splits": [], "rows": 1}
    seen = ParsedPage(page(audit([verdict()], rows, train=sides), {}))
    assert re.search(r"2024/faces l….*2025/faces r…", " ".join(seen.text.split()))
    assert {one, other} <= {given.get("title") for given in seen.all("span")}


def test_one_dataset_can_be_compared_with_itself() -> None:
    side = {"uris": [FACES], "hashes": ["aa11"], "splits": ["test"], "rows": 1}
    assert "faces: train against test" in ParsedPage(page(audit([], test=side), {})).text


def test_a_placeholder_stands_for_what_cannot_be_shown() -> None:
    rows = [pair(end("train", "gone"), end("test", "damaged")), pair(end("train", "fine"), end("test", "gone"))]
    seen = ParsedPage(page(audit([verdict()], rows), {"damaged": b"\xff\xd8 no picture", "fine": plain(9, 9, 9)}))
    assert seen.said("broken") == ["picture missing", "unreadable picture", "picture missing"]
    assert [given["title"].split("\n")[0] for given in seen.all("img")] == ["fine"]


def test_pictures_of_samples_that_are_not_shown_stay_out() -> None:
    written = page(audit([verdict()], pairs(1)), {"stranger": plain(1, 2, 3)})
    assert "stranger" not in written and not ParsedPage(written).all("img")


def check_self_contained(written: str) -> None:
    seen = ParsedPage(written)
    for name, given in seen.tags:
        assert name not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not any(key.startswith("on") for key in given)
        for key in ("src", "href", "srcset", "action", "poster"):
            assert given.get(key, "#").startswith(("#", "data:image/jpeg;base64,"))
    policy = [given["content"] for given in seen.all("meta") if given.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not re.search(r"@import|url\(", written)


def test_nothing_is_fetched_and_nothing_runs() -> None:
    audited = mixed()
    check_self_contained(page(audited, dict.fromkeys(shown(audited), plain(90, 120, 150))))


def test_hostile_text_stays_text() -> None:
    words = dict.fromkeys(("threshold", "message"), HOSTILE)
    bad = verdict("G2", "fail", numbers={HOSTILE: 1.5}, **words)
    ends = [{**end(side, HOSTILE + side, 1, HOSTILE, HOSTILE), "source_id": HOSTILE} for side in ("train", "test")]
    rows = [{**pair(*ends), "detail": HOSTILE}]
    side = {"uris": [HOSTILE], "hashes": [HOSTILE], "splits": [HOSTILE], "rows": 1}
    hostile = audit([bad], rows, train=side, test=side)
    written = page(hostile, {HOSTILE + "train": plain(1, 2, 3)})
    check_self_contained(written)
    seen = ParsedPage(written)
    assert "<script" not in written and seen.text.count(HOSTILE) > 10
    (picture,) = seen.all("img")
    assert picture["title"].startswith(HOSTILE) and HOSTILE in picture["alt"]


def test_the_page_warns_about_real_people() -> None:
    assert "may show real people" in ParsedPage(page(audit([]), {})).text


def test_large_pictures_make_no_large_page() -> None:
    guards = list(Guard)
    audited = audit([verdict(guard) for guard in guards], [row for guard in guards for row in pairs(30, guard)])
    noise = images.encode(np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    written = page(audited, dict.fromkeys(shown(audited), noise))
    assert len(ParsedPage(written).all("img")) == 12 * PER_GUARD * 2
    assert len(written.encode()) < 5e6


def test_the_same_audit_gives_the_same_page() -> None:
    audited = mixed()
    pictures = {name: plain(i, 2 * i, 3 * i) for i, name in enumerate(shown(audited))}
    assert page(audited, pictures) == page(mixed(), dict(reversed(pictures.items())))


@pytest.fixture(scope="module")
def faces() -> str:
    """A page with drawn faces, long names and many words."""
    from synthfer.sources.avatars import draw, sample_attributes

    long = "file:///data/" + "a-name-that-is-as-long-as-names-get-and-has-nowhere_to_break_" * 3
    drawn = [sample_attributes(seed) for seed in range(12)]
    ends = [
        end(side, f"{side}{i}" + "0" * 26, EXPRESSIONS.index(face.expression), long)
        for i, face in enumerate(drawn)
        for side in ("train", "test")
    ]
    rows = [pair(*ends[2 * i : 2 * i + 2], "fail" if i < 6 else "warn", score=1 - i / 99) for i in range(12)]
    pictures = {name["sample_id"]: images.encode(draw(drawn[i // 2])) for i, name in enumerate(ends[:-1])}
    side = {"uris": [long, FACES, CROWD], "hashes": ["ab" * 32] * 3, "splits": ["train"], "rows": 10**8}
    words = verdict(numbers={"a_long_name_of_a_number": 103034621}, threshold="words " * 30, message="words " * 60)
    return page(audit([words, verdict("G3", "pass")], rows, train=side), pictures)


def test_a_browser_shows_it_on_a_phone(faces: str, tmp_path: Path) -> None:
    """In a frame 390 pixels wide, since a window of chromium cannot be that narrow."""
    measure = """<script>onload = () => {
        const inside = document.querySelector("iframe").contentDocument, root = inside.documentElement;
        const drawn = [...inside.images].filter(image => image.naturalWidth > 0).length;
        document.title = [root.clientWidth, root.scrollWidth, drawn].join(" ");
    }</script>"""
    frame = f'<iframe style="width:390px;height:800px;border:0" srcdoc="{escape(faces)}"></iframe>'
    outer = tmp_path / "outer.html"
    outer.write_text(f"<!doctype html><title></title>{measure}{frame}", encoding="utf-8")
    done = browse(outer, tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    assert re.findall(r"<title>(.*?)</title>", done.stdout)[0] == "390 390 23"


@pytest.mark.parametrize(("scheme", "dark"), [("1", False), ("0", True)])
def test_a_browser_paints_it_light_and_dark(faces: str, tmp_path: Path, scheme: str, dark: bool) -> None:
    path, shot = tmp_path / "page.html", tmp_path / "shot.png"
    path.write_text(faces, encoding="utf-8")
    flags = f"--screenshot={shot}", "--window-size=1200,1000", f"--blink-settings=preferredColorScheme={scheme}"
    done = browse(path, tmp_path / "profile", *flags)
    assert "CONSOLE" not in done.stderr, done.stderr
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (pixels[5, 5].mean() < 60) == dark
    assert len(np.unique(pixels @ (1 << 16, 1 << 8, 1))) > 500
