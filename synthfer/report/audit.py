"""The page of an audit: the verdicts of its guards, and the pictures that are their evidence."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc
from markupsafe import Markup

from synthfer.audit.result import AuditResult
from synthfer.guards.verdict import Status, Verdict
from synthfer.report.contact_sheets import Thumbnail, thumbnail
from synthfer.report.dataset_counts import expression_of
from synthfer.report.html import document, public_uri, render

PER_GUARD = 24
_OVERALL: Mapping[Status, tuple[str, str]] = {
    "fail": ("Contaminated", "A guard failed: do not rely on scores from these data until its cause is removed."),
    "warn": ("Needs a look", "No guard failed, but one found something that a person should look at."),
    "pass": ("Clean", "No guard that ran found anything."),
    "skipped": ("Not checked", "No guard ran, so this page says nothing about the data."),
}
_OUTCOMES: Mapping[Status, str] = {"fail": "failed", "warn": "to look at", "pass": "passed", "skipped": "skipped"}
_DATA = {"train": "Training", "test": "Test"}

Pair = dict[str, Any]
"""A row of `verdict.PAIRS`."""


def shown(audit: AuditResult) -> list[str]:
    """Ids of the samples in the page's pairs: the worst 24 pairs of each guard, failing ones first. Each id once."""
    pairs = [pair for verdict in audit.verdicts for pair in _worst(audit, verdict)[0]]
    return list(dict.fromkeys(pair[f"{end}_sample_id"] for pair in pairs for end in ("left", "right")))


def page(audit: AuditResult, pictures: Mapping[str, bytes]) -> str:
    """One HTML page, at most about 5 MB with a dozen guards.

    `pictures`: the image files of the samples that `shown` names, by sample id; a placeholder stands for a missing or
    unreadable one. Each `uris` and its `hashes` have the same order. The same audit gives the same page.
    """
    thumbnails = {name: thumbnail(pictures[name]) for name in shown(audit) if name in pictures}
    worst = {verdict.guard: _worst(audit, verdict) for verdict in audit.verdicts}
    names = _short_names(audit, [pair for pairs, _ in worst.values() for pair in pairs])
    evidence = {
        _title(verdict): _evidence(verdict, *worst[verdict.guard], names, thumbnails)
        for verdict in audit.verdicts
        if worst[verdict.guard][1]
    }
    guards = [(verdict, _title(verdict) if worst[verdict.guard][1] else None) for verdict in audit.verdicts]
    word, meaning = _OVERALL[audit.status]
    return document(
        "audit.html",
        title=_heading(audit, names),
        styles=["gallery.css", "audit.css"],
        parts={"Compared": _compared(audit), "Guards": render("audit_guards.html", guards=guards), **evidence},
        status=audit.status,
        word=word,
        meaning=meaning,
        guards=_outcomes(audit),
    )


def _outcomes(audit: AuditResult) -> str:
    """How many guards have which status, in words."""
    statuses = [verdict.status for verdict in audit.verdicts]
    counts = ", ".join(f"{statuses.count(status)} {word}" for status, word in _OUTCOMES.items() if status in statuses)
    return f"{len(statuses)} guards: {counts}" if counts else "0 guards"


def _worst(audit: AuditResult, verdict: Verdict) -> tuple[list[Pair], int]:
    """A guard's pairs to show, and how many it has."""
    own = pc.equal(audit.pairs["guard"], verdict.guard.value)
    wanted = [pc.and_(own, pc.equal(audit.pairs["status"], status)) for status in ("fail", "warn")]
    positions = np.concatenate([np.flatnonzero(of_status) for of_status in wanted])
    worst = [audit.pairs.slice(position, 1).to_pylist()[0] for position in positions[:PER_GUARD].tolist()]
    return worst, len(positions)


def _title(verdict: Verdict) -> str:
    return f"{verdict.guard.value} {verdict.guard.label}"


def _short_names(audit: AuditResult, pairs: Iterable[Pair]) -> dict[str, str]:
    """Datasets by the last parts of their URIs, as few as keep them distinct."""
    uris = {uri for side in audit.sides.values() for uri in side["uris"]}
    uris |= {pair[f"{end}_dataset"] for pair in pairs for end in ("left", "right")} - {None}
    parts = {uri: public_uri(uri).rstrip("/").split("/") for uri in sorted(uris)}
    names: dict[str, str] = {}
    for length in range(1, max(map(len, parts.values()), default=0) + 1):
        names = {uri: "/".join(part[-length:]) for uri, part in parts.items()}
        if len(set(names.values())) == len(names):
            break
    return names


def _heading(audit: AuditResult, names: Mapping[str, str]) -> str:
    sides = [[names[uri] for uri in audit.sides[side]["uris"]] for side in _DATA]
    train, test = (f"{one[0]} and {len(one) - 1} more" if len(one) > 2 else " + ".join(one) for one in sides)
    return f"{train}: train against test" if sides[0] == sides[1] else f"{train} against {test}"


def _compared(audit: AuditResult) -> Markup:
    cards = {f"{word.lower()} rows": audit.sides[side]["rows"] for side, word in _DATA.items()}
    cards |= {f"{word.lower()} rows in failing pairs": audit.flagged.get(side, 0) for side, word in _DATA.items()}
    sides = {
        word: {
            "splits": audit.sides[side]["splits"],
            "datasets": list(zip(audit.sides[side]["uris"], audit.sides[side]["hashes"], strict=True)),
        }
        for side, word in _DATA.items()
    }
    return render("audit_compared.html", cards=cards, sides=sides)


def _evidence(
    verdict: Verdict, pairs: list[Pair], total: int, names: Mapping[str, str], thumbnails: Mapping[str, Thumbnail]
) -> Markup:
    shown = [_pair(pair, names, thumbnails) for pair in pairs]
    return render("audit_evidence.html", title=_title(verdict), verdict=verdict, pairs=shown, total=total)


def _pair(pair: Pair, names: Mapping[str, str], thumbnails: Mapping[str, Thumbnail]) -> dict[str, Any]:
    ends = {end: {key.removeprefix(f"{end}_"): pair[key] for key in pair if key.startswith(f"{end}_")}
            for end in ("left", "right")}  # fmt: skip
    left, right = (end["label"] for end in ends.values())
    return {
        **{key: pair[key] for key in ("status", "score", "detail")},
        **{name: _end(end, names, thumbnails) for name, end in ends.items()},
        "conflict": left is not None and right is not None and left != right,
    }


def _end(end: Mapping[str, Any], names: Mapping[str, str], thumbnails: Mapping[str, Thumbnail]) -> dict[str, Any]:
    """One picture of a pair, with its caption."""
    side, expression, name, uri = _DATA[end["side"]], expression_of(end["label"]), end["sample_id"], end["dataset"]
    split = end["split"] or "no split"
    return {
        "thumbnail": thumbnails.get(name),
        "alt": f"{side} picture, {split}, {expression}",
        "hover": f"{name}\nsource {end['source_id'] or 'unknown'}",
        "side": side,
        "split": split,
        "expression": expression,
        "uri": uri,
        "dataset": names.get(uri, "–"),
        "sample_id": name,
    }
