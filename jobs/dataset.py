"""Looks after a dataset: `python jobs/dataset.py verify uri=...`; also gc, card and longtail."""

from synthfer.cli import run_commands
from synthfer.dataset_commands import ABOUT, COMMANDS

if __name__ == "__main__":
    run_commands(COMMANDS, ABOUT)
