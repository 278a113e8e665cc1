"""Every classifier on every test set: `python jobs/evaluate.py checkpoints=[...] datasets=[...] out=...`."""

from synthfer.cli import run
from synthfer.engine.evaluate import EvaluateJob, evaluate, preview

if __name__ == "__main__":
    run(
        EvaluateJob,
        evaluate,
        dry_run=preview,
        about="Prints the matrix of recipes and test sets with intervals and tests, and marks the cells that nobody "
        "should believe: test rows in a checkpoint's ancestry, scores above what labels allow, a wrong class order, "
        "scores that copies carry. Writes matrix.json, .md, .tex, .svg, answers.parquet and index.html.",
        example="python jobs/evaluate.py checkpoints=[out/runs] datasets=[out/fer2013,out/drawn] audits=[out/audit] "
        "baseline=real_only out=out/matrix",
    )
