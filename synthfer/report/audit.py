"""The audit's page: what the guards said about training and test data, and the pictures that are their evidence."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc

from synthfer.evaluation.verdict import Audit, Status, Verdict
from synthfer.report.markup import Markup, anchor, document, render, table, tag
from synthfer.report.pictures import dot, picture
from synthfer.report.sheets import Thumbnail, thumbnail
from synthfer.report.tally import expression_of

PER_GUARD = 24
_OVERALL: Mapping[Status, tuple[str, str]] = {
    "fail": ("Contaminated", "A guard failed: do not rely on scores from these data until its cause is removed."),
    "warn": ("Needs a look", "No guard failed, but one found something that a person should judge."),
    "pass": ("Clean", "No guard that ran found anything."),
    "skipped": ("Not checked", "No guard ran, so this page says nothing about the data."),
}
_TALLY: Mapping[Status, str] = {"fail": "failed", "warn": "to look at", "pass": "passed", "skipped": "skipped"}
_SIDES = {"train": "Training", "test": "Test"}

Pair = dict[str, Any]
"""A row of `verdict.PAIRS`."""


def shown(audit: Audit) -> list[str]:
    """Ids of the samples in the page's pairs: the worst 24 pairs of each guard, failing ones first. Each id once."""
    pairs = [pair for verdict in audit.verdicts for pair in _worst(audit, verdict)[0]]
    return list(dict.fromkeys(pair[f"{end}_sample_id"] for pair in pairs for end in ("left", "right")))


def page(audit: Audit, pictures: Mapping[str, bytes]) -> str:
    """One HTML page, at most about 5 MB with a dozen guards.

    `pictures`: the image files of the samples that `shown` names, by sample id; a placeholder stands for a missing or
    unreadable one. Each side's `uris` and `hashes` stand in the same order. The same audit gives the same page.
    """
    thumbnails = {name: thumbnail(pictures[name]) for name in shown(audit) if name in pictures}
    found = {verdict.guard: _worst(audit, verdict) for verdict in audit.verdicts}
    names = _short_names(audit, [pair for pairs, _ in found.values() for pair in pairs])
    evidence = {
        _title(verdict): _evidence(verdict, *found[verdict.guard], names, thumbnails)
        for verdict in audit.verdicts
        if found[verdict.guard][1]
    }
    parts = {"Compared": _compared(audit), "Guards": _guards(audit, found), **evidence}
    title = _heading(audit, names)
    return document(title, ["gallery.css", "audit.css"], _header(audit, title), parts, _footer())


def _worst(audit: Audit, verdict: Verdict) -> tuple[list[Pair], int]:
    """A guard's pairs to show, and how many it has."""
    own = pc.equal(audit.pairs["guard"], verdict.guard)
    wanted = [pc.and_(own, pc.equal(audit.pairs["status"], status)) for status in ("fail", "warn")]
    places = np.concatenate([np.flatnonzero(of_status) for of_status in wanted])
    worst = [audit.pairs.slice(place, 1).to_pylist()[0] for place in places[:PER_GUARD].tolist()]
    return worst, len(places)


def _title(verdict: Verdict) -> str:
    return f"{verdict.guard} {verdict.name}"


def _public(uri: str) -> str:
    """A URI without user name and password, should it hold any."""
    return re.sub(r"(?<=://)[^/]*@", "", uri)


def _short_names(audit: Audit, pairs: Iterable[Pair]) -> dict[str, str]:
    """Datasets by the last parts of their URIs, as few as tell them apart."""
    uris = {uri for side in audit.sides.values() for uri in side["uris"]}
    uris |= {pair[f"{end}_dataset"] for pair in pairs for end in ("left", "right")} - {None}
    parts = {uri: _public(uri).rstrip("/").split("/") for uri in sorted(uris)}
    names: dict[str, str] = {}
    for length in range(1, max(map(len, parts.values()), default=0) + 1):
        names = {uri: "/".join(part[-length:]) for uri, part in parts.items()}
        if len(set(names.values())) == len(names):
            break
    return names


def _heading(audit: Audit, names: Mapping[str, str]) -> str:
    sides = [[names[uri] for uri in audit.sides[side]["uris"]] for side in _SIDES]
    train, test = (f"{one[0]} and {len(one) - 1} more" if len(one) > 2 else " + ".join(one) for one in sides)
    return f"{train}: train against test" if sides[0] == sides[1] else f"{train} against {test}"


def _status(status: Status) -> Markup:
    return tag("span", status, class_=f"badge status {status}")


def _header(audit: Audit, title: str) -> Markup:
    word, meaning = _OVERALL[audit.status]
    badge = tag("strong", word, class_=f"badge status overall {audit.status}")
    statuses = [verdict.status for verdict in audit.verdicts]
    counts = ", ".join(f"{statuses.count(status)} {said}" for status, said in _TALLY.items() if status in statuses)
    return tag(
        "header",
        tag("p", "Audit of training data against test data", class_="kicker"),
        tag("h1", title),
        tag("p", badge, tag("span", meaning), class_="said"),
        tag("p", f"{len(statuses)} guards: {counts}" if counts else "0 guards", class_="hash"),
    )


def _compared(audit: Audit) -> Markup:
    figures = {f"{word.lower()} rows": audit.sides[side]["rows"] for side, word in _SIDES.items()}
    figures |= {f"{word.lower()} rows in failing pairs": audit.flagged.get(side, 0) for side, word in _SIDES.items()}
    cards = [
        tag(
            "div",
            tag("dt", title),
            tag("dd", _number(number)),
            class_="card failed" if number and "pairs" in title else "card",
        )
        for title, number in figures.items()
    ]
    rows = [[word, _splits(audit.sides[side]), _datasets(audit.sides[side])] for side, word in _SIDES.items()]
    sides = tag("article", table(["Side", "Splits", "Datasets and their hashes"], rows, "compared"))
    return render([tag("h2", "What was compared"), tag("dl", cards, class_="cards"), sides])


def _splits(side: Mapping[str, Any]) -> str:
    return ", ".join(side["splits"]) or "–"


def _datasets(side: Mapping[str, Any]) -> Markup:
    both = zip(side["uris"], side["hashes"], strict=True)
    return tag("ul", [tag("li", _public(uri), " ", tag("code", digest)) for uri, digest in both], class_="datasets")


def _guards(audit: Audit, found: Mapping[str, tuple[list[Pair], int]]) -> Markup:
    rows = [
        [
            verdict.guard,
            verdict.name,
            _status(verdict.status),
            tag("td", verdict.threshold, class_="threshold"),
            tag("td", _finding(verdict, found[verdict.guard][1]), class_="finding"),
        ]
        for verdict in audit.verdicts
    ]
    head = ["Guard", "Name", "Status", "Threshold", "Finding"]
    return render([tag("h2", "Guards"), tag("article", table(head, rows, "guards"))])


def _finding(verdict: Verdict, pairs: int) -> list[Any]:
    numbers = [[tag("dt", name.replace("_", " ")), tag("dd", _number(n))] for name, n in verdict.numbers.items()]
    fold = tag("details", tag("summary", "Numbers"), tag("dl", numbers), class_="numbers") if numbers else None
    link = tag("a", "See the pairs", href=f"#{anchor(_title(verdict))}") if pairs else None
    return [verdict.message, " ", link, fold]


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"


def _evidence(
    verdict: Verdict, pairs: list[Pair], total: int, names: Mapping[str, str], thumbnails: Mapping[str, Thumbnail]
) -> Markup:
    listed = [_pair(pair, names, thumbnails) for pair in pairs]
    count = f"{len(pairs):,} of {total:,} pairs shown; all in "
    return render(
        [
            tag("h2", _title(verdict), " ", _status(verdict.status)),
            tag("p", verdict.message, class_="lead"),
            tag("ul", listed, class_="evidence"),
            tag("p", count, tag("code", "pairs.parquet"), class_="count"),
        ]
    )


def _pair(pair: Pair, names: Mapping[str, str], thumbnails: Mapping[str, Thumbnail]) -> Markup:
    ends = [{key.removeprefix(end): pair[key] for key in pair if key.startswith(end)} for end in ("left_", "right_")]
    left, right = (end["label"] for end in ends)
    conflict = left is not None and right is not None and left != right
    mark = tag("span", "labels differ", class_="badge conflict") if conflict else None
    score = tag("span", "score ", tag("b", _number(pair["score"])), class_="score")
    return tag(
        "li",
        tag("div", [_figure(end, names, thumbnails) for end in ends], class_="two"),
        tag("p", _status(pair["status"]), mark, score, class_="badges"),
        tag("p", pair["detail"]),
        class_=f"pair {pair['status']}",
    )


def _figure(end: Mapping[str, Any], names: Mapping[str, str], thumbnails: Mapping[str, Thumbnail]) -> Markup:
    side, expression, name, uri = _SIDES[end["side"]], expression_of(end["label"]), end["sample_id"], end["dataset"]
    split = end["split"] or "no split"
    hover = f"{name}\nsource {end['source_id'] or 'unknown'}"
    lines = [
        [tag("b", side), " · ", split],
        dot(expression),
        tag("span", names.get(uri, "–"), title=_public(uri) if uri else None),
        tag("code", f"{name[:8]}…", title=name),
    ]
    caption = tag("figcaption", [tag("span", line) for line in lines])
    return tag("figure", picture(thumbnails.get(name), f"{side} picture, {split}, {expression}", hover), caption)


def _footer() -> Markup:
    people = "The pictures may show real people. If they do, keep this page on this machine: do not send or publish it."
    scores = "A pair's score is its guard's own number, to be read with the guard's threshold."
    return tag("footer", tag("p", people), tag("p", scores))
