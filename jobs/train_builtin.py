"""Trains and evaluates the weights that ship as `builtin:faces`. Needs the extra `avatars`."""

from synthfer.builtin_faces import evaluate as evaluation
from synthfer.builtin_faces import train as training
from synthfer.cli import Command, Invocation, Outcome, run_commands


def train(config: training.TrainConfig, invocation: Invocation) -> Outcome:
    """Train and write the pipeline."""
    training.train(config)
    return Outcome({"model": config.out})


def evaluate(config: evaluation.EvaluateConfig, invocation: Invocation) -> Outcome:
    """How well its pictures follow their prompts."""
    return Outcome(evaluation.evaluate(config))


if __name__ == "__main__":
    run_commands(
        {
            "train": Command(
                training.TrainConfig,
                train,
                about="Draws faces and fits a small Stable Diffusion pipeline to them; takes hours on one core.",
                example="python jobs/train_builtin.py train out=faces work=work",
            ),
            "evaluate": Command(
                evaluation.EvaluateConfig,
                evaluate,
                about="Measures how often a classifier of drawn faces recognises what the prompts asked for.",
                example="python jobs/train_builtin.py evaluate model=synthfer/assets/faces --json",
            ),
        },
        about="Trains and evaluates the model that ships with synthfer.",
    )
