"""Results of other jobs that somebody damaged or made up: one error that names the file, before anything is scored."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.audit.predictions import read_predictions
from synthfer.engine.train import CONTRACT, claim
from synthfer.evaluation.contamination import read_audits
from synthfer.guards.verdict import AUDIT_FILE, PAIRS, PAIRS_FILE
from synthfer.schema import ConfigError
from synthfer.store import open_store
from synthfer.training import checkpoint, result
from synthfer.training.runs import Run
from tests.audit.splits import side
from tests.special_files import SPECIAL_FILES

SIDE = {"uris": ["a"], "hashes": ["00"], "splits": ["test"], "rows": 3}
DEEP = b"[" * 100_000


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


PAIRS_BODY = parquet(PAIRS.empty_table())


def audit(sides: Any) -> bytes:
    return json.dumps({"status": "pass", "sides": sides}).encode()


def damaged(body: bytes, at: float) -> bytes:
    """The body with some bytes flipped from a share of its length on."""
    start = int(len(body) * at)
    return body[:start] + bytes(byte ^ 0xFF for byte in body[start : start + 16]) + body[start + 16 :]


GOOD = audit({"test": SIDE})
AUDITS: dict[str, tuple[bytes | None, bytes | None, str]] = {
    # id: audit.json, pairs.parquet, and the file that the message names
    "nothing there": (None, None, "there is no audit at"),
    "no verdicts": (None, PAIRS_BODY, "there is no audit at"),
    "no pairs": (GOOD, None, "there is no audit at"),
    "empty": (b"", PAIRS_BODY, AUDIT_FILE),
    "garbage": (b"\x00\xff\xfe", PAIRS_BODY, AUDIT_FILE),
    "cut off": (GOOD[:-5], PAIRS_BODY, AUDIT_FILE),
    "deep": (DEEP, PAIRS_BODY, AUDIT_FILE),
    "deep within": (b'{"sides": {"test": ' + DEEP, PAIRS_BODY, AUDIT_FILE),
    "null": (b"null", PAIRS_BODY, AUDIT_FILE),
    "a list": (b"[]", PAIRS_BODY, AUDIT_FILE),
    "a number": (b"3", PAIRS_BODY, AUDIT_FILE),
    "a number of 5,000 digits": (b"9" * 5000, PAIRS_BODY, AUDIT_FILE),
    "NaN": (b'{"sides": NaN}', PAIRS_BODY, AUDIT_FILE),
    "a key twice": (b'{"sides": {}, "sides": {}}', PAIRS_BODY, AUDIT_FILE),
    "sides null": (audit(None), PAIRS_BODY, AUDIT_FILE),
    "sides a list": (audit([]), PAIRS_BODY, AUDIT_FILE),
    "no test": (audit({"train": SIDE}), PAIRS_BODY, AUDIT_FILE),
    "test a text": (audit({"test": "x"}), PAIRS_BODY, AUDIT_FILE),
    "no hashes": (audit({"test": {"splits": []}}), PAIRS_BODY, AUDIT_FILE),
    "hashes a text": (audit({"test": {**SIDE, "hashes": "00"}}), PAIRS_BODY, AUDIT_FILE),
    "hashes of numbers": (audit({"test": {**SIDE, "hashes": [0]}}), PAIRS_BODY, AUDIT_FILE),
    "hashes of lists": (audit({"test": {**SIDE, "hashes": [[]]}}), PAIRS_BODY, AUDIT_FILE),
    "an unknown split": (audit({"test": {**SIDE, "splits": ["x"]}}), PAIRS_BODY, AUDIT_FILE),
    "half a surrogate": (b'{"sides": {"test": {"hashes": ["\\ud800"], "splits": []}}}', PAIRS_BODY, AUDIT_FILE),
    "pairs empty": (GOOD, b"", PAIRS_FILE),
    "pairs garbage": (GOOD, b"PAR1" + bytes(100) + b"PAR1", PAIRS_FILE),
    "pairs cut off": (GOOD, PAIRS_BODY[:-20], PAIRS_FILE),
    "pairs with a huge footer": (GOOD, b"PAR1" + b"\xff\xff\xff\x7fPAR1", PAIRS_FILE),
    "pairs of another schema": (GOOD, parquet(pa.table({"a": [1]})), PAIRS_FILE),
    "pairs that lack a column": (GOOD, parquet(PAIRS.empty_table().drop_columns(["status"])), PAIRS_FILE),
    "pairs of other types": (
        GOOD,
        parquet(pa.table({name: pa.array([1]) for name in PAIRS.names})),
        PAIRS_FILE,
    ),
    "pairs with a flipped footer": (GOOD, damaged(PAIRS_BODY, 0.6), PAIRS_FILE),
    "pairs are JSON": (GOOD, GOOD, PAIRS_FILE),
}


@pytest.mark.parametrize(("verdicts", "pairs", "said"), AUDITS.values(), ids=AUDITS.keys())
def test_a_damaged_audit_is_one_error_that_names_the_file(
    verdicts: bytes | None, pairs: bytes | None, said: str, tmp_path: Path
) -> None:
    for name, body in ((AUDIT_FILE, verdicts), (PAIRS_FILE, pairs)):
        if body is not None:
            (tmp_path / name).write_bytes(body)
    with pytest.raises(ConfigError) as caught:
        read_audits([str(tmp_path)])
    message = str(caught.value)
    assert message.startswith("audits: ") and said in message and str(tmp_path) in message
    assert "audit" in message.rpartition(": ")[2] or "jobs/audit.py" in message
    assert len(message) < 1200


def test_a_healthy_audit_is_read(tmp_path: Path) -> None:
    (tmp_path / AUDIT_FILE).write_bytes(GOOD)
    (tmp_path / PAIRS_FILE).write_bytes(PAIRS_BODY)
    assert read_audits([str(tmp_path)]).covered == {("00", "test")}


@settings(max_examples=150, deadline=None, derandomize=False)
@given(body=st.binary(max_size=100) | st.builds(damaged, st.sampled_from([GOOD, PAIRS_BODY]), st.floats(0, 0.99)))
def test_any_bytes_are_an_audit_or_our_error(body: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    for name, other in ((AUDIT_FILE, PAIRS_FILE), (PAIRS_FILE, AUDIT_FILE)):
        (folder / name).write_bytes(body)
        (folder / other).write_bytes(PAIRS_BODY if other == PAIRS_FILE else GOOD)
        try:
            read_audits([str(folder)])
        except ConfigError as error:
            assert str(folder) in str(error)


def predictions(**columns: Any) -> bytes:
    return parquet(pa.table(columns))


IDS = ["test0", "test1"]
PROBS = [[1.0, 0, 0, 0, 0, 0, 0]] * 2
PREDICTIONS: dict[str, bytes] = {
    "empty": b"",
    "garbage": b"\x00\xff" * 50,
    "CSV": b"sample_id,predicted\ntest0,1\n",
    "only magic": b"PAR1PAR1",
    "a huge footer": b"PAR1" + b"\xff\xff\xff\x7fPAR1",
    "a footer beyond the file": b"PAR1" + bytes(10) + b"\xff\x00\x00\x00PAR1",
    "cut off": predictions(sample_id=IDS, predicted=[0, 1])[:-9],
    "a flipped footer": damaged(predictions(sample_id=IDS, predicted=[0, 1]), 0.7),
    "no column": parquet(pa.table({})),
    "no ids": predictions(predicted=[0, 1]),
    "no predictions": predictions(sample_id=IDS),
    "ids of lists": predictions(sample_id=[["a"], ["b"]], predicted=[0, 1]),
    "ids of structs": predictions(sample_id=[{"a": 1}, {"a": 2}], predicted=[0, 1]),
    "an id twice": predictions(sample_id=["test0", "test0"], predicted=[0, 1]),
    "ids of null": predictions(sample_id=pa.array([None, None], pa.string()), predicted=[0, 1]),
    "bytes that are no text": predictions(sample_id=pa.array([b"\xff", b"\xfe"]), predicted=[0, 1]),
    "an index of 7": predictions(sample_id=IDS, predicted=[0, 7]),
    "an index of -1": predictions(sample_id=IDS, predicted=[-1, 0]),
    "an index of 10^18": predictions(sample_id=IDS, predicted=[10**18, 0]),
    "an index of 1.5": predictions(sample_id=IDS, predicted=[1.5, 0]),
    "an index of NaN": predictions(sample_id=IDS, predicted=[float("nan"), 0]),
    "an index of infinity": predictions(sample_id=IDS, predicted=[float("inf"), 0]),
    "an unknown name": predictions(sample_id=IDS, predicted=["bored", "happy"]),
    "an empty name": predictions(sample_id=IDS, predicted=["", "happy"]),
    "a prediction of null": predictions(sample_id=IDS, predicted=pa.array([None, 0], pa.int64())),
    "predictions of structs": predictions(sample_id=IDS, predicted=[{"a": 1}, {"a": 1}]),
    "predictions of bytes": predictions(sample_id=IDS, predicted=[b"\xff", b"\x00"]),
    "predictions of dates": predictions(sample_id=IDS, predicted=pa.array([0, 1], pa.date32())),
    "six numbers": predictions(sample_id=IDS, label_probs=[[0.0] * 6] * 2),
    "10,000 numbers": predictions(sample_id=IDS, label_probs=[[0.0] * 10_000] * 2),
    "NaN in probabilities": predictions(sample_id=IDS, label_probs=[[float("nan")] * 7] * 2),
    "probabilities of texts": predictions(sample_id=IDS, label_probs=[["a"] * 7] * 2),
    "probabilities of lists": predictions(sample_id=IDS, label_probs=[[[0.0]] * 7] * 2),
    "too few": predictions(sample_id=IDS[:1], predicted=[0]),
}


@pytest.mark.parametrize("body", PREDICTIONS.values(), ids=PREDICTIONS.keys())
def test_hostile_predictions_are_one_error_that_names_the_file(body: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    path.write_bytes(body)
    with pytest.raises(ValueError, match=r"^predictions: ") as caught:
        read_predictions(str(path), side("test", {}, {}))
    assert "p.parquet" in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", [*SPECIAL_FILES, "nothing", "a name of NUL"])
def test_predictions_that_are_no_file_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    SPECIAL_FILES.get(kind, lambda path: None)(path)
    with pytest.raises(ValueError, match=r"^predictions: "):
        read_predictions(str(path) if kind != "a name of NUL" else "a\0b", side("test", {}, {}))


@settings(max_examples=100, deadline=None, derandomize=False)
@given(at=st.floats(0, 0.99), width=st.integers(1, 40))
def test_any_damage_to_predictions_is_read_or_our_error(
    at: float, width: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    body = predictions(sample_id=IDS, label_probs=PROBS)
    start = int(len(body) * at)
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    path.write_bytes(body[:start] + bytes(byte ^ 0x5A for byte in body[start : start + width]) + body[start + width :])
    try:
        read_predictions(str(path), side("test", {}, {}))
    except ValueError as error:
        assert str(error).startswith("predictions: ")


RUN = Run(name="mixed", seed=0, steps=4, epoch=2, sources=("a",))
RECORD = {"step": 4, "accuracy": 0.5}
HISTORIES: dict[str, Any] = {
    "empty": b"",
    "garbage": b"\xff",
    "deep": DEEP,
    "null": None,
    "a list": [],
    "no history": {"run": {}},
    "history of texts": {"run": {}, "history": ["a"]},
    "history empty": {"run": {}, "history": []},
    "a record without a step": {"run": {}, "history": [{}]},
    "a step of text": {"run": {}, "history": [{"step": "4"}]},
    "best a list": {"run": {}, "history": [RECORD], "best": []},
    "best without a step": {"run": {}, "history": [RECORD], "best": {}},
    "run a text": {"run": "x", "history": [RECORD]},
    "an unknown key": {"run": {}, "history": [RECORD], "x": 1},
}


@pytest.mark.parametrize("value", HISTORIES.values(), ids=HISTORIES.keys())
def test_a_damaged_history_is_one_error_that_names_the_file(value: Any, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put_new(f"{RUN.key}/{result.HISTORY}", value if isinstance(value, bytes) else json.dumps(value).encode())
    with pytest.raises(ValueError, match=r"mixed/seed-0/history\.json"):
        result.read_history(store, RUN)


CONTRACTS = {"empty": b"", "garbage": b"\xff\x00", "deep": DEEP, "NaN": b'{"a": NaN}', "twice": b'{"a": 1, "a": 2}'}
OTHER = {"null": b"null", "a list": b"[]", "a number": b"3", "nothing": b"{}", "deep maps": b'{"a": {"b": {"c": 1}}}'}


@pytest.mark.parametrize("body", [*CONTRACTS.values(), *OTHER.values()], ids=[*CONTRACTS, *OTHER])
def test_a_damaged_experiment_is_one_error_that_names_it(body: bytes, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put_new(CONTRACT, body)
    with pytest.raises(ValueError, match="experiment") as caught:
        claim(store, {"format": "synthfer-training/1", "config": {"a": 1}})
    assert str(tmp_path) in str(caught.value) and len(str(caught.value)) < 1500


def packed() -> bytes:
    return checkpoint.pack(checkpoint.Progress(step=3, history=(RECORD,)), {"model": {}}, {})


def header(outer: Any, tail: bytes = b"") -> bytes:
    text = outer if isinstance(outer, bytes) else json.dumps(outer).encode()
    return len(text).to_bytes(8, "little") + text + tail


def state(inner: Any) -> bytes:
    return header({"__metadata__": {"synthfer": inner if isinstance(inner, str) else json.dumps(inner)}})


WHOLE = {"progress": {"step": 1, "history": [], "schedule": {}, "losses": {}}, "groups": {}, "slots": {}}
CHECKPOINTS: dict[str, bytes] = {
    "empty": b"",
    "short": b"\x01\x02",
    "garbage": b"\xff" * 100,
    "a header of 0": bytes(16),
    "a header beyond the file": (10**6).to_bytes(8, "little") + b"{}",
    "a header of 2^63": (2**63 - 1).to_bytes(8, "little") + b"{}",
    "a header that is no JSON": header(b"{" * 50),
    "a deep header": header(DEEP),
    "a list": header([]),
    "no metadata": header({}),
    "metadata a list": header({"__metadata__": []}),
    "no state": header({"__metadata__": {}}),
    "state a number": header({"__metadata__": {"synthfer": 3}}),
    "state that is no JSON": state("{"),
    "a deep state": state("[" * 50_000),
    "state a list": state([]),
    "no progress": state({"groups": {}, "slots": {}}),
    "progress a list": state({**WHOLE, "progress": []}),
    "progress of other keys": state({**WHOLE, "progress": {"x": 1, "history": []}}),
    "no history": state({**WHOLE, "progress": {"step": 1}}),
    "history a number": state({**WHOLE, "progress": {"step": 1, "history": 3}}),
    "slots a list": state({**WHOLE, "slots": [1]}),
    "slots of odd names": state({**WHOLE, "slots": {"a": 1}}),
    "slots of numbers that are none": state({**WHOLE, "slots": {"a/b/c": 1}}),
    "groups a list": state({**WHOLE, "groups": []}),
    "cut off": packed()[:-30],
    "tensors beyond the file": header(
        {
            "__metadata__": {"synthfer": json.dumps(WHOLE)},
            "model/a": {"dtype": "F32", "shape": [10**6], "data_offsets": [0, 4 * 10**6]},
        }
    ),
    "a shape that overflows": header(
        {
            "__metadata__": {"synthfer": json.dumps(WHOLE)},
            "model/a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]},
        },
        bytes(4),
    ),
}


@pytest.mark.parametrize("body", CHECKPOINTS.values(), ids=CHECKPOINTS.keys())
def test_a_damaged_checkpoint_of_a_training_is_one_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="a checkpoint of the training is damaged") as caught:
        checkpoint.unpack(body)
    assert "goes on from the one before" in str(caught.value) and len(str(caught.value)) < 600


@settings(max_examples=200, deadline=None, derandomize=False)
@given(at=st.floats(0, 0.99), width=st.integers(1, 20), mask=st.integers(1, 255))
def test_any_damage_to_a_checkpoint_is_read_or_our_error(at: float, width: int, mask: int) -> None:
    body = np.frombuffer(packed(), np.uint8).copy()
    body[int(len(body) * at) :][:width] ^= mask
    try:
        checkpoint.unpack(body.tobytes())
    except ValueError as error:
        assert str(error).startswith("a checkpoint of the training is damaged")
