"""The command `train`: a classifier or, by `task=NAME`, the networks of a generator."""

from collections.abc import Sequence

from synthfer.cli import Command
from synthfer.engine import task_training, train
from synthfer.engine.training_settings import TaskJob, TrainJob
from synthfer.training import task_settings

_RESUMES = "Killed at any moment, the same command goes on from the last checkpoint to the same weights."


def task_instead(words: Sequence[str], files: Sequence[str]) -> Command | None:
    """The command for tasks, where one is asked for."""
    return TASKS if task_training.is_asked_for(words, files) else None


TASKS = Command(
    TaskJob,
    task_training.train,
    task_training.preview,
    about="Trains a task, as the networks of a generator, on split train of datasets and views, on any number of Ray "
    "Train workers. Losses, validation and grids of pictures go into the log; what is left is weights with a card. "
    + _RESUMES,
    example="python jobs/train.py task=vae_gan task.size=48 data.fer=out/fer2013 out=out/vae",
)
COMMAND = Command(
    TrainJob,
    train.train,
    train.preview,
    about="Trains a classifier of expressions on real data, synthetic data and both, at equal steps, with DDP on "
    f"Ray Train. The best step is chosen on validation data; test splits are not opened. {_RESUMES} "
    f"Tasks besides: task={'|'.join(name for name in task_settings.names() if name != task_settings.CLASSIFIER)}.",
    example="python jobs/train.py data.fer=out/fer2013 data.made=out/faces mix.fer=.5 mix.made=.5 seeds=[0,1,2] "
    "out=s3://bucket/runs/small",
    instead=task_instead,
)
