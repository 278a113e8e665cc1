"""All scores of one candidate on one test set: with intervals, calibration, groups of people, and its guards."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from synthfer.evaluation import agreement, calibration, fairness, guards
from synthfer.evaluation.cells import AlignedPredictions, Candidate, MatrixConfig, TestSet
from synthfer.evaluation.guards import Contact
from synthfer.evaluation.statistics import cluster_bootstrap
from synthfer.evaluation.verdict import Verdict
from synthfer.expressions import EXPRESSIONS
from synthfer.metrics import METRICS, accuracy, confusion, finite, macro_f1, probability_sums, scores
from synthfer.sample import seed_of

HEADLINES = ("accuracy", "macro_f1", "balanced_accuracy")
"""The metrics that get intervals and means."""


def run(
    candidate: Candidate, test: TestSet, variant: str, answers: AlignedPredictions, found: Contact, config: MatrixConfig
) -> dict[str, Any]:
    """One run of a cell, JSON-able. All but `unmasked` is over the classes that the test set has rows of.

    Intervals draw whole lineages, since pictures of one person or photo hang together. Groups are those of the
    attributes that some row has a value of.
    """
    truth = test.labels
    counts = confusion(truth, answers.predicted)
    seed = seed_of(config.seed, candidate.name, test.name, variant)
    settings: dict[str, Any] = {"replicates": config.replicates, "seed": seed, "level": config.level}
    right = answers.predicted == truth
    return {
        "checkpoint": candidate.name,
        "seed": candidate.seed,
        "scores": scores(counts).to_json(),
        "unmasked": unmasked(answers, truth) if answers.was_masked else None,
        "intervals": {
            name: cluster_bootstrap(truth, answers.predicted, test.lineages, METRICS[name], **settings).to_json()
            for name in HEADLINES
        },
        **probabilities(answers, test),
        "without_flagged": without(found.flagged, truth, answers.predicted) if found.flagged.any() else None,
        "guards": [asdict(verdict) for verdict in verdicts(candidate, test, answers, right.mean(), found, config)],
        "groups": groups(test, answers.predicted, config, seed),
    }


def unmasked(answers: AlignedPredictions, truth: np.ndarray) -> dict[str, Any]:
    """Scores of the answers as they stand: those that name a class without rows are wrong."""
    return scores(confusion(truth, answers.unmasked.argmax(1), len(answers.names)), answers.names).to_json()


def probabilities(answers: AlignedPredictions, test: TestSet) -> dict[str, Any]:
    """Scores of the probabilities (`probability`) and the table behind the calibration error (`reliability`)."""
    present = np.flatnonzero(test.support)
    probs, truth = answers.probs[:, present], np.searchsorted(present, test.labels)
    sums, table = probability_sums(probs, truth), calibration.of_answers(probs, truth)
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


def without(flagged: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Scores of the rows that are not `flagged`, bool (n,); null where none is left."""
    counts = confusion(truth[~flagged], predicted[~flagged])
    told = {"accuracy": float(accuracy(counts)), "macro_f1": float(macro_f1(counts))}
    return {"rows": int(counts.sum()), **finite(told)}


def verdicts(
    candidate: Candidate, test: TestSet, answers: AlignedPredictions, score: float, found: Contact, config: MatrixConfig
) -> list[Verdict]:
    """Guards G7, G8, G9, G10 and G12. `score`: the accuracy."""
    ceiling = guards.ceiling_of(test, config.ceilings)
    # Of the masked answers: taking one class for another that has no row here would look like another order.
    order = agreement.class_order(answers.predicted, test.labels, "the classifier")
    copies = agreement.copies_score(answers.predicted, test.labels, found.flagged, "The classifier")
    return [
        guards.training_data(candidate, found),
        guards.plausible(float(score), test, ceiling),
        order,
        guards.selection(candidate),
        copies,
    ]


def groups(test: TestSet, predicted: np.ndarray, config: MatrixConfig, seed: int) -> Mapping[str, Any]:
    """Rates and gaps by attribute, for the attributes that some row has a value of."""
    told = {}
    for name in config.attributes:
        values = test.attribute(name)
        if any(value is not None for value in values):
            drawn = {"replicates": config.replicates, "seed": seed_of(seed, name)}
            found = fairness.assess(test.labels, predicted, values, len(EXPRESSIONS), config.min_group_rows, **drawn)
            told[name] = found.to_json()
    return told
