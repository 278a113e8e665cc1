"""The inputs of a cross-dataset matrix: test sets, candidates, and predictions aligned with a test set's labels.

Classes are matched by name. A network's outputs are put into the order of `EXPRESSIONS`, others such as contempt after
them; a class that it lacks has probability 0, so its rows count as wrong. Outputs that the test set has no row of are
masked, as if softmax were over the other logits; the scores of the unmasked predictions are reported, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.classifiers.training_fingerprint import TrainingFingerprint, digests
from synthfer.evaluation.fairness import MIN_ROWS
from synthfer.expressions import EXPRESSIONS, index_of, other
from synthfer.limits import MAX_PERMUTATIONS, MAX_REPLICATES, MAX_ROWS
from synthfer.metrics import checked, confusion, masked
from synthfer.sample import ATTRIBUTES, SPLITS
from synthfer.schema import option
from synthfer.statistics import PERMUTATIONS, REPLICATES

VARIANTS = ("original", "grey48")
"""How the test pictures were shown: as they are, or as FER2013 has them, grey and 48 pixels a side."""
SELECTIONS = ("validation", "unknown", "test")
"""Which rows a checkpoint was selected on, the worst last."""

Predictions = Mapping[tuple[str, str, str], np.ndarray]
"""(candidate, test set, variant) to probabilities, float (n, outputs), rows as in `TestSet.facts`."""

# FERPlus is new labels for the pictures of FER2013, in the same splits.
_SAME_PICTURES = {"ferplus": "fer2013"}


@dataclass(frozen=True, kw_only=True)
class MatrixConfig:
    """What is compared, and how surely."""

    baseline: str | None = option(None, "recipe that every other one is compared with; null: none")
    ceilings: dict[str, float] = option(
        {"fer2013": 0.80, "affectnet": 0.72, "rafdb": 0.955, "expw": 0.76, "sfew": 0.70},
        "highest accuracy by collection that is honestly reached: a score above it fails",
        low=0,
        high=1,
    )
    attributes: list[str] = option(
        ["gender", "age", "race"], "attributes whose groups are compared", choices=ATTRIBUTES
    )
    min_group_rows: int = option(MIN_ROWS, "rows that a group needs to be compared", low=1, high=MAX_ROWS)
    replicates: int = option(REPLICATES, "bootstrap draws of each interval", low=100, high=MAX_REPLICATES)
    permutations: int = option(PERMUTATIONS, "draws of each paired permutation test", low=100, high=MAX_PERMUTATIONS)
    max_flagged_share: float = option(
        0.0, "share of test rows with an audited copy in training data that is tolerated", low=0, high=1
    )
    level: float = option(0.95, "confidence level of intervals", low=0.5, high=0.999)
    seed: int = option(0, "of all draws", low=0)


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """A column of the matrix: labelled rows of one dataset or view.

    `facts` has a row per picture and the columns sample_id, label (0..6), source (the collection), split, source_id,
    parent_id, pixels_hash and attributes (struct of texts). `ValueError` where there is no row, or one without a label,
    or one sample twice.
    """

    name: str
    uri: str
    hash: str
    splits: tuple[str, ...]
    facts: pa.Table

    def __post_init__(self) -> None:
        if not len(self):
            raise ValueError(f"test set {self.name}: {self.uri} has no labelled row in {', '.join(self.splits)}.")
        try:
            confusion(self.labels, self.labels)
        except ValueError as error:
            raise ValueError(f"test set {self.name}: {error}") from error
        if pc.count_distinct(self.facts["sample_id"], mode="all").as_py() != len(self):
            raise ValueError(f"test set {self.name}: a sample_id occurs twice in {self.uri}; give each row once.")

    def __len__(self) -> int:
        return self.facts.num_rows

    @cached_property
    def labels(self) -> np.ndarray:
        """Expression indices, int64 (n,)."""
        return pc.fill_null(self.facts["label"], -1).to_numpy().astype(np.int64)

    @cached_property
    def support(self) -> np.ndarray:
        """Rows of each expression, int64 (7,)."""
        return np.bincount(self.labels, minlength=len(EXPRESSIONS))

    @cached_property
    def origins(self) -> Mapping[tuple[str, str], int]:
        """Rows by collection and split."""
        grouped = self.facts.select(["source", "split"]).group_by(["source", "split"]).aggregate([([], "count_all")])
        rows = grouped.sort_by([("source", "ascending"), ("split", "ascending")]).to_pylist()
        return {(row["source"], row["split"]): row["count_all"] for row in rows}

    @property
    def collections(self) -> tuple[str, ...]:
        """Names of the collections that the rows are from."""
        return tuple(dict.fromkeys(source for source, _ in self.origins))

    @cached_property
    def lineages(self) -> np.ndarray:
        """A number for each row, int64 (n,), equal where rows show one identity or come from one original."""
        ids = pc.coalesce(self.facts["source_id"], self.facts["sample_id"]).combine_chunks()
        return ids.dictionary_encode().indices.to_numpy().astype(np.int64)

    @cached_property
    def has_shared_lineage(self) -> bool:
        """Whether several rows are of one lineage."""
        return int(self.lineages.max()) + 1 < len(self)

    @cached_property
    def digests(self) -> pa.Table:
        """Hashes of the columns that relate a row to others, for `TrainingFingerprint`."""
        return digests(self.facts)

    def attribute(self, name: str) -> list[str | None]:
        """The value of an attribute of each row (n,); None where it is unknown."""
        values: list[str | None] = pc.struct_field(self.facts["attributes"], name).to_pylist()
        return values


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A checkpoint that is evaluated. Those of one `recipe`, a row of the matrix, differ in their `seed`.

    `classes` names the network's outputs in order. `trained_on`, each "collection:split", is all that it, its teacher
    or its generator is declared to have learned from; `ancestors` is the part of it that `seen` does not cover: the
    data of teacher and generator, None where the declaration does not separate them. `seen` identifies the training
    rows themselves. `selection` is one of `SELECTIONS`. `ValueError` names what is wrong.
    """

    name: str
    recipe: str
    seed: int | None
    classes: tuple[str, ...]
    trained_on: tuple[str, ...]
    selection: str
    seen: TrainingFingerprint | None
    ancestors: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.selection not in SELECTIONS:
            raise ValueError(f"candidate {self.name}: selection is {self.selection!r}, not one of "
                             f"{', '.join(SELECTIONS)}.")  # fmt: skip
        for named in (*self.trained_on, *(self.ancestors or ())):
            collection, _, split = named.rpartition(":")
            if not collection or split not in SPLITS:
                raise ValueError(f"candidate {self.name}: trained_on names {named[:80]!r}; write collection:split with "
                                 f"a split of {', '.join(SPLITS)}, such as rafdb:train.")  # fmt: skip
        outputs = self.outputs
        twice = sorted({name for name in outputs if outputs.count(name) > 1})
        if twice or not outputs:
            problem = f"two outputs are {twice[0]}" if twice else "it has no output"
            raise ValueError(f"candidate {self.name}: {problem}; name each output once, in order.")

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The network's outputs in order, by synthfer's names of the expressions."""
        try:
            return tuple(other(name) or EXPRESSIONS[index_of(name)] for name in self.classes)
        except ValueError as error:
            raise ValueError(f"candidate {self.name}: {error}") from error

    @property
    def names(self) -> tuple[str, ...]:
        """The seven expressions, then the outputs for other classes."""
        return EXPRESSIONS + tuple(name for name in self.outputs if name not in EXPRESSIONS)

    @property
    def declared(self) -> tuple[str, ...]:
        """Training data known by declaration only, sorted: its ancestors' where `seen` has its own rows, else all."""
        if self.seen is not None and self.ancestors is not None:
            return tuple(sorted(set(self.ancestors)))
        return tuple(sorted({*self.trained_on, *(self.ancestors or ())}))


def original_collection(collection: str) -> str:
    """The collection that first published the pictures of `collection`."""
    return _SAME_PICTURES.get(collection, collection)


def diagonal(candidate: Candidate, test: TestSet) -> bool:
    """Whether the test set is a held-out part of a collection that the candidate learned from (not another dataset)."""
    own = {
        original_collection(named.rpartition(":")[0]) for named in (*candidate.trained_on, *(candidate.ancestors or ()))
    }
    return not own.isdisjoint(map(original_collection, test.collections))


@dataclass(frozen=True)
class AlignedPredictions:
    """A candidate's predictions on a test set of n rows, by synthfer's classes.

    `probs` float64 (n, 7) has 0 where the test set has no row of a class. `unmasked` float64 (n, K) has the network's
    probabilities of `names`, the seven expressions and its other classes; `was_masked`: whether it has an output that
    the test set has no row of.
    """

    probs: np.ndarray
    unmasked: np.ndarray
    names: tuple[str, ...]
    was_masked: bool

    @cached_property
    def predicted(self) -> np.ndarray:
        """The most probable class of the test set, int64 (n,)."""
        return self.probs.argmax(1)


def align(candidate: Candidate, test: TestSet, probs: np.ndarray) -> AlignedPredictions:
    """A network's probabilities, float (n, outputs), in the label space of a test set.

    Where a row gives all of its probability to masked classes, the others share it evenly. `ValueError` for another
    shape, for rows that are not probabilities, and where the network has none of the test set's classes.
    """
    where = f"predictions of {candidate.name} on {test.name}"
    if probs.shape != (len(test), len(candidate.outputs)):
        raise ValueError(f"{where}: probabilities are {probs.shape}, expected {(len(test), len(candidate.outputs))}: "
                         "a row per test row, a column per class of the network.")  # fmt: skip
    names = candidate.names
    unmasked = np.zeros((len(test), len(names)))
    try:
        unmasked[:, [names.index(name) for name in candidate.outputs]] = checked(probs)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    present = np.zeros(len(names), bool)
    present[: len(EXPRESSIONS)] = test.support > 0
    has = np.isin(names, candidate.outputs)
    if not (has & present).any():
        raise ValueError(f"{where}: the network has none of its classes; leave this pair out.")
    without = unmasked[:, present].sum(1) == 0  # masking would divide these rows by zero
    filled = np.where(without[:, None], (has & present) / (has & present).sum(), unmasked)
    probabilities = masked(filled, present)[:, : len(EXPRESSIONS)]
    return AlignedPredictions(probabilities, unmasked, names, bool((has & ~present).any()))
