"""The manner of jobs, seen from outside: a small job script run as its own process."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = '''
"""A job that does what it is told [to do]."""

import logging
import sys
import time
from dataclasses import dataclass, field

import numpy as np

from synthfer import cli
from synthfer.schema import REQUIRED, option

log = logging.getLogger("synthfer.job")


@dataclass(frozen=True)
class Plan:
    total: int | None = option(None, "How many rows [in all].", low=1)


@dataclass(frozen=True, kw_only=True)
class Config:
    do: str = option(REQUIRED, "What to do.")
    plan: Plan = field(default_factory=Plan)
    hf_token: str | None = option(None, "Token.")


def job(config, invocation):
    log.info("at work")
    log.debug("in detail")
    if config.do == "bug":
        {}["missing"]
    if config.do == "input":
        raise ValueError("there is no such face")
    if config.do == "library":
        np.zeros(3).reshape(2)
    if config.do == "stop":
        raise cli.Stopped("enough for today", {"left": 3})
    if config.do == "ray":  # its handler of SIGTERM
        sys.exit(15)
    if config.do == "wait":
        log.info("ready")
        time.sleep(60)
    if config.do == "code":
        return cli.Outcome({"left": 2}, cli.STOPPED)
    invocation.results.print("a table for people")
    counts = {"happy": {"accepted": np.int64(12)}}
    return cli.Outcome({"uri": "x" * 120, "counts": counts, "rate": float("nan"), "rows": 1234567})


def preview(config, invocation):
    return cli.Outcome({"would": config.plan.total})
'''
ONE = SCRIPT + 'cli.run(Config, job, dry_run=preview, about=__doc__, example="python job.py do=it plan.total=7")\n'
NO_PREVIEW = SCRIPT + "cli.run(Config, job)\n"
MANY = SCRIPT + (
    'commands = {"verify": cli.Command(Config, job, about="Look for damage."), "seal": cli.Command(Config, job)}\n'
    'cli.run_commands(commands, about="Care for datasets.")\n'
)


@pytest.fixture
def call(tmp_path: Path) -> Any:
    def run(*words: str, script: str = ONE, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(_command(tmp_path, script, words), **_streams(env), timeout=240, check=False)

    return run


def _command(folder: Path, script: str, words: tuple[str, ...]) -> list[str]:
    path = folder / "job.py"
    path.write_text(script)
    return [sys.executable, str(path), *words]


def _streams(env: dict[str, str]) -> dict[str, Any]:
    return {
        "env": {**os.environ, "PYTHONPATH": str(ROOT), **env},
        "text": True,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }


def test_results_and_logs_are_apart(call: Any) -> None:
    done = call("do=it")
    assert done.returncode == 0
    assert "a table for people" in done.stdout and "x" * 120 in done.stdout and "1,234,567" in done.stdout
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO at work\n", done.stderr)


def test_json_is_the_whole_standard_output(call: Any) -> None:
    done = call("do=it", "--json")
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert told["counts"] == {"happy": {"accepted": 12}}
    assert (told["rate"], told["rows"], told["code"]) == (None, 1234567, 0)
    assert "a table for people" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said", "traceback"),
    [
        (("do=bug",), 1, "KeyError", True),
        (("do=library",), 1, "cannot reshape", True),
        (("do=input",), 2, "there is no such face", False),
        (("do=stop",), 3, "enough for today", False),
        (("do=ray",), 3, "by a signal", False),
        ((), 2, "do is needed, add do=…: What to do.", False),
        (("do=it", "plan.totl=7"), 2, "unknown key plan.totl; did you mean plan.total?", False),
        (("do=it", "--jsn"), 2, "unknown flag --jsn; did you mean --json?", False),
        (("--do=it",), 2, "write do=it", False),
        (("--config",), 2, "--config needs a file", False),
        (("do=it", "--config", "nowhere.yaml"), 2, "cannot read the config file nowhere.yaml", False),
    ],
)
def test_failures(call: Any, words: tuple[str, ...], code: int, said: str, traceback: bool) -> None:
    done = call(*words, "--json")
    assert done.returncode == code
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["code"] == code
    assert said in told["stopped" if code == 3 else "error"]
    assert (said in done.stderr or code == 3) and ("Traceback" in done.stderr) == traceback


def test_stopping_keeps_the_summary(call: Any) -> None:
    assert json.loads(call("do=stop", "--json").stdout)["left"] == 3
    returned = call("do=code")
    assert returned.returncode == 3 and re.search(r"left\s+2", returned.stdout)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop(tmp_path: Path, number: int) -> None:
    with subprocess.Popen(_command(tmp_path, ONE, ("do=wait", "--json")), **_streams({})) as job:
        assert job.stderr is not None
        while "ready" not in (line := job.stderr.readline()):
            assert line, "the job ended before it was stopped"
        job.send_signal(number)
        out, errors = job.communicate(timeout=240)
    assert job.returncode == 3
    assert json.loads(out)["code"] == 3
    assert "stopped" in errors and "Traceback" not in errors


def test_quiet_and_verbose(call: Any) -> None:
    assert call("do=it", "--quiet").stderr == ""
    verbose = call("do=input", "--verbose", "hf_token=abc").stderr
    assert "DEBUG in detail" in verbose and "DEBUG raised in " in verbose and "Traceback" not in verbose
    assert "abc" not in verbose


def test_config_files(call: Any, tmp_path: Path) -> None:
    for name, text in {"a": "do: input\n", "b": "do: it\n"}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    assert call("--config", f"{tmp_path}/a.yaml", f"--config={tmp_path}/b.yaml").returncode == 0


def test_dry_run_does_nothing(call: Any) -> None:
    assert json.loads(call("do=bug", "plan.total=7", "--dry-run", "--json").stdout) == {"would": 7, "code": 0}
    shown = call("do=bug", "hf_token=abc", "--dry-run", script=NO_PREVIEW)
    assert shown.returncode == 0
    assert "do: bug" in shown.stdout and "***" in shown.stdout and "abc" not in shown.stdout


@pytest.mark.parametrize("columns", ["80", "120"])
def test_help_has_everything_and_fits(call: Any, columns: str) -> None:
    done = call("--help", COLUMNS=columns)
    assert done.returncode == 0 and done.stderr == ""
    text = " ".join(done.stdout.split())
    for said in (
        "A job that does what it is told [to do].",
        "do What to do. text; must be given",
        "plan.total How many rows [in all]. integer >= 1 or null; default null",
        "--config FILE",
        "--dry-run",
        "python job.py do=it plan.total=7",
        "3 stopped with work left",
    ):
        assert said in text
    assert "\x1b" not in done.stdout
    assert max(len(line.rstrip()) for line in done.stdout.splitlines() if "Usage" not in line) <= int(columns)


def test_commands(call: Any) -> None:
    listed = call("--help", script=MANY)
    assert "Care for datasets." in listed.stdout and "Look for damage." in listed.stdout
    assert "plan.total" in call("verify", "--help", script=MANY).stdout
    assert call("verify", "do=it", script=MANY).returncode == 0
    wrong = call("verfy", "do=it", script=MANY)
    assert wrong.returncode == 2 and "did you mean verify?" in wrong.stderr
    none = call("do=it", script=MANY)
    assert none.returncode == 2 and "say which: verify, seal" in none.stderr
