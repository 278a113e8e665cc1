"""What the command line makes of an error: the exit code, and the one line that it says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from synthfer.cli import WRONG_INPUT, Command, Outcome
from tests.small_command import call

LONGEST_MESSAGE = 3000
"""Characters; a message that repeats what a hostile file holds is none."""


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    pass


def refusal(use: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> str:
    """The message with which a job that does `use` ends; it must be wrong input by its exit code."""

    def job(config: NoOptions, invocation: object) -> Outcome:
        return Outcome({"passed": repr(use())[:200]})

    capsys.readouterr()
    code, error, written = call(capsys, job=Command(NoOptions, job))
    assert code == WRONG_INPUT, f"exit code {code}: {error} {written}"
    assert "Traceback" not in written and len(error) < LONGEST_MESSAGE
    return error
