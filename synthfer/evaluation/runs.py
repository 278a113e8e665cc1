"""All scores of one candidate on one test set: with intervals, calibration, groups of people, and its guards."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from synthfer.evaluation import calibration, contamination, fairness
from synthfer.evaluation.contamination import Overlap
from synthfer.evaluation.inputs import AlignedPredictions, Candidate, MatrixConfig, TestSet
from synthfer.expressions import EXPRESSIONS
from synthfer.guards.predictions import class_order, score_without_copies
from synthfer.guards.verdict import Verdict
from synthfer.metrics import METRICS, accuracy, confusion, finite, macro_f1, probability_sums, scores
from synthfer.sample import seed_of
from synthfer.statistics import cluster_bootstrap

HEADLINES = ("accuracy", "macro_f1", "balanced_accuracy")
"""The metrics that get intervals and means."""


def run(
    candidate: Candidate,
    test: TestSet,
    variant: str,
    predictions: AlignedPredictions,
    overlap: Overlap,
    config: MatrixConfig,
) -> dict[str, Any]:
    """One run of a cell, JSON-able. All but `unmasked` is over the classes that the test set has rows of.

    Intervals draw whole lineages, since pictures of one person or photo are not independent. Groups are those of the
    attributes that some row has a value of.
    """
    truth = test.labels
    counts = confusion(truth, predictions.predicted)
    seed = seed_of(config.seed, candidate.name, test.name, variant)
    settings: dict[str, Any] = {"replicates": config.replicates, "seed": seed, "level": config.level}
    right = predictions.predicted == truth
    return {
        "checkpoint": candidate.name,
        "seed": candidate.seed,
        "scores": scores(counts).to_json(),
        "unmasked": unmasked(predictions, truth) if predictions.was_masked else None,
        "intervals": {
            name: cluster_bootstrap(truth, predictions.predicted, test.lineages, METRICS[name], **settings).to_json()
            for name in HEADLINES
        },
        **probabilities(predictions, test),
        "without_flagged": without_flagged(overlap.flagged, truth, predictions.predicted)
        if overlap.flagged.any()
        else None,
        "guards": [
            one.to_json() for one in verdicts(candidate, test, predictions, float(right.mean()), overlap, config)
        ],
        "groups": groups(test, predictions.predicted, config, seed),
    }


def unmasked(predictions: AlignedPredictions, truth: np.ndarray) -> dict[str, Any]:
    """Scores of the unmasked predictions: those that name a class without rows are wrong."""
    counts = confusion(truth, predictions.unmasked.argmax(1), len(predictions.names))
    return scores(counts, predictions.names).to_json()


def probabilities(predictions: AlignedPredictions, test: TestSet) -> dict[str, Any]:
    """Scores of the probabilities (`probability`) and the table behind the calibration error (`reliability`)."""
    present = np.flatnonzero(test.support)
    probs, truth = predictions.probs[:, present], np.searchsorted(present, test.labels)
    sums, table = probability_sums(probs, truth), calibration.of_predictions(probs, truth)
    return {
        "probability": {
            "top2": sums.top2,
            "nll": sums.nll,
            "brier": sums.brier,
            "ece": table.error,
            "classwise_ece": float(calibration.classwise_error(probs, truth).mean()),
        },
        "reliability": table.to_json(),
    }


def without_flagged(flagged: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Scores of the rows that are not `flagged`, bool (n,); null where none is left."""
    counts = confusion(truth[~flagged], predicted[~flagged])
    return finite({"rows": int(counts.sum()), "accuracy": float(accuracy(counts)), "macro_f1": float(macro_f1(counts))})


def verdicts(
    candidate: Candidate,
    test: TestSet,
    predictions: AlignedPredictions,
    score: float,
    overlap: Overlap,
    config: MatrixConfig,
) -> list[Verdict]:
    """The verdicts of a cell's guards, in the order of their numbers. `score`: the accuracy."""
    predicted = predictions.predicted  # masked: confusing a class with one that has no row here is no other order
    return [
        contamination.training_overlap(candidate, overlap),
        contamination.plausible_score(score, test, contamination.ceiling_of(test, config.ceilings)),
        class_order(predicted, test.labels, "the classifier"),
        contamination.checkpoint_selection(candidate),
        score_without_copies(predicted, test.labels, overlap.flagged, "The classifier"),
    ]


def groups(test: TestSet, predicted: np.ndarray, config: MatrixConfig, seed: int) -> Mapping[str, Any]:
    """Rates and gaps by attribute, for the attributes that some row has a value of."""
    by_attribute = {}
    for name in config.attributes:
        values = test.attribute(name)
        if any(value is not None for value in values):
            draws = {"replicates": config.replicates, "seed": seed_of(seed, name)}
            rates = fairness.assess(test.labels, predicted, values, len(EXPRESSIONS), config.min_group_rows, **draws)
            by_attribute[name] = rates.to_json()
    return by_attribute
