"""Write one self-contained HTML page of a dataset: counts, contact sheets, failures with reasons, settings."""

from dataclasses import dataclass

from synthfer import cli
from synthfer.config import REQUIRED, option


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to show, and where the page goes."""

    uri: str = option(REQUIRED, "The dataset: a folder or s3://bucket/prefix.")
    out: str = option("gallery.html", "The page, a local HTML file; replaced if it is there.")


def show(config: Config, _: cli.Invocation) -> cli.Outcome:
    """Write the page."""
    from synthfer.report import gallery
    from synthfer.store import Dataset

    path = gallery(Dataset.open(config.uri), config.out)
    return cli.Outcome({"page": str(path), "bytes": path.stat().st_size})


if __name__ == "__main__":
    cli.run(Config, show, about=__doc__, example="python jobs/gallery.py uri=out/faces out=faces.html")
