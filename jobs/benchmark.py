"""What synthfer costs and gains, measured: `python jobs/benchmark.py generate [key=value ...] --json`."""

from synthfer.benchmarks.commands import ABOUT, COMMANDS
from synthfer.cli import run_commands

if __name__ == "__main__":
    run_commands(COMMANDS, ABOUT)
