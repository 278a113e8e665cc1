"""HTML and SVG from the Jinja templates in `templates/`: every value is escaped, so no text of a dataset becomes code.

A whole page has no script and fetches nothing; its content security policy says so too.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from synthfer.expressions import EXPRESSIONS


def render(template: str, **values: Any) -> Markup:
    """A template of this package with these values; markup among them stays, any other value is escaped."""
    return Markup(_TEMPLATES.get_template(template).render(**values))


def document(
    template: str, title: str, styles: Sequence[str], parts: Mapping[str, Markup | None], **values: Any
) -> str:
    """A whole page, by a template that extends page.html.

    `styles` names the style sheets of this package, `parts` the sections by their titles, which the page's navigation
    lists; parts that are None or empty are left out.
    """
    shown = {name: part for name, part in parts.items() if part}
    return str(render(template, title=title, styles=styles, parts=shown, **values))


def anchor(name: str) -> str:
    """The id of a part of a page, for links within it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def public_uri(uri: str) -> str:
    """A URI without user name and password, should it hold any."""
    return re.sub(r"(?<=://)[^/]*@", "", uri)


def figure(value: float | None) -> str:
    """A number as people read it: thousands apart, four digits of what is no whole number, a dash for None."""
    if value is None:
        return "–"
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"


def _thousands(number: int) -> str:
    return f"{number:,}"


_TEMPLATES = Environment(
    loader=PackageLoader("synthfer.report"),
    autoescape=True,
    undefined=StrictUndefined,  # a misspelt name is an error, not an empty place
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"anchor": anchor, "public_uri": public_uri, "figure": figure, "thousands": _thousands}
_TEMPLATES.globals |= {"EXPRESSIONS": EXPRESSIONS}
