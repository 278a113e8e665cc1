"""Is a recipe better than the baseline? Paired tests of the seeds of both on the same rows, corrected for their number.

Rows of one lineage (an identity, an original) are not independent, so a test that took them one by one would find
differences where there are none: whole lineages are swapped, as intervals draw whole lineages. A cell's p-value is the
largest over its pairs of seeds: every pair has to show the difference, so that one lucky seed proves nothing.
All compared cells of a matrix are corrected together (Holm 1979), each metric by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synthfer.evaluation.inputs import Candidate, MatrixConfig, TestSet
from synthfer.metrics import accuracy, macro_f1
from synthfer.sample import seed_of
from synthfer.statistics import Comparison, holm, mcnemar, paired_permutation

COMPARED = ("accuracy", "macro_f1")
MCNEMAR, PERMUTATION, LINEAGES = "mcnemar", "permutation of rows", "permutation of lineages"

Pair = tuple[Candidate, Candidate]


def pairs_of_seeds(candidates: Sequence[Candidate], baseline: Sequence[Candidate]) -> list[Pair]:
    """Each candidate with one of the baseline: those of equal seeds first, then the others in order, while any is left.

    A seed that is None equals no other.
    """
    by_seed = {one.seed: one for one in baseline if one.seed is not None}
    pairs = [(one, by_seed[one.seed]) for one in candidates if one.seed in by_seed]
    paired = {one.name for pair in pairs for one in pair}
    rest = ([one for one in group if one.name not in paired] for group in (candidates, baseline))
    return pairs + list(zip(*rest, strict=False))


def compare(
    pairs: Sequence[Pair], test: TestSet, predicted: Mapping[str, np.ndarray], variant: str, config: MatrixConfig
) -> dict[str, Any]:
    """How one recipe differs from the baseline on a test set: per metric the mean `difference` and the largest `p`.

    `predicted`: the predictions of each candidate by name, int64 (n,). `test` names the test: where no two rows are of
    one lineage, accuracy by McNemar's exact test and macro F1 by paired permutation, else both by swapping the
    predictions of whole lineages. `correct` fills `p_holm` later.
    """
    groups = test.lineages if test.has_shared_lineage else None
    tests = (
        dict.fromkeys(COMPARED, LINEAGES) if test.has_shared_lineage else {"accuracy": MCNEMAR, "macro_f1": PERMUTATION}
    )
    results: dict[str, list[Comparison]] = {name: [] for name in COMPARED}
    for one, other in pairs:
        first, second = predicted[one.name], predicted[other.name]
        seed = seed_of(config.seed, one.name, other.name, test.name, variant)
        options: dict[str, Any] = {"permutations": config.permutations, "seed": seed, "groups": groups}
        results["accuracy"].append(
            paired_permutation(test.labels, first, second, accuracy, **options)
            if test.has_shared_lineage
            else mcnemar(first == test.labels, second == test.labels)
        )
        results["macro_f1"].append(paired_permutation(test.labels, first, second, macro_f1, **options))
    return {
        "baseline": pairs[0][1].recipe,
        "pairs": [[one.name, other.name] for one, other in pairs],
        **{
            name: {
                "test": tests[name],
                "difference": float(np.mean([comparison.difference for comparison in compared])),
                "p": max(comparison.p for comparison in compared),
                "p_holm": None,
            }
            for name, compared in results.items()
        },
    }


def correct(comparisons: Sequence[dict[str, Any]]) -> None:
    """Fills `p_holm` of all comparisons of a matrix."""
    for name in COMPARED:
        corrected = holm([comparison[name]["p"] for comparison in comparisons])
        for comparison, p in zip(comparisons, corrected.tolist(), strict=True):
            comparison[name]["p_holm"] = p
