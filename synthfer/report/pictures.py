"""The parts of the gallery that show pictures: sheets per expression and attribute, and what was left out."""

from collections.abc import Iterable, Mapping

from synthfer.expressions import EXPRESSIONS
from synthfer.report.markup import Markup, render, table, tag
from synthfer.report.sheets import Group, Sheets, Thumbnail
from synthfer.report.tally import Asked, Reason, Sample, Tally, expression_of
from synthfer.sample import ATTRIBUTES

PER_EXPRESSION = 24
PER_VALUE = 8
MAX_VALUES = 24
MAX_VALUE_PICTURES = 320
MAX_REASONS = 20


def limits(counts: Tally) -> dict[Group, int]:
    """How many pictures of each group the page has room for."""
    shown = [(name, value) for name in counts.values for value in _top(counts.values[name])]
    per_value = max(2, min(PER_VALUE, MAX_VALUE_PICTURES // max(1, len(shown))))
    rejected = [reason for decision, reason in _top_reasons(counts) if decision == "rejected"]
    return {
        **{("expression", name): PER_EXPRESSION for name in counts.expressions()},
        **dict.fromkeys(shown, per_value),
        **{("rejected", reason): PER_VALUE for reason in rejected[:MAX_REASONS]},
    }


def _top(values: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The most frequent values, those of equal number by name."""
    return sorted(values, key=lambda value: (-sum(values[value].values()), value))[:MAX_VALUES]


def _top_reasons(counts: Tally) -> list[tuple[str, str]]:
    return sorted(counts.reasons, key=lambda key: (-counts.reasons[key].rows, key))


def dot(expression: str) -> Markup:
    return tag("span", expression, class_=f"dot {expression if expression in EXPRESSIONS else 'none'}")


def expression_sheets(counts: Tally, drawn: Sheets) -> Markup | None:
    parts = []
    for name in counts.expressions():
        samples = drawn.groups.get(("expression", name), [])
        if samples:
            made = counts.decisions[name]["accepted"]
            note = tag("small", f"{len(samples):,} of {made:,}")
            parts.append(tag("article", tag("h3", dot(name), note), _sheet(samples, drawn)))
    return render([tag("h2", "Expressions"), parts]) if parts else None


def _sheet(samples: Iterable[Sample], drawn: Sheets) -> Markup:
    return tag("div", [_tile(sample, drawn) for sample in samples], class_="sheet")


def _tile(sample: Sample, drawn: Sheets) -> Markup:
    """A picture that opens to its recipe."""
    attributes = _attributes_of(sample)
    alt = ", ".join([expression_of(sample["label"]), *attributes.values()])
    thumbnail = drawn.thumbnails.get(sample["sample_id"])
    hover = "\n".join([sample["prompt"] or alt, f"seed {sample['seed']}", sample["sample_id"]])
    return tag("details", tag("summary", picture(thumbnail, alt, hover)), _recipe(sample), name="sample")


def picture(thumbnail: Thumbnail | None, alt: str, hover: str) -> Markup:
    """A thumbnail, or a placeholder in its place."""
    if thumbnail and thumbnail.uri:
        return tag("img", src=thumbnail.uri, alt=alt, title=hover, decoding="async")
    return tag("span", "unreadable picture" if thumbnail else "picture missing", class_="broken", title=hover)


def _attributes_of(sample: Sample) -> dict[str, str]:
    given = sample["attributes"] or {}
    return {name: given[name] for name in ATTRIBUTES if given.get(name) is not None}


def _recipe(sample: Sample) -> Markup:
    chips = [tag("span", tag("b", name), " ", value) for name, value in _attributes_of(sample).items()]
    scores = ", ".join(f"{score['gate']} {score['value']:.3g}" for score in sample["scores"] or [])
    facts = {
        "prompt": sample["prompt"],
        "reason": sample["reason"],
        "scores": scores or None,
        "seed": tag("code", sample["seed"]) if sample["seed"] is not None else None,
        "sample": tag("code", sample["sample_id"]),
    }
    listed = [[tag("dt", key), tag("dd", value)] for key, value in facts.items() if value is not None]
    title = tag("p", dot(expression_of(sample["label"])), " ", chips, class_="chips")
    return tag("div", title, tag("dl", listed), class_="recipe")


def attribute_sheets(counts: Tally, asked: Asked, drawn: Sheets) -> Markup | None:
    """For each attribute the numbers of its values by expression, and pictures of each value."""
    parts = []
    for name in (name for name in ATTRIBUTES if name in counts.values):
        values = counts.values[name]
        shown = _in_order(values, asked.values.get(name, []))
        more = f"{len(shown)} of {len(values):,} values" if len(shown) < len(values) else f"{len(shown)} values"
        strips = [
            tag("div", tag("h4", value), _sheet(drawn.groups[name, value], drawn), class_="strip")
            for value in shown
            if drawn.groups.get((name, value))
        ]
        heading = tag("h3", name, tag("small", more))
        parts.append(tag("article", heading, _matrix(values, shown), tag("div", strips, class_="strips")))
    return render([tag("h2", "Attributes"), parts]) if parts else None


def _in_order(values: Mapping[str, Mapping[str, int]], vocabulary: list[str]) -> list[str]:
    """The values to show, as the plan orders them; those of which nothing was made yet are among them."""
    top = _top(values)
    wanted = [value for value in vocabulary if value in top or value not in values]
    return [*wanted, *(value for value in top if value not in wanted)][:MAX_VALUES]


def _matrix(values: Mapping[str, Mapping[str, int]], shown: list[str]) -> Markup:
    """Accepted samples by value and expression, darker where there are more."""
    names = [name for name in EXPRESSIONS if any(counts.get(name) for counts in values.values())]
    most = max((counts.get(name, 0) for counts in values.values() for name in names), default=0) or 1
    rows = []
    for value in shown:
        numbers = [values.get(value, {}).get(name, 0) for name in names]
        cells = [
            tag("td", f"{n:,}", class_="heat" if n else "heat zero", style=f"--heat:{100 * n / most:.0f}%")
            for n in numbers
        ]
        total = sum(values.get(value, {}).values())
        rows.append([value, *cells, tag("td", f"{total:,}", class_="n total")])
    return table(["", *(dot(name) for name in names), "accepted"], rows, "matrix")


def left_out(counts: Tally, drawn: Sheets) -> Markup | None:
    keys = _top_reasons(counts)
    if not keys:
        return None
    parts = [_reason(decision, text, counts.reasons[decision, text], drawn) for decision, text in keys[:MAX_REASONS]]
    rest = sum(counts.reasons[key].rows for key in keys[MAX_REASONS:])
    more = tag("p", f"{rest:,} more rows for {len(keys) - MAX_REASONS:,} other reasons.") if rest else None
    lead = tag("p", "Rows that were not accepted stay in the dataset, each with its reason.", class_="lead")
    return render([tag("h2", "Left out"), lead, parts, more])


def _reason(decision: str, text: str, reason: Reason, drawn: Sheets) -> Markup:
    heading = tag(
        "h3",
        tag("span", decision, class_=f"badge {decision}"),
        " ",
        text,
        tag("small", f"{reason.rows:,} rows"),
    )
    samples = drawn.groups.get(("rejected", text), []) if decision == "rejected" else []
    listed = tag("ul", [tag("li", _recipe(sample)) for sample in reason.examples], class_="examples")
    return tag("article", heading, _sheet(samples, drawn) if samples else listed)
