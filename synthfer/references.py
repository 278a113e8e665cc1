"""References between the keys of a config: `${plan.seed}` stands for the value of that key, and for nothing else.

Neither the environment nor functions can be named, so that a config holds what stands in it. References may lead on to
others; rings, long chains and texts that grow without end are refused.
"""

import re
from collections.abc import Mapping
from typing import Any

from synthfer.schema import ConfigError
from synthfer.validation import show

MAX_CHAIN = 40
"""References that lead to one another, in a row: the stack of Python has an end."""
MAX_TEXT = 100_000
"""Characters of a text with references: texts that name one another twice double each time."""

_KEY = r"[^\s.${}:,\[\]]+"
_REFERENCE = re.compile(rf"\$\{{({_KEY}(?:\.{_KEY})*)\}}")


def resolve(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with the values of the keys that are referred to; `ConfigError` names the key that cannot be filled.

    A value that is referred to from several places is the same object in all of them.
    """
    resolver = _Resolver(tree)
    return {key: resolver.value(value, str(key)) for key, value in tree.items()}


class _Resolver:
    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree = tree
        self.resolved: dict[str, Any] = {}
        self.pending: list[str] = []

    def value(self, value: Any, where: str) -> Any:
        """A value of key `where` with its references resolved."""
        if isinstance(value, Mapping):
            return {key: self.value(inner, f"{where}.{key}") for key, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner, f"{where}.{number}") for number, inner in enumerate(value)]
        return self.text(value, where) if isinstance(value, str) and "${" in value else value

    def text(self, text: str, where: str) -> Any:
        """What a text with references stands for: the value itself where it is a reference and nothing else."""
        if "${" in (rest := _REFERENCE.sub("", text)):
            raise ConfigError(
                f"{where}: {show(rest[rest.index('${') :][:60])} is not a reference: ${{plan.seed}} stands for the "
                "value of another key; neither the environment nor functions can be named"
            )
        if whole := _REFERENCE.fullmatch(text):
            return self.target(whole[1], where)
        parts, length = list[str](), 0
        for number, part in enumerate(_REFERENCE.split(text)):
            piece = self.inserted(part, where) if number % 2 else part
            length += len(piece)
            if length > MAX_TEXT:
                raise ConfigError(f"{where}: with its references it has more than {MAX_TEXT:,} characters")
            parts.append(piece)
        return "".join(parts)

    def inserted(self, key: str, where: str) -> str:
        value = self.target(key, where)
        if isinstance(value, (Mapping, list)):
            raise ConfigError(f"{where}: ${{{key}}} is a section or a list, which cannot stand within a text")
        return str(value)

    def target(self, key: str, where: str) -> Any:
        """The value of the key that is referred to."""
        if key in self.resolved:
            return self.resolved[key]
        if key in self.pending:
            raise ConfigError(f"{where}: ${{{key}}} leads back to itself")
        if len(self.pending) >= MAX_CHAIN:
            raise ConfigError(f"{where}: more than {MAX_CHAIN} references lead to one another")
        self.pending.append(key)
        value: Any = self.tree
        path = key.split(".")
        for number, part in enumerate(path):
            value = self.step(value, part, f"{where}: ${{{key}}} names no key")
            value = self.value(value, ".".join(path[: number + 1])) if isinstance(value, str) else value
        self.resolved[key] = self.value(value, key)
        self.pending.pop()
        return self.resolved[key]

    def step(self, value: Any, part: str, problem: str) -> Any:
        if isinstance(value, Mapping) and part in value:
            return value[part]
        if isinstance(value, list) and part.isdecimal() and len(part) < 7 and int(part) < len(value):
            return value[int(part)]
        raise ConfigError(f"{problem}; --help lists the keys")
