"""Damaged files of every kind end in a result or in an error in plain words: no traceback, hang or flood of memory.

Each case is a target, one of its files and a seed. A case that fails is named, and can be tried again by itself:

    SYNTHFER_FUZZ_CASE="dataset:_dataset.json:17" python -m pytest tests/fuzz
"""

import itertools
import json
import os
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.corpus import TARGETS, files
from tests.fuzz.damage import damaged

MAX_BYTES = 2 * 2**30
HANG_S = 120
QUICK_SEEDS = 3
LISTED = 10


class Worker:
    """The process that reads; a new one takes its place when it has died or was ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def problem(self, target: str, folder: Path) -> str | None:
        """What is wrong with how the case ended."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps({"target": target, "folder": str(folder)}), file=self.process.stdin, flush=True)
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            # The first answer of a process waits for its imports.
            if not selector.select(HANG_S):
                self.end()
                return f"no answer in {HANG_S} s"
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.process = None
            return f"the process died with {code}"
        answer = json.loads(line)
        if answer["code"] not in (0, 2) or "Traceback" in answer["text"]:
            return f"exit code {answer['code']}: {answer['text']}"
        return f"{answer['bytes']:,} bytes" if answer["bytes"] > MAX_BYTES else None

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.end()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each target with its healthy files."""
    folders = {}
    for target, (write, _) in TARGETS.items():
        folder = tmp_path_factory.mktemp(target.replace(" ", "_"))
        write(folder)
        files(folder)
        folders[target] = folder
    return folders


def run(worker: Worker, target: str, healthy: Path, file: Path, seed: int, folder: Path) -> str | None:
    """What is wrong with a case, which is named; its files are gone afterwards."""
    shutil.copytree(healthy, folder)
    (folder / file).write_bytes(damaged((healthy / file).read_bytes(), seed))
    problem = worker.problem(target, folder)
    shutil.rmtree(folder)
    return None if problem is None else f"{target}:{file}:{seed}\n{problem}"


@pytest.mark.parametrize("target", TARGETS)
def test_healthy_files_are_read(target, worker, healthy, tmp_path):
    shutil.copytree(healthy[target], tmp_path / "x")
    assert worker.problem(target, tmp_path / "x") is None


@pytest.mark.parametrize("target", TARGETS)
def test_some_damage_to_each_file(target, worker, healthy, tmp_path):
    problems = [
        run(worker, target, healthy[target], file, seed, tmp_path / f"{number}-{seed}")
        for number, file in enumerate(files(healthy[target]))
        for seed in range(QUICK_SEEDS)
    ]
    assert not list(filter(None, problems))


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_damage_for_ten_minutes(worker, healthy, tmp_path):
    end = time.monotonic() + float(os.environ.get("SYNTHFER_FUZZ_SECONDS", "600"))
    first = int(os.environ.get("SYNTHFER_FUZZ_SEED", "1000"))
    problems, cases = [], 0
    for seed in itertools.count(first):
        for target, folder in healthy.items():
            every = files(folder)
            if time.monotonic() > end:
                print(f"{cases:,} cases, seeds {first} to {seed}")
                assert not problems, f"{len(problems)} problems\n\n" + "\n\n".join(problems[:LISTED])
                return
            problem = run(worker, target, folder, every[seed % len(every)], seed, tmp_path / f"{seed}-{len(problems)}")
            problems += [problem] if problem else []
            cases += 1


@pytest.mark.skipif("SYNTHFER_FUZZ_CASE" not in os.environ, reason="no single case is asked for")
def test_one_case(worker, healthy, tmp_path):
    target, file, seed = os.environ["SYNTHFER_FUZZ_CASE"].split(":")
    assert run(worker, target, healthy[target], Path(file), int(seed), tmp_path / "x") is None
