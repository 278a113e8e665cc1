"""Training and validation rows: a split by lineage, so that no training row is related to a validation row.

Rows that share a sample, a parent, an original, an identity or their pixels are one component, over all sources, and
so is whatever they share these with. A component with a validation row has no training row. Where no validation data
is given, whole components of real rows are cut off, stratified by expression, in an order that only their sample ids
decide: the same rows whatever synthetic data is in the mix, unless it ties real rows together.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.classifiers.training_fingerprint import digest
from synthfer.expressions import EXPRESSIONS
from synthfer.sample import LINEAGE

ROLES = ("train", "val", "out")
"""What a row is for; `out` is related to a validation row, and used for neither."""

_IDS = ("sample_id", *LINEAGE)
_ABSENT_FROM_TRAINING, _ABSENT_FROM_VALIDATION = 1e6, 1e3  # beside shares, which are of the order of one
_LEAST = 1e-9


def roles(rows: pa.Table, synthetic: np.ndarray, held_out: np.ndarray, share: float) -> np.ndarray:
    """The role of each row, an index into `ROLES`, int8 (n,).

    `rows` has the columns sample_id, `LINEAGE`, pixels_hash and label (0..6). `held_out`, bool (n,), marks
    the validation rows; where it marks none, about `share` of each expression's real rows is cut off (of all rows,
    where all are synthetic; `synthetic` is bool (n,)). Where no component can be cut off, no row has the role val.
    """
    component = components(rows)
    if not held_out.any():
        held_out = cut_off(rows, component, synthetic, share)
    near = np.zeros(rows.num_rows, bool)
    near[component[held_out]] = True
    role: np.ndarray = np.where(held_out, 1, np.where(near[component], 2, 0)).astype(np.int8)
    return role


def components(rows: pa.Table) -> np.ndarray:
    """The first row of each row's component, int64 (n,).

    Sample, parent and source ids are one kind of name, since parents and sources may be samples; nulls relate no rows.
    """
    count = rows.num_rows
    ids, id_rows, names = _codes([rows[name] for name in _IDS])
    pixels, pixel_rows, pictures = _codes([rows["pixels_hash"]])
    value, row = np.concatenate([ids, pixels + names]), np.concatenate([id_rows, pixel_rows])
    first = np.arange(count)
    while True:
        # Hooking and shortcutting as in FastSV (Zhang, Azad, Hu 2020): passes grow with the logarithm of the paths.
        least = np.full(names + pictures, count)
        np.minimum.at(least, value, first[row])
        after = first.copy()
        np.minimum.at(after, row, least[value])
        np.minimum.at(after, first[row], least[value])
        after = after[after]
        if (after == first).all():
            return first
        first = after


def _codes(columns: list[pa.ChunkedArray]) -> tuple[np.ndarray, np.ndarray, int]:
    """The numbers of the texts in some columns, the rows where they stand, and how many texts there are."""
    texts = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    encoded = pc.dictionary_encode(texts.combine_chunks())
    there = pc.is_valid(encoded).to_numpy(zero_copy_only=False)
    codes = encoded.indices.drop_null().to_numpy().astype(np.int64)
    return codes, np.flatnonzero(there) % max(1, len(columns[0])), len(encoded.dictionary)


@dataclass(frozen=True)
class _Kinds:
    """Components alike in their rows of each class: `rows` int64 (k, 7) of one component, `members` of each kind."""

    rows: np.ndarray
    members: np.ndarray

    def cost(self, held: np.ndarray, share: float) -> np.ndarray:
        """How far `held` rows of each class, int64 (..., 7), are from the share of all: float64 (...).

        The sum over classes of |rows held - rows wanted| / rows wanted; a class that training or validation lacks
        without need outweighs it.
        """
        total = self.members @ self.rows
        divisible = self.members @ (self.rows > 0) > 1
        off = np.abs(held - share * total) / np.maximum(share * total, _LEAST)
        lacks = _ABSENT_FROM_TRAINING * ((held == total) & (total > 0))
        lacks = lacks + _ABSENT_FROM_VALIDATION * ((held == 0) & divisible)
        cost: np.ndarray = (off + lacks).sum(-1)
        return cost


def cut_off(rows: pa.Table, component: np.ndarray, synthetic: np.ndarray, share: float) -> np.ndarray:
    """Marks about `share` of each expression's rows, whole components of real rows, bool (n,).

    At least one row of every expression that two components have is marked and one is left, where whole components
    allow both. The order within a kind of component is that of the `digest` of its sample ids.
    """
    real = np.arange(len(synthetic)) if synthetic.all() else np.flatnonzero(~synthetic)
    roots, which = np.unique(component[real], return_inverse=True)
    classes = len(EXPRESSIONS)
    cells = which * classes + rows["label"].to_numpy()[real]
    counts = np.bincount(cells, minlength=len(roots) * classes).reshape(-1, classes)
    order = np.full(len(roots), np.iinfo(np.uint64).max)
    np.minimum.at(order, which, digest(rows["sample_id"]).to_numpy()[real])
    kinds, kind, members = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
    chosen = _chosen(_Kinds(kinds, members), share)
    ranked = np.lexsort([order, kind])
    place = np.arange(len(roots)) - np.repeat(np.cumsum(members) - members, members)
    cut = np.zeros(len(roots), bool)
    cut[ranked] = place < np.repeat(chosen, members)
    marks = np.zeros(len(synthetic), bool)
    marks[real] = cut[which]
    return marks


def _chosen(kinds: _Kinds, share: float) -> np.ndarray:
    """How many components of each kind are cut off, int64 (k,): the share of each, then mended one by one."""
    edges = np.floor(np.cumsum(kinds.members) * share + 0.5).astype(np.int64)
    chosen = np.diff(edges, prepend=0)
    moves = np.concatenate([kinds.rows, -kinds.rows])
    while True:
        held = chosen @ kinds.rows
        possible = np.concatenate([chosen < kinds.members, chosen > 0])
        costs = np.where(possible, kinds.cost(held + moves, share), np.inf)
        if costs.min() >= kinds.cost(held, share) - _LEAST:
            return chosen
        best = int(costs.argmin())
        chosen[best % len(chosen)] += 1 if best < len(chosen) else -1
