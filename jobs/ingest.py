"""Brings a published collection of faces in as a dataset: `python jobs/ingest.py source=NAME path=... out=...`."""

from synthfer.cli import run_command
from synthfer.engine.ingest import COMMAND

if __name__ == "__main__":
    run_command(COMMAND)
