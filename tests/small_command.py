"""A command with a few keys of every kind, and how one call of a command ends, in process."""

import json
import logging
from dataclasses import dataclass, field

import pytest

from synthfer import cli
from synthfer.schema import REQUIRED, option


@dataclass(frozen=True, kw_only=True)
class Plan:
    total: int | None = option(None, "rows", low=1)
    per_cell: int | None = option(None, "rows of a cell", low=1)
    per_expression: int | dict[str, int] | None = option(None, "rows of each expression", low=0)
    share: float = option(0.5, "a share", low=0)


@dataclass(frozen=True, kw_only=True)
class Config:
    out: str = option(REQUIRED, "where to")
    name: str = option("a", "a text")
    names: list[str] = option([], "texts")
    seed: int = option(0, "seed", low=0)
    plan: Plan = field(default_factory=Plan)


def show(config: Config, invocation: cli.Invocation) -> cli.Outcome:
    return cli.Outcome({"out": config.out, "name": config.name})


def call(capsys: pytest.CaptureFixture[str], *words: str, job: cli.Command | None = None) -> tuple[int, str, str]:
    """Exit code, the error of the summary, and all that was written to standard error."""
    handlers = logging.getLogger().handlers[:]
    try:
        code = cli.main({"": job or cli.Command(Config, show)}, [*words, "--json"])
    finally:
        logging.getLogger().handlers = handlers
    out, errors = capsys.readouterr()
    summary = json.loads(out)
    return code, summary.get("error", ""), errors
