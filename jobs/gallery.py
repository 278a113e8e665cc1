"""Writes one HTML page of a dataset: `python jobs/gallery.py uri=out/faces out=faces.html`."""

from synthfer.cli import run_command
from synthfer.report.command import COMMAND

if __name__ == "__main__":
    run_command(COMMAND)
