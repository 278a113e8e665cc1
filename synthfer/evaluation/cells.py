"""What a cross-dataset matrix is made from: test sets, candidates, and answers put into a test set's label space.

Label spaces are joined by name. A network's outputs are put into the order of `EXPRESSIONS`, others such as contempt
behind them; a class that it lacks has probability 0, so its rows count as wrong. Outputs that the test set has no row
of are masked, as if softmax were over the other logits; the scores of the answers as they stand are given beside.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.classifiers.training_fingerprint import TrainingFingerprint, digests
from synthfer.config import option
from synthfer.evaluation.fairness import MIN_ROWS
from synthfer.evaluation.statistics import PERMUTATIONS, REPLICATES
from synthfer.expressions import EXPRESSIONS, index_of, other
from synthfer.metrics import checked, confusion, masked
from synthfer.sample import ATTRIBUTES, SPLITS

VARIANTS = ("original", "grey48")
"""How the test pictures were shown: as they are, or as FER2013 has them, grey and 48 pixels a side."""
SELECTIONS = ("validation", "unknown", "test")
"""What a checkpoint was chosen on, the worst last."""

Answers = Mapping[tuple[str, str, str], np.ndarray]
"""(candidate, test set, variant) to probabilities, float (n, outputs), rows as in `TestSet.facts`."""

# FERPlus is new labels for the pictures of FER2013, in the same splits.
_SAME_PICTURES = {"ferplus": "fer2013"}


@dataclass(frozen=True, kw_only=True)
class MatrixConfig:
    """What is compared, and how surely."""

    baseline: str | None = option(None, "recipe that every other one is compared with; null: none")
    ceilings: dict[str, float] = option(
        {"fer2013": 0.80, "affectnet": 0.72, "rafdb": 0.955, "expw": 0.76, "sfew": 0.70},
        "accuracy by collection that nobody has honestly passed: above it a score is not believed",
        low=0,
        high=1,
    )
    attributes: list[str] = option(["gender", "age", "race"], "what groups are judged by", choices=ATTRIBUTES)
    min_group_rows: int = option(MIN_ROWS, "rows that a group needs to be judged", low=1)
    replicates: int = option(REPLICATES, "bootstrap draws of each interval", low=100)
    permutations: int = option(PERMUTATIONS, "draws of each paired permutation test", low=100)
    max_flagged_share: float = option(
        0.0, "share of test rows with an audited copy in training data that is put up with", low=0, high=1
    )
    level: float = option(0.95, "share of intervals that hold the true score", low=0.5, high=0.999)
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
            raise ValueError(f"test set {self.name}: a sample_id stands twice in {self.uri}; give each row once.")

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
    def kin(self) -> bool:
        """Whether a lineage has several rows."""
        return int(self.lineages.max()) + 1 < len(self)

    @cached_property
    def digests(self) -> pa.Table:
        """Hashes of what ties a row to others, as `TrainingFingerprint.touches` reads them."""
        return digests(self.facts)

    def attribute(self, name: str) -> list[str | None]:
        """The value of an attribute of each row (n,); None where it is not known."""
        values: list[str | None] = pc.struct_field(self.facts["attributes"], name).to_pylist()
        return values


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A checkpoint that is judged. Those of one `recipe`, a row of the matrix, differ in their `seed`.

    `classes` names the network's outputs in order. `trained_on`, each "collection:split", is all that it, its teacher
    or its generator is declared to have learned from; `ancestors` is the part of it that `seen` does not cover, what
    teacher and generator learned from, and None where nobody told the two apart. `seen` knows the training rows
    themselves. `selection` is one of `SELECTIONS`. `ValueError` names what is wrong.
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
                raise ValueError(f"candidate {self.name}: trained_on names {named!r}; write collection:split with a "
                                 f"split of {', '.join(SPLITS)}, such as rafdb:train.")  # fmt: skip
        outputs = self.outputs
        twice = sorted({name for name in outputs if outputs.count(name) > 1})
        if twice or not outputs:
            problem = f"two outputs are {twice[0]}" if twice else "it has no output"
            raise ValueError(f"candidate {self.name}: {problem}; name each output once, in order.")

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The network's outputs in order, in synthfer's words."""
        try:
            return tuple(other(name) or EXPRESSIONS[index_of(name)] for name in self.classes)
        except ValueError as error:
            raise ValueError(f"candidate {self.name}: {error}") from error

    @property
    def names(self) -> tuple[str, ...]:
        """The seven expressions, then the outputs that are none of them."""
        return EXPRESSIONS + tuple(name for name in self.outputs if name not in EXPRESSIONS)

    @property
    def declared(self) -> tuple[str, ...]:
        """What only a declaration tells of, sorted: all, or where `seen` tells of its own rows, its ancestors' data."""
        if self.seen is not None and self.ancestors is not None:
            return tuple(sorted(set(self.ancestors)))
        return tuple(sorted({*self.trained_on, *(self.ancestors or ())}))


def home(collection: str) -> str:
    """The collection that first published the pictures of `collection`."""
    return _SAME_PICTURES.get(collection, collection)


def diagonal(candidate: Candidate, test: TestSet) -> bool:
    """Whether the test set is of a collection that the candidate learned from: no other dataset, a held-out part."""
    own = {home(named.rpartition(":")[0]) for named in (*candidate.trained_on, *(candidate.ancestors or ()))}
    return not own.isdisjoint(map(home, test.collections))


@dataclass(frozen=True)
class AlignedPredictions:
    """A candidate's answers on a test set of n rows.

    `probs` float64 (n, 7) has 0 where the test set has no row of a class. `unmasked` float64 (n, K) is what the network
    says for `names`, the seven expressions and its other classes; `was_masked` says whether it has an output that the
    test set has no row of.
    """

    probs: np.ndarray
    unmasked: np.ndarray
    names: tuple[str, ...]
    was_masked: bool

    @cached_property
    def predicted(self) -> np.ndarray:
        """The most probable class of the test set, int64 (n,)."""
        return self.probs.argmax(1)


def told(candidate: Candidate, test: TestSet, probs: np.ndarray) -> AlignedPredictions:
    """A network's probabilities, float (n, outputs), in the label space of a test set.

    A row that gives all of its probability to ruled-out classes says nothing of the others: they share it evenly.
    `ValueError` for another shape, for rows that are no probabilities, and where the network has none of the classes.
    """
    where = f"answers of {candidate.name} on {test.name}"
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
    silent = unmasked[:, present].sum(1) == 0
    spoken = np.where(silent[:, None], (has & present) / (has & present).sum(), unmasked)
    within = masked(spoken, present)[:, : len(EXPRESSIONS)]
    return AlignedPredictions(within, unmasked, names, bool((has & ~present).any()))
