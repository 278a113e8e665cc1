"""Brings a published collection of faces in as a dataset: `python jobs/ingest.py source=NAME path=... out=...`."""

from synthfer.cli import run
from synthfer.engine.ingest import IngestConfig, ingest, preview

if __name__ == "__main__":
    run(
        IngestConfig,
        ingest,
        dry_run=preview,
        about="Reads a published collection of faces in parallel and commits it shard by shard, with labels by name, "
        "splits and identities. Every difference from the published counts is printed; what cannot be read becomes a "
        "failed row with its reason. Stopped or killed at any moment, the same command goes on where it was.",
        example="python jobs/ingest.py source=fer2013 path=data/fer2013.csv out=s3://bucket/fer2013",
    )
