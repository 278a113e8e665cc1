"""Prompts: sentence templates with named slots, such as "a {age} {race} {gender}, {pose}"."""

from collections.abc import Mapping
from string import Formatter

from synthfer.config import ConfigError


def slots(template: str) -> set[str]:
    """The names in braces of a template; `ConfigError` for stray braces, empty or formatted slots."""
    try:
        fields = [field for field in Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        raise ConfigError(f"{error} in {template!r}") from None
    for _, name, form, conversion in fields:
        if not name or form or conversion:
            shown = f"{name or ''}{'!' + conversion if conversion else ''}{':' + form if form else ''}"
            raise ConfigError(f"a slot is a name in braces, such as {{age}}, not {{{shown}}}, in {template!r}")
    return {str(name) for _, name, _, _ in fields}


def render(template: str, phrases: Mapping[str, str]) -> str:
    """The template with a phrase in every slot, its first letter a capital."""
    sentence = template.format_map(phrases)
    return sentence[:1].upper() + sentence[1:]
