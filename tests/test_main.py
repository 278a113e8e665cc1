"""The command `synthfer`: which commands it has, and that each is the script of the same name."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from synthfer import __version__
from synthfer.__main__ import MODULES, commands, run

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"train_builtin"}


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_help_lists_every_command_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"]):
        assert run(words) == 0
        lines = capsys.readouterr().out.splitlines()
        listed = [line.split()[0] for line in lines if line.startswith("  ")]
        assert listed == list(MODULES)
        assert max(map(len, lines)) <= 120
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_help_imports_no_command() -> None:
    code = (
        "import sys, synthfer.__main__ as m; m.run(['--help']); print({'ray', 'torch', 'pyarrow'} & set(sys.modules))"
    )
    assert call(sys.executable, "-c", code).stdout.endswith("set()\n")


def test_every_script_is_a_command() -> None:
    assert set(MODULES) == SCRIPTS | {"k8s"}


@pytest.mark.parametrize("name", MODULES)
def test_a_command_shows_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, about = commands(name)
    assert all(command.about and command.example for command in found.values())
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"synthfer {name} " in text and "python" not in text
    if about:
        first = next(iter(found))
        assert about.split(".")[0].split()[0] in text
        assert run([name, first, "--help"]) == 0
        assert f"synthfer {name} {first} key=value" in capsys.readouterr().out


def test_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generat", "out=x"]) == 2
    assert "there is no command 'generat'; did you mean 'generate'?" in capsys.readouterr().err
    assert run(["zzz"]) == 2
    assert "'zzz'; they are generate, ingest," in capsys.readouterr().err


def test_the_script_and_the_command_say_the_same() -> None:
    words = ("generate", "out=out/nothing", "plan.total=14", "--dry-run", "--json")
    script = call(sys.executable, f"jobs/{words[0]}.py", *words[1:])
    command = call(sys.executable, "-m", "synthfer", *words)
    assert script.returncode == command.returncode == 0
    assert script.stdout == command.stdout != ""


def test_the_entry_point_is_there() -> None:
    module, _, name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["synthfer"].partition(
        ":"
    )
    assert callable(getattr(import_module(module), name))
