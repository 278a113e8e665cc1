"""What the READMEs say is true: their names and files exist, their commands parse, and their examples run."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthfer.__main__ import MODULES, commands
from synthfer.config import load
from synthfer.store import Dataset

ROOT = Path(__file__).resolve().parents[1]
READMES = ["README.md", "CONTRIBUTING.md", *(f"{folder}/README.md" for folder in ("jobs", "synthfer", "k8s", "tests"))]
PAGES = [name for name in READMES if (ROOT / name).exists()]
ARCHITECTURE = (ROOT / "synthfer/README.md").read_text()
PLACEHOLDERS = {"jobs/NAME.py", "synthfer/a/b.py", "tests/a/test_b.py", "tests/a/test_"}
FOLDERS = ("synthfer", "jobs", "tests", "k8s", "docs")


def text(page: str) -> str:
    """A page without the modules that it shows as examples."""
    return re.sub(r"```python.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)


def calls(page: str) -> Iterator[list[str]]:
    """The words of every call of a job on a page: its name and what follows."""
    code = (
        line.strip() for line in text(page).replace("\\\n", " ").splitlines() if line.startswith(("    ", "python"))
    )
    script, command = r"(?:^| )python jobs/(\w+)\.py ([^`]*)", r"^(?:python -m )?synthfer[ .](\w+) ([^`]*)"
    for line in (re.sub(r"\s# .*", "", line).strip() for line in code):
        for name, rest in re.findall(script, line) + re.findall(command, line):
            if "..." not in rest:
                yield [name, *shlex.split(rest)]


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page: str) -> None:
    said = set(re.findall(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w)", text(page)))
    said |= {link for link in re.findall(r"\]\(([^)]+)\)", text(page)) if not link.startswith("http")}
    beside = (ROOT / page).parent
    missing = {name for name in said if not any((at / name).exists() for at in (ROOT, beside))} - PLACEHOLDERS
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_dotted_names_exist(page: str) -> None:
    missing = []
    for name in sorted(set(re.findall(r"(?<![\w./-])synthfer(?:\.[A-Za-z_]\w*)+(?![\w/])", text(page)))):
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:end]))
            except ModuleNotFoundError:
                continue
            for part in parts[end:]:
                found = getattr(found, part, None)  # type: ignore[assignment]
            if found is None:
                missing.append(name)
            break
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _write(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, *words in calls(page):
        found, _ = commands(name)
        keys = [word for word in words if not word.startswith("--")]
        command = found[""] if "" in found else found[keys.pop(0)]
        if command.redirect:
            command = command.redirect(keys, []) or command
        load(command.schema, keys)  # ConfigError names what is wrong


def test_the_pages_show_commands() -> None:
    assert {name for name, *_ in calls("jobs/README.md")} == set(MODULES) - {"k8s"}


def _write(folder: Path) -> list[str]:
    """The modules that the architecture page shows, as a package in `folder`; their names."""
    blocks = re.findall(r"```python\n# (my_parts/\w+\.py)\n(.*?)```", ARCHITECTURE, flags=re.DOTALL)
    for name, code in blocks:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    return [name for name, _ in blocks]


def test_the_examples_run(tmp_path: Path) -> None:
    assert _write(tmp_path) == [f"my_parts/{name}.py" for name in ("discs", "brightness", "listed", "linear")]
    listed = tmp_path / "data/listed"
    listed.mkdir(parents=True)
    for name, level in (("a", 40), ("b", 200)):
        Image.fromarray(np.full((16, 16, 3), level, np.uint8)).save(listed / f"{name}.png")
    (listed / "faces.csv").write_text("file,emotion,person\na.png,happy,p1\nb.png,contempt,p2\nc.png,sad,p3\n")
    (block,) = re.findall(r"```sh\n(.*?)```", ARCHITECTURE, flags=re.DOTALL)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "RAY_ADDRESS": "local", "RAY_AUTH_TOKEN": "ab" * 32}
    for line in block.splitlines():
        words = shlex.split(line)
        assert words[0] == "python"
        call = [sys.executable, str(ROOT / words[1]), *words[2:], *_quick(words[1])]
        done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
    _discs_are_gated(Dataset.open(str(tmp_path / "out/discs")))
    rows = {row["source_id"]: row for row in _rows(Dataset.open(str(tmp_path / "out/listed")))}
    assert [rows[person]["decision"] for person in ("p1", "p2", "p3")] == ["accepted", "rejected", "failed"]
    assert list((tmp_path / "out/linear").rglob("model.safetensors"))


def _quick(script: str) -> list[str]:
    return ["engine.max_failed_share=1"] if "ingest" in script else []


def _rows(dataset: Dataset) -> list[dict[str, object]]:
    columns = ["source_id", "decision", "reason", "scores"]
    return [row for batch in dataset.scan(columns) for row in batch.to_pylist()]


def _discs_are_gated(dataset: Dataset) -> None:
    """Every row has the gate's score, and exactly the dark ones are rejected, with the reason."""
    rows = _rows(dataset)
    assert len(rows) == 70
    assert {row["decision"] for row in rows} == {"accepted", "rejected"}
    for row in rows:
        (score,) = [one["value"] for one in row["scores"] if one["gate"] == "brightness"]  # type: ignore[attr-defined]
        assert (row["decision"] == "rejected") == (score < 110)
        assert bool(row["reason"]) == (score < 110)
