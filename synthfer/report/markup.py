"""HTML from nested calls: every text is escaped unless it is markup already, so no text can become code.

A whole page has no script and fetches nothing; its content security policy says so too.
"""

import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Markup(str):
    """Text that is HTML."""

    __slots__ = ()


def render(content: Any) -> Markup:
    """HTML of markup, text, numbers, None (nothing), or any nesting of iterables of these."""
    if isinstance(content, Markup):
        return content
    if content is None:
        return Markup()
    if isinstance(content, Iterable) and not isinstance(content, str):
        return Markup("".join(render(part) for part in content))
    return Markup(escape(str(content)))


def tag(name: str, /, *content: Any, **attributes: Any) -> Markup:
    """One element. Attribute names lose a trailing underscore (`class_`); None and False leave one out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    inside = "".join(
        f" {key}" if value is True else f' {key}="{escape(str(value))}"'
        for key, value in given.items()
        if value is not None and value is not False
    )
    if name in ("img", "meta"):
        return Markup(f"<{name}{inside}>")
    return Markup(f"<{name}{inside}>{render(content)}</{name}>")


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], class_: str | None = None) -> Markup:
    """A table that scrolls by itself where the screen is narrow; the first cell of a row is its header."""
    header = tag("thead", tag("tr", [tag("th", cell, scope="col") for cell in head]))
    body = tag("tbody", [_row(list(cells)) for cells in rows])
    return tag("div", tag("table", header, body, class_=class_), class_="scroll", tabindex="0")


def _row(cells: list[Any]) -> Markup:
    first, *rest = cells
    return tag("tr", tag("th", first, scope="row"), [c if _is_cell(c) else tag("td", c) for c in rest])


def _is_cell(content: Any) -> bool:
    return isinstance(content, Markup) and content.startswith("<td")


def document(
    title: str, styles: Iterable[str], header: Markup, parts: Mapping[str, Markup | None], footer: Markup
) -> str:
    """A whole page: the named style sheets of this package, links to the parts, and the parts that there are."""
    css = "".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in styles)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(css)),
    )
    shown = {name: part for name, part in parts.items() if part}
    links = [tag("a", name, href=f"#{anchor(name)}") for name in shown]
    nav = tag("nav", tag("div", links), aria_label="Parts of this page")
    main = tag("main", [tag("section", part, id=anchor(name)) for name, part in shown.items()])
    return "<!doctype html>\n" + tag("html", head, tag("body", header, nav, main, footer), lang="en")


def anchor(name: str) -> str:
    """Where a part of a page is, for links within it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
