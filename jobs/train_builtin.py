"""Makes and measures the weights that ship as `builtin:faces`. Needs the extra `avatars`."""

from synthfer.builtin_faces import faces, judge
from synthfer.cli import Command, Invocation, Outcome, run_commands


def train(config: faces.TrainConfig, invocation: Invocation) -> Outcome:
    """Trains and writes the pipeline."""
    faces.train(config)
    return Outcome({"model": config.out})


def evaluate(config: judge.EvaluateConfig, invocation: Invocation) -> Outcome:
    """The judge's report."""
    return Outcome(judge.evaluate(config))


if __name__ == "__main__":
    run_commands(
        {
            "train": Command(
                faces.TrainConfig,
                train,
                about="Draws faces and fits a small Stable Diffusion pipeline to them; takes hours on one core.",
                example="python jobs/train_builtin.py train out=faces work=work",
            ),
            "evaluate": Command(
                judge.EvaluateConfig,
                evaluate,
                about="Says how often a judge of drawn faces sees in the pictures what the prompts asked for.",
                example="python jobs/train_builtin.py evaluate model=synthfer/assets/faces --json",
            ),
        },
        about="Makes and measures the model that ships with synthfer.",
    )
