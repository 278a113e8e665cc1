"""The words every other part relies on: expressions, rows, ids, seeds, the schema."""

import json
import math

import numpy as np
import pytest

from synthfer.canonical import canonical_json
from synthfer.expressions import EXPRESSIONS, ORDERS, index_of
from synthfer.sample import METADATA_COLUMNS, SCHEMA, Row, pixels_hash, seed_of


def test_expressions_are_alphabetical_and_every_published_order_holds_all_of_them():
    assert list(EXPRESSIONS) == sorted(EXPRESSIONS)
    for order in ORDERS.values():
        assert sorted(order) == list(EXPRESSIONS)
    assert [index_of(name) for name in ORDERS["rafdb"]] == [6, 2, 1, 3, 5, 0, 4]
    assert [index_of(name) for name in ORDERS["affectnet"]] == [4, 3, 5, 6, 2, 1, 0]


def test_names_are_found_by_their_usual_words_and_others_are_refused_with_the_nearest():
    assert index_of(" Angry ") == 0
    assert index_of("happiness") == 3
    with pytest.raises(ValueError, match="did you mean 'surprise'"):
        index_of("suprise")


def test_an_id_is_a_function_of_the_row_alone():
    row = Row(index=3, label=2, seed=5, attributes={"age": "old", "race": "white"}, prompt="a face")
    same = Row(index=3, label=2, seed=5, attributes={"race": "white", "age": "old"}, prompt="a face")
    assert row.sample_id == same.sample_id
    assert len(row.sample_id) == 32
    assert row.sample_id != Row(index=4, label=2, seed=5, attributes=row.attributes, prompt="a face").sample_id


def test_seeds_depend_on_the_plan_seed_and_every_part():
    seeds = {seed_of(plan, part, i) for plan in (0, 1, 2**63 - 1) for part in ("a", "b") for i in range(100)}
    assert len(seeds) == 600
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, 1) == seed_of(0, 1)


def test_the_pixels_hash_sees_every_pixel_and_the_shape():
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    other = pixels.copy()
    other[3, 5, 2] = 1
    assert pixels_hash(pixels) != pixels_hash(other)
    assert pixels_hash(pixels) != pixels_hash(pixels.reshape(6, 4, 3))
    assert pixels_hash(other[::-1]) == pixels_hash(np.ascontiguousarray(other[::-1]))


def test_the_schema_has_the_image_last_and_tells_hugging_face_every_column():
    assert SCHEMA.names[-1] == "image"
    assert tuple(SCHEMA.names[:-1]) == METADATA_COLUMNS
    features = json.loads(SCHEMA.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == SCHEMA.names
    assert features["label"]["names"] == list(EXPRESSIONS)


def test_canonical_json_is_one_text_for_one_value():
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()
    with pytest.raises(ValueError):
        canonical_json(math.nan)
