"""What a checkpoint has seen: ties as guard G1 finds them, unions, and a file that says the same."""

import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.audit.evidence import flagged
from synthfer.audit.lineage import shared_lineage
from synthfer.classifiers.training_fingerprint import LINK_COLUMNS, TrainingFingerprint, digest, digests
from synthfer.sample import LINEAGE
from tests.audit.splits import sides

COLUMNS = LINK_COLUMNS
TEXTS = st.sampled_from("abcdefgh")
ROW = st.fixed_dictionaries(
    {"sample_id": TEXTS, **dict.fromkeys(LINEAGE, st.none() | TEXTS), "pixels_hash": st.sampled_from("0123456789")}
)
ROWS = st.lists(ROW, max_size=5)


def table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in COLUMNS]))


def tied(row: dict, other: dict) -> bool:
    """By hand: the same sample, made from, descends from, either way round, siblings, or the same pixels."""

    def named(of: dict, *columns: str) -> set[str]:
        return {of[name] for name in columns} - {None}

    kinds = [("sample_id",), ("parent_id", "partner_id"), ("source_id", "partner_source_id")]
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 0), (2, 0)]
    by_id = any(named(row, *kinds[one]) & named(other, *kinds[two]) for one, two in pairs)
    return by_id or row["pixels_hash"] == other["pixels_hash"]


@given(ROWS, ROWS)
@settings(max_examples=150, deadline=None)
def test_rows_are_tied_as_every_pair_by_hand(seen, rows):
    marks = TrainingFingerprint.of(table(seen)).related(table(rows))
    assert marks.dtype == bool
    assert marks.tolist() == [any(tied(row, other) for other in seen) for row in rows]


@given(ROWS, ROWS)
@settings(max_examples=80, deadline=None)
def test_rows_are_tied_as_the_audit_says(seen, rows):
    own_pixels = [[row | {"pixels_hash": f"{side}{i}"} for i, row in enumerate(many)]
                  for side, many in (("seen", seen), ("test", rows))]  # fmt: skip
    both = sides(*own_pixels)
    _, groups = shared_lineage(both)
    assert (
        TrainingFingerprint.of(table(own_pixels[0])).related(table(own_pixels[1])).tolist()
        == flagged(groups, both)["test"].tolist()
    )


@given(ROWS, ROWS, ROWS)
@settings(max_examples=60, deadline=None)
def test_a_union_is_what_all_rows_show(first, second, rows):
    union = TrainingFingerprint.of(table(first)) | TrainingFingerprint.of(table(second))
    assert (
        union
        == TrainingFingerprint.of(table(first + second))
        == TrainingFingerprint.of(table(second)) | TrainingFingerprint.of(table(first))
    )
    either = TrainingFingerprint.of(table(first)).related(table(rows)) | TrainingFingerprint.of(table(second)).related(
        table(rows)
    )
    assert union.related(table(rows)).tolist() == either.tolist()


@given(ROWS, ROWS)
@settings(max_examples=60, deadline=None)
def test_digests_stand_for_the_rows(seen, rows):
    """Made once, they say the same as the texts, together and column by column."""
    found, texts = TrainingFingerprint.of(table(seen)), table(rows)
    once = digests(texts)
    assert once.column_names == list(COLUMNS) and set(once.schema.types) == {pa.uint64()}
    assert found.related(once).tolist() == found.related(texts).tolist()
    nobody = {name: [None] * len(rows) for name in COLUMNS}
    for name, marks in found.related_by(once).items():
        alone = pa.table(nobody | {name: texts[name]}, texts.schema)
        assert marks.tolist() == found.related(alone).tolist()
    ids = texts["sample_id"].combine_chunks()
    assert found.contains(digest(ids)).tolist() == found.contains(ids.to_pylist()).tolist()


def test_only_seen_samples_are_held():
    seen = TrainingFingerprint.of(table([{"sample_id": "a", "parent_id": "b", "source_id": "c", "pixels_hash": "d"}]))
    assert seen.contains(["b", "a", "c", "d", "e"]).tolist() == [False, True, False, False, False]
    assert seen.contains([]).tolist() == []


def test_hashes_are_ascending_and_each_once():
    rows = [{"sample_id": f"s{i % 50}", "source_id": f"p{i % 7}", "pixels_hash": "x"} for i in range(200)]
    seen = TrainingFingerprint.of(table(rows))
    assert [len(part) for part in (seen.samples, seen.parents, seen.sources, seen.pixels)] == [50, 0, 7, 1]
    for part in (seen.samples, seen.parents, seen.sources, seen.pixels):
        assert part.dtype == np.uint64 and (np.diff(part.astype(object)) > 0).all()
    assert seen != TrainingFingerprint.of(table(rows[:40]))


def test_a_digest_is_blake2b_of_the_text_and_null_stays_null():
    texts = pa.chunked_array([["é", None], ["b", "é"]])
    one, two = (int.from_bytes(hashlib.blake2b(t.encode(), digest_size=8).digest(), "little") for t in ("é", "b"))
    assert digest(texts).to_pylist() == [one, None, two, one]


@given(ROWS)
@settings(max_examples=30, deadline=None)
def test_a_file_says_the_same_and_is_the_same(rows):
    seen = TrainingFingerprint.of(table(rows))
    body = seen.to_bytes()
    assert TrainingFingerprint.from_bytes(body) == seen
    assert TrainingFingerprint.of(table(rows[::-1])).to_bytes() == body


def test_damaged_and_foreign_files_are_refused():
    body = TrainingFingerprint.of(table([{"sample_id": f"s{i}", "pixels_hash": "x"} for i in range(300)])).to_bytes()
    middle = len(body) // 3
    for damaged in (b"", body[:-40], body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]):
        with pytest.raises(ValueError, match=r"damaged, or not the fingerprint of a training"):
            TrainingFingerprint.from_bytes(damaged)
    foreign = io.BytesIO()
    pq.write_table(pa.table({"samples": [[1]]}), foreign)
    with pytest.raises(ValueError, match="has format 'nothing'; the fingerprint of a training has 'synthfer-seen/1'"):
        TrainingFingerprint.from_bytes(foreign.getvalue())
