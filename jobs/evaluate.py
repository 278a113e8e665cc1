"""Every classifier on every test set: `python jobs/evaluate.py checkpoints=[...] datasets=[...] out=...`."""

from synthfer.cli import run_command
from synthfer.engine.evaluate import COMMAND

if __name__ == "__main__":
    run_command(COMMAND)
