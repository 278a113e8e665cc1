"""Trains what learns from faces: `python jobs/train.py [task=NAME] data.real=URI data.made=URI out=...`."""

from synthfer.cli import run_command
from synthfer.engine.train_command import COMMAND

if __name__ == "__main__":
    run_command(COMMAND)
