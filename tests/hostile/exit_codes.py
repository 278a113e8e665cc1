"""What the command line makes of an error: the exit code, and the one line that it says."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from synthfer.cli import WRONG_INPUT, Command, Outcome, main

LONGEST_MESSAGE = 3000
"""Characters; a message that repeats what a hostile file holds is none."""


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    pass


def refusal(call: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> str:
    """The message with which a job that does `call` ends; it must be wrong input by its exit code."""

    def job(config: NoOptions, invocation: object) -> Outcome:
        return Outcome({"passed": repr(call())[:200]})

    capsys.readouterr()
    code = main({"": Command(NoOptions, job)}, ["--json"])
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert code == WRONG_INPUT, f"exit code {code}: {summary}"
    assert "Traceback" not in printed.err and len(summary["error"]) < LONGEST_MESSAGE
    return str(summary["error"])
