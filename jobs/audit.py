"""Says with evidence whether training data touches test data: `python jobs/audit.py train=URI test=URI out=...`."""

from synthfer.cli import run
from synthfer.engine import audit

if __name__ == "__main__":
    run(
        audit.AuditJob,
        audit.run,
        dry_run=audit.preview,
        about="Looks for test samples in training data: shared lineage, identical pixels, perceptual and embedding "
        "duplicates, turned, cropped and mirrored copies; wrong class orders, conflicting labels, and scores that "
        "copies carry. Plants copies of its own and must find them. Exit code 1 where a guard fails; the "
        "files are written all the same.",
        example="python jobs/audit.py train=out/synthetic,out/fer2013 test=out/fer2013 out=out/audit dedupe=true",
    )
