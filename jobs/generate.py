"""Makes a dataset of generated faces: `python jobs/generate.py out=... [key=value ...]`; --help lists the keys."""

from synthfer.cli import run
from synthfer.engine.generate import generate, preview
from synthfer.engine.settings import GenerateConfig

if __name__ == "__main__":
    run(
        GenerateConfig,
        generate,
        dry_run=preview,
        about="Makes a balanced dataset of generated faces and commits it shard by shard. Stopped or killed at any "
        "moment, the same command goes on where it was.",
        example="python jobs/generate.py out=s3://bucket/run plan.balance=rafdb generator.model=builtin:faces",
    )
