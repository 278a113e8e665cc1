"""Makes a dataset of generated faces: `python jobs/generate.py out=... [key=value ...]`; --help lists the keys."""

from synthfer.cli import run_command
from synthfer.engine.generate import COMMAND

if __name__ == "__main__":
    run_command(COMMAND)
