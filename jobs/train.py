"""Trains classifiers and generators: `python jobs/train.py [task=NAME] data.real=URI data.drawn=URI out=...`."""

from synthfer.cli import run_command
from synthfer.engine.train import COMMAND

if __name__ == "__main__":
    run_command(COMMAND)
