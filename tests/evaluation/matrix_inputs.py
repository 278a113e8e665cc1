"""Test sets, candidates and answers of a matrix, made up from a seed."""

import numpy as np
import pyarrow as pa

from synthfer.classifiers.training_fingerprint import TrainingFingerprint
from synthfer.evaluation import inputs
from synthfer.expressions import EXPRESSIONS
from synthfer.guards.verdict import PAIRS
from synthfer.sample import LINEAGE, SCHEMA

COLUMNS = ("sample_id", "label", "source", "split", *LINEAGE, "pixels_hash", "attributes")


def facts(collection, labels, /, **columns):
    """A row per label; `columns` replace those that are made up: a list, or a text for all rows."""
    ids = [f"{collection}-{i}" for i in range(len(labels))]
    given = {
        "sample_id": ids,
        "label": np.asarray(labels).tolist(),
        "source": collection,
        "split": "test",
        "source_id": ids,
        **{name: [None] * len(ids) for name in LINEAGE[1:]},
        "pixels_hash": [f"pixels of {key}" for key in ids],
        "attributes": [{}] * len(ids),
    } | columns
    repeated = {name: [values] * len(ids) if isinstance(values, str) else values for name, values in given.items()}
    return pa.table(repeated, schema=pa.schema([SCHEMA.field(name) for name in COLUMNS]))


def labels(rows=300, seed=0, classes=range(7)):
    return np.random.default_rng(seed).permutation(np.resize(np.array(classes), rows))


def a_test_set(name="rafdb", given=None, **columns):
    """The rows are of the collection of the same name."""
    table = facts(name, labels() if given is None else given, **columns)
    return inputs.TestSet(name=name, uri=f"out/{name}", hash=f"hash of {name}", splits=("test",), facts=table)


def candidate(name="a-0", recipe=None, seed=0, trained_on=("expw:train",), **given):
    defaults = {"classes": EXPRESSIONS, "selection": "validation", "seen": None}
    recipe = recipe or name.rpartition("-")[0]
    return inputs.Candidate(name=name, recipe=recipe, seed=seed, trained_on=trained_on, **(defaults | given))


def seen(table):
    return TrainingFingerprint.of(table)


def probabilities(truth, sure=2.0, seed=0, classes=7):
    """Softmax of noise with the truth raised by `sure`: float32 (n, classes)."""
    logits = np.random.default_rng(seed).standard_normal((len(truth), classes))
    logits[np.arange(len(truth)), truth] += sure
    powers = np.exp(logits)
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def pairs(*rows):
    """Pairs of an audit from (guard, status, training sample, test sample)."""
    return pa.Table.from_pylist(
        [
            dict(zip(("guard", "status", "left_sample_id", "right_sample_id"), row, strict=True))
            | {"left_side": "train", "right_side": "test"}
            for row in rows
        ],
        PAIRS,
    )
