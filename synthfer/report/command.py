"""The command `gallery`: one self-contained HTML page of a dataset."""

from dataclasses import dataclass

from synthfer.cli import Command, Invocation, Outcome
from synthfer.schema import REQUIRED, option


@dataclass(frozen=True, kw_only=True)
class GalleryConfig:
    """What to show, and where the page goes."""

    uri: str = option(REQUIRED, "The dataset: a folder or s3://bucket/prefix.")
    out: str = option("gallery.html", "The page, a local HTML file; replaced if it is there.")

    def __post_init__(self) -> None:
        if "://" in self.out:
            raise ValueError(
                f"out: the page is a local file, and {self.out} is none: write out=page.html, then copy it"
            )


def write_page(config: GalleryConfig, _: Invocation) -> Outcome:
    """Write the page."""
    from synthfer.report import gallery
    from synthfer.store import Dataset

    path = gallery(Dataset.open(config.uri), config.out)
    return Outcome({"page": str(path), "bytes": path.stat().st_size})


COMMAND = Command(
    GalleryConfig,
    write_page,
    about="Writes one self-contained HTML page of a dataset: counts, contact sheets, failures with reasons, settings.",
    example="python jobs/gallery.py uri=out/faces out=faces.html",
)
