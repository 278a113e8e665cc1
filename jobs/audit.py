"""Looks for test data in training data, with evidence: `python jobs/audit.py train=URI test=URI out=...`."""

from synthfer.cli import run_command
from synthfer.engine.audit import COMMAND

if __name__ == "__main__":
    run_command(COMMAND)
