"""What a finished run of a task leaves: weights for a generator, their card, what they have seen, the run's history.

The weights are those after the last step: validation of what a network makes up is for the eye, and chooses nothing.
The card is written last: a run whose card is there is done.
"""

import json

import pyarrow as pa

from synthfer.checkpoints import OWN, Card
from synthfer.classifiers.training_fingerprint import TrainingFingerprint
from synthfer.store import ObjectStore
from synthfer.tensors import write_tensors
from synthfer.training.adversarial import TaskTraining
from synthfer.training.data import Data
from synthfer.training.feed import trained
from synthfer.training.result import CARD, HISTORY, MODEL, SEEN, facts, publish
from synthfer.training.runs import Run


def write(store: ObjectStore, training: TaskTraining, data: Data) -> None:
    """Leaves what a finished training has made, and deletes the states on the way there."""
    run, task = training.run, training.task
    card = Card(
        **task.card(),
        source=OWN,
        trained_on=trained_on(data, run),
        training=facts(training.config, run, training.place, data),
    )
    history = training.progress.history
    bodies = {
        MODEL: write_tensors(task.weights()),
        SEEN: TrainingFingerprint.of(data.rows.take(pa.array(trained(data, run)))).to_bytes(),
        HISTORY: json.dumps({"run": run.to_json(), "history": history}, indent=1).encode(),
        CARD: card.to_yaml().encode(),
    }
    publish(store, run, bodies)


def trained_on(data: Data, run: Run) -> list[str]:
    """collection:split of all that the weights have learned from, the makers of its data included."""
    used = [source for source in data.describe()["sources"] if source["name"] in run.sources]
    return sorted({pair for source in used for pair in source["trained_on"]})
