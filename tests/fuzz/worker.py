"""A process that reads damaged files as a command would, one case a line, and says how each one ended.

It runs apart from the test, which may so end it where it hangs, and see it die.
"""

import contextlib
import io
import json
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from synthfer.cli import Command, Outcome, main
from tests.fuzz.corpus import TARGETS

_MAX_DATA = 8 * 2**30


@dataclass(frozen=True)
class Nothing:
    """A command without keys."""


def read(target: str, folder: Path) -> tuple[int, str]:
    """The exit code of a command that reads the folder, and what it wrote to standard error."""
    reader = TARGETS[target][1]

    def job(*_: object) -> Outcome:
        reader(folder)
        return Outcome()

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        code = main({"": Command(Nothing, job)}, ["--json", "--quiet"])
    return code, errors.getvalue()


def peak_bytes() -> int:
    """The most memory that this process has held since the last call of `reset_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Beyond this an allocation fails, so that a case that wants all memory does not take the machine with it.
    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_DATA, _MAX_DATA))
    answers = sys.stdout
    for line in sys.stdin:
        case = json.loads(line)
        reset_peak()
        before = peak_bytes()
        code, text = read(case["target"], Path(case["folder"]))
        answer = {"code": code, "text": text[-4000:], "bytes": peak_bytes() - before}
        print(json.dumps(answer), file=answers, flush=True)
