"""The Dockerfile as instructions, for the tests that check it and those that imitate its image."""

import re

from tests.ray_sessions import ROOT

TEXT = (ROOT / "Dockerfile").read_text()


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions with their words, in order; lines that go on are joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = filter(None, (one.strip() for one in re.split(r"(?<!\\)\n", "\n".join(lines))))
    return [(word, rest) for word, rest in (one.split(None, 1) for one in whole)]


def stages(text: str) -> list[list[tuple[str, str]]]:
    """The instructions of each stage, FROM included."""
    groups: list[list[tuple[str, str]]] = []
    for word, rest in instructions(text):
        if word == "FROM":
            groups.append([])
        if groups:
            groups[-1].append((word, rest))
    return groups


def environment() -> dict[str, str]:
    """The variables that the image sets."""
    variables = next(rest for word, rest in stages(TEXT)[-1] if word == "ENV")
    return dict(re.findall(r"(\w+)=(\S+)", variables))
