"""The command `synthfer`: every job under one name, by the same code as the scripts in `jobs/`.

`synthfer generate out=out/faces` is `python jobs/generate.py out=out/faces`. A command's module is imported when it is
called, so that `synthfer --help` answers at once.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from synthfer import __version__
from synthfer.addresses import redact
from synthfer.cli import WRONG_INPUT, Command, main
from synthfer.suggest import nearest

# The module of each command, which holds a COMMAND or several COMMANDS; and what the command does, in one line.
MODULES = {
    "generate": ("synthfer.engine.generate", "make a balanced dataset of faces"),
    "ingest": ("synthfer.engine.ingest", "bring a published collection of faces in as a dataset"),
    "audit": ("synthfer.engine.audit", "look for test samples in training data"),
    "train": ("synthfer.engine.train", "train a classifier, or the networks of a generator"),
    "evaluate": ("synthfer.engine.evaluate", "score every classifier on every test set"),
    "dataset": ("synthfer.dataset_commands", "verify a dataset, clean up after killed writers, print its card"),
    "gallery": ("synthfer.report.command", "write one HTML page of a dataset"),
    "benchmark": ("synthfer.benchmarks.commands", "measure what synthfer costs and gains"),
    "k8s": ("synthfer.k8s.__main__", "check, show and submit jobs on Kubernetes"),
}


def commands(name: str) -> tuple[Mapping[str, Command], str]:
    """The commands of a module by name, the empty name where there is only one; and what they are for."""
    module = importlib.import_module(MODULES[name][0])
    if hasattr(module, "COMMANDS"):
        return module.COMMANDS, module.ABOUT
    return {"": module.COMMAND}, ""


def run(words: Sequence[str]) -> int:
    """One call of the command line, everything printed: its exit code."""
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        print_commands()
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in MODULES:
        known = nearest(name, MODULES) or f"; they are {', '.join(MODULES)}"
        print(redact(f"there is no command {name[:80]!r}{known}"), file=sys.stderr)
        return WRONG_INPUT
    jobs, about = commands(name)
    return main(jobs, words[1:], about, program=f"synthfer {name}")


def print_commands() -> None:
    """What `synthfer --help` says."""
    width = max(map(len, MODULES)) + 2
    print("Balanced facial-expression datasets at scale, and proof of whether they help.\n")
    print("Usage  synthfer COMMAND key=value ... [flags]\n\nCommands")
    for name, (_, what) in MODULES.items():
        print(f"  {name:<{width}}{what}")
    print("\nsynthfer COMMAND --help lists the keys and flags of a command; synthfer --version prints the version.")


def entry_point() -> NoReturn:
    """What the installed command `synthfer` calls."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    entry_point()
