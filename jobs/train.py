"""Trains classifiers on real and synthetic data: `python jobs/train.py data.real=URI data.made=URI out=...`."""

from synthfer.cli import run
from synthfer.engine.training import preview, train
from synthfer.engine.training_settings import TrainJob

if __name__ == "__main__":
    run(
        TrainJob,
        train,
        dry_run=preview,
        about="Trains a classifier of expressions on real data, synthetic data and both, at equal steps, with DDP on "
        "Ray Train. The best step is chosen on validation data; test splits are not opened. Killed at any moment, the "
        "same command goes on from the last checkpoint to the same weights.",
        example="python jobs/train.py data.fer=out/fer2013 data.made=out/faces mix.fer=.5 mix.made=.5 seeds=[0,1,2] "
        "out=s3://bucket/runs/small",
    )
