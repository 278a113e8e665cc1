"""Files of weights from strangers: nothing in them is run, none takes more memory than it has, and each kind of wrong
file is one message that names it."""

import os
import resource
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from synthfer.checkpoints import Checkpoint
from synthfer.classifiers.checkpoints import ClassifierCheckpoint, restore
from synthfer.classifiers.training_fingerprint import TrainingFingerprint
from synthfer.tensors import MAX_TENSORS, fitting, read_tensors
from tests.hostile.cards import card, checkpoint
from tests.hostile.exit_codes import refusal
from tests.hostile.weight_files import (
    Calls,
    called,
    copies,
    old_torch_file,
    old_without_storages,
    one_tensor,
    pickled,
    rewritten,
    safetensors_file,
    torch_file,
)
from tests.special_files import SPECIAL_FILES

PLAIN = {"a": torch.zeros(3), "b": torch.ones(2, 2)}
GOOD = torch_file(PLAIN)
OLD = old_torch_file(PLAIN)
DEEP = 100_000


def deep_map(depth: int) -> dict:
    value: dict = {}
    for _ in range(depth):
        value = {"state_dict": value}
    return value


SAFETENSORS = {
    "empty": b"",
    "seven bytes": bytes(7),
    "no header": bytes(8),
    "garbage": bytes(range(256)) * 4,
    "a header of 10^18 bytes": safetensors_file(b"{}", length=10**18),
    "a header of 2^64 - 1 bytes": safetensors_file(b"{}", length=2**64 - 1),
    "a header of 99 MB that is not there": safetensors_file(b"{}", length=99_000_000),
    "a header that is no JSON": safetensors_file(b"{'a'"),
    "a header that is a list": safetensors_file([1]),
    "a header that is null": safetensors_file(None),
    "a header that is not UTF-8": safetensors_file(b'{"\xff": 1}'),
    "a deep header": safetensors_file(b"[" * DEEP),
    "an unknown type": one_tensor(dtype="F31"),
    "a type that torch has not": one_tensor(dtype="F6_E2M3", shape=[4], offsets=[0, 3], data=bytes(3)),
    "a type that is a number": one_tensor(dtype=32),
    "a shape that is a text": one_tensor(shape="1"),
    "a shape below zero": one_tensor(shape=[-1]),
    "half a row": one_tensor(shape=[1.5]),
    "a shape whose product overflows": one_tensor(shape=[2**33, 2**33]),
    "a shape of 10^18": one_tensor(shape=[10**18]),
    "offsets beyond the file": one_tensor(offsets=[0, 400]),
    "offsets below zero": one_tensor(offsets=[-4, 0]),
    "offsets that run backwards": one_tensor(offsets=[4, 0]),
    "offsets beyond all": one_tensor(offsets=[2**63, 2**63 + 4]),
    "three offsets": one_tensor(offsets=[0, 2, 4]),
    "fewer bytes than its shape": one_tensor(shape=[2]),
    "a gap": one_tensor(offsets=[4, 8], data=bytes(8)),
    "bytes left over": one_tensor(data=bytes(100)),
    "two tensors in one place": safetensors_file(
        {n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)
    ),
    "metadata that is a number": safetensors_file({"__metadata__": 7}),
    "more tensors than any network": safetensors_file(
        {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(MAX_TENSORS + 1)}
    ),
    "a torch file": GOOD,
}
TORCH = {
    "empty": b"",
    "garbage": bytes(range(256)) * 4,
    "a zip of nothing": rewritten(GOOD, data=None, version=None, _0=None, _1=None, byteorder=None),
    "a cut zip": GOOD[: len(GOOD) // 2],
    "a zip without its pickle": rewritten(GOOD, data=None),
    "a zip without its tensors": rewritten(GOOD, _0=None, _1=None),
    "a zip of short tensors": rewritten(GOOD, _0=b"", _1=b""),
    "a deflated zip": rewritten(GOOD, zipfile.ZIP_DEFLATED, _0=bytes(10**6)),
    "an lzma zip": rewritten(GOOD, zipfile.ZIP_LZMA),
    "a pickle of garbage": rewritten(GOOD, data=b"\x80\x02garbage."),
    "an empty pickle": rewritten(GOOD, data=b""),
    "a pickle that ends nowhere": rewritten(GOOD, data=b"\x80\x02}"),
    "a pickle of one dot": rewritten(GOOD, data=b"."),
    "a pickle that takes from nothing": rewritten(GOOD, data=b"\x80\x020."),
    "a pickle without its mark": rewritten(GOOD, data=b"\x80\x02t."),
    "a pickle of 4 GB that are not there": rewritten(GOOD, data=b"\x80\x02X\xff\xff\xff\xff."),
    "a deep pickle": rewritten(GOOD, data=b"\x80\x02" + b"(" * DEEP + b"t" * DEEP + b"."),
    "a memo that is not there": rewritten(GOOD, data=b"\x80\x02h\x07."),
    "a persistent id of nothing": rewritten(GOOD, data=b"\x80\x02NQ."),
    "a persistent id of other parts": rewritten(GOOD, data=b"\x80\x02(X\x07\x00\x00\x00storageNNNNtQ."),
    "an unknown byte order": rewritten(GOOD, byteorder=b"middle"),
    "a number": torch_file(7),
    "null": torch_file(None),
    "a list": torch_file([torch.zeros(1)]),
    "a tensor": torch_file(torch.zeros(1)),
    "texts": torch_file({"a": "b"}),
    "numbers": torch_file({"a": 1.0, "b": torch.zeros(1)}),
    "maps": torch_file({"a": {"b": torch.zeros(1)}}),
    "deep wrappers": torch_file(deep_map(200)),
    "names that are numbers": torch_file({0: torch.zeros(1)}),
    "names that are pairs": torch_file({("a", "b"): torch.zeros(1)}),
    "a wrapper of a list": torch_file({"state_dict": [torch.zeros(1)]}),
    "a tensor without data": torch_file({"a": torch.zeros(10**6, 10**6, device="meta")}),
    "a sparse tensor": torch_file({"a": torch.eye(3).to_sparse()}),
    "a sparse tensor by rows": torch_file({"a": torch.eye(3).to_sparse_csr()}),
    "a quantized tensor": torch_file({"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}),
    "a module": torch_file(nn.Linear(1, 1)),
    "a call": torch_file({"a": Calls(os.system, "exit 7")}),
    "a call of eval": torch_file({"a": Calls(eval, "1 + 1")}),
    "3 GB of bytes by a call": torch_file({"a": Calls(bytearray, 3 * 10**9)}),
    "3 GB of bytes by a call in a plain pickle": pickled({"a": Calls(bytearray, 3 * 10**9)}),
    "3 GB of bytes by a call in an old file": old_torch_file({"a": Calls(bytearray, 3 * 10**9)}),
    "3 GB of a tensor by a call": rewritten(GOOD, data=called("torch", "FloatTensor", 750_000_000)),
    "3 GB of a storage by a call": rewritten(GOOD, data=called("torch.storage", "UntypedStorage", 3 * 10**9)),
    "a text that is encoded": rewritten(GOOD, data=called("_codecs", "encode", "a", "hex")),
    "3,000 copies of a map": rewritten(GOOD, data=copies("collections", "OrderedDict", 100_000, 3_000)),
    "3,000 copies of a set": rewritten(GOOD, data=copies("builtins", "set", 100_000, 3_000)),
    "a pickle under another case": rewritten(GOOD, data=None, DATA=called("builtins", "bytearray", 3 * 10**9)),
    "a pickle of two million steps": rewritten(GOOD, data=b"\x80\x02" + b"N" * 2_000_001 + b"."),
    "a plain pickle": pickled({"a": 1}),
    "a plain pickle of a call": pickled(Calls(os.system, "exit 7")),
    "an old file cut off": OLD[: len(OLD) - 8],
    "an old file of a list": old_torch_file([1]),
    "an old file without its tensors": OLD[: len(OLD) // 2],
    "an old file that claims 10^12 numbers": OLD.replace(
        b"K\x03K\x00\x85", b"\x8a\x06\x00\x00\x00\x00\x00\x7fK\x00\x85"
    ),
    "an old file whose storages are left out": old_without_storages(),
    "more tensors than any network": torch_file({f"t{n}": torch.zeros(0) for n in range(MAX_TENSORS + 1)}),
    "a web page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "a pointer of git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
}


@pytest.mark.parametrize("body", SAFETENSORS.values(), ids=SAFETENSORS)
def test_what_is_no_safetensors_file_is_named(body, tmp_path, capsys):
    uri = checkpoint(tmp_path)
    Path(uri).write_bytes(body)
    said = refusal(lambda: restore(uri), capsys)
    assert f"{uri} holds" in said or f"{uri}: " in said
    assert said.count(uri) == 1 and "\x1b" not in said


@pytest.mark.parametrize("body", TORCH.values(), ids=TORCH)
def test_what_is_no_torch_file_of_tensors_is_named(body, tmp_path, capsys):
    checkpoint(tmp_path)
    path = tmp_path / "model.pth"
    path.write_bytes(body)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = refusal(lambda: restore(str(path)), capsys)
    assert said.count(str(path)) == 1 and "\x1b" not in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


NAMED = {
    "bytes": (torch_file({"a": Calls(bytearray, 9)}), "builtins.bytearray"),
    "bytes in an old file": (old_torch_file({"a": Calls(bytearray, 9)}), "builtins.bytearray"),
    "a number of NumPy": (torch_file({"a": np.float64(1)}), "numpy"),
    "a module": (torch_file(nn.Linear(1, 1)), "torch.nn.modules.linear.Linear"),
    "a call of the system": (torch_file({"a": Calls(os.system, "exit 7")}), "posix.system"),
}


@pytest.mark.parametrize("body, name", NAMED.values(), ids=NAMED)
def test_what_a_pickle_calls_is_named_with_the_way_out(body, name):
    with pytest.raises(ValueError, match=rf"a holds no plain tensors: its pickle names {name}.* \.safetensors"):
        read_tensors(body, ".pth", "a")


def test_what_published_files_hold_beside_their_weights_is_let_through():
    optimizer = torch.optim.Adam((network := nn.Linear(2, 2)).parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    weights = nn.DataParallel(network).state_dict()
    beside = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "names": {"a", "b"}}
    beside |= {"dtype": torch.float16, "device": torch.device("cpu"), "shape": torch.Size([1]), "best": 0.7}
    for write in (torch_file, old_torch_file):
        found = read_tensors(write({"state_dict": weights} | beside), ".pth", "a")
        assert found.keys() == weights.keys()
        assert read_tensors(write(dict(network.named_parameters())), ".pth", "a").keys() == {"weight", "bias"}
    python2 = b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01]q\x02(U\x01aK\x01ea\x85Rq\x03."
    with pytest.raises(ValueError, match="no state dict"):
        read_tensors(rewritten(GOOD, data=python2), ".pth", "a")


def good() -> dict[str, torch.Tensor]:
    return {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}


STATES = {
    "NaN": (good() | {"bias": torch.tensor([0.0, float("nan")])}, "not finite .* bias"),
    "infinity": (good() | {"bias": torch.tensor([0.0, float("-inf")])}, "not finite .* bias"),
    "whole numbers": (good() | {"bias": torch.zeros(2, dtype=torch.int64)}, "1 of another type: bias is torch.int64"),
    "complex numbers": (good() | {"bias": torch.zeros(2, dtype=torch.complex64)}, "1 of another type"),
    "floats of 8 bits": (good() | {"bias": torch.zeros(2).to(torch.float8_e4m3fn)}, "1 of another type"),
    "truths": (good() | {"bias": torch.zeros(2, dtype=torch.bool)}, "1 of another type"),
    "another shape": (good() | {"bias": torch.zeros(3)}, r"1 of another shape: bias is \(3,\), here \(2,\)"),
    "a tensor of 10^12 numbers in 4 bytes": (good() | {"weight": torch.zeros(1).expand(10**6, 10**6)}, "another shape"),
    "one missing": ({"weight": torch.zeros(2, 3)}, "1 missing: bias"),
    "one left over": (good() | {"more": torch.zeros(1)}, "1 unexpected: more"),
    "one twice": (good() | {"module.bias": torch.ones(2)}, "1 there twice: bias"),
    "nothing": ({}, "2 missing"),
    "a long name": (good() | {"x" * 10**6: torch.zeros(1)}, "1 unexpected: x"),
    "a name of dots": (good() | {"...": torch.zeros(1)}, "1 unexpected"),
}


@pytest.mark.parametrize("state, message", STATES.values(), ids=STATES)
def test_tensors_that_do_not_fit_are_listed(state, message, capsys):
    said = refusal(lambda: fitting(nn.Linear(3, 2), state, {}, "a.pth"), capsys)
    assert said.startswith("a.pth")
    with pytest.raises(ValueError, match=message):
        fitting(nn.Linear(3, 2), state, {}, "a.pth")


def test_two_tensors_that_are_renamed_to_one_are_both_named(capsys):
    state = {"x.bias": torch.zeros(2), "y.bias": torch.ones(2), "y.weight": torch.zeros(2, 3)}
    assert "1 there twice: bias" in refusal(lambda: fitting(nn.Linear(3, 2), state, {"x.": "", "y.": ""}, "a"), capsys)


def test_statistics_that_no_network_reads_may_be_anything():
    norm = nn.InstanceNorm2d(2, affine=True, track_running_stats=True)
    state = norm.state_dict() | {"running_var": torch.full((2,), float("nan"))}
    assert fitting(norm, state, {}, "a").keys() == state.keys()


# -- the list of rows beside the weights


def parquet(columns: dict, rows: int = 1, written: str | None = "synthfer-seen/1", **options) -> bytes:
    table = pa.table(columns).slice(0, rows)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"format": written} if written else None), sink, **options)
    return sink.getvalue().to_pybytes()


HASHES = pa.array([np.arange(3, dtype=np.uint64)], pa.list_(pa.uint64()))
COLUMNS = dict.fromkeys(("samples", "parents", "sources", "pixels"), HASHES)
PLAIN_FILE = {"compression": "none", "use_dictionary": False}
WHOLE = parquet(COLUMNS, **PLAIN_FILE)
FINGERPRINTS = {
    "empty": b"",
    "garbage": b"PAR1" + bytes(100) + b"PAR1",
    "cut off": WHOLE[: len(WHOLE) // 2],
    "a footer that lies": WHOLE[:-8] + b"\xff\xff\xff\x7fPAR1",
    "without a format": parquet(COLUMNS, written=None, **PLAIN_FILE),
    "of another format": parquet(COLUMNS, written="synthfer-seen/9", **PLAIN_FILE),
    "of a format that is no text": WHOLE.replace(b"synthfer-seen/1", b"synthfer-seen/\xff"),
    "without rows": parquet(COLUMNS, rows=0, **PLAIN_FILE),
    "of two rows": parquet({name: pa.concat_arrays([HASHES] * 2) for name in COLUMNS}, rows=2, **PLAIN_FILE),
    "without a column": parquet(dict.fromkeys(("samples", "parents"), HASHES), **PLAIN_FILE),
    "with a column more": parquet(COLUMNS | {"more": HASHES}, **PLAIN_FILE),
    "of numbers, not lists": parquet({name: pa.array([1], pa.uint64()) for name in COLUMNS}, **PLAIN_FILE),
    "of texts": parquet({name: pa.array([["a"]], pa.list_(pa.string())) for name in COLUMNS}, **PLAIN_FILE),
    "of signed numbers": parquet({name: pa.array([[-1]], pa.list_(pa.int64())) for name in COLUMNS}, **PLAIN_FILE),
    "of lists that are null": parquet(
        {name: pa.array([None], pa.list_(pa.uint64())) for name in COLUMNS}, **PLAIN_FILE
    ),
    "of hashes that are null": parquet(
        {n: pa.array([[None, 1]], pa.list_(pa.uint64())) for n in COLUMNS}, **PLAIN_FILE
    ),
    "that unpacks to 400 MB": parquet(
        {name: pa.array([np.zeros(10**7, np.uint64)], pa.list_(pa.uint64())) for name in COLUMNS}, compression="zstd"
    ),
    "that repeats one hash 10^7 times": parquet(
        {name: pa.array([np.zeros(10**7, np.uint64)], pa.list_(pa.uint64())) for name in COLUMNS}, compression="none"
    ),
    "of a million rows": parquet(
        {name: pa.array(np.zeros(10**6, np.uint64)) for name in COLUMNS}, rows=10**6, compression="zstd"
    ),
}


@pytest.mark.parametrize("body", FINGERPRINTS.values(), ids=FINGERPRINTS)
def test_what_is_no_fingerprint_is_named(body, tmp_path, capsys):
    uri = checkpoint(tmp_path)
    Path(uri).with_name("model.seen.parquet").write_bytes(body)
    said = refusal(lambda: ClassifierCheckpoint.open(uri).fingerprint, capsys)
    assert uri in said and "seen.parquet" in said


@settings(max_examples=150, deadline=None, derandomize=False)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), cut=st.booleans())
def test_a_spoilt_byte_of_a_fingerprint_is_found_or_harmless(place, bits, cut):
    at = int(place * len(WHOLE))
    body = WHOLE[:at] if cut else WHOLE[:at] + bytes([WHOLE[at] ^ bits]) + WHOLE[at + 1 :]
    try:
        assert isinstance(TrainingFingerprint.from_bytes(body), TrainingFingerprint)
    except ValueError as error:
        assert "seen.parquet" in str(error)


@settings(max_examples=400, deadline=None, derandomize=False)
@given(
    whole=st.sampled_from([(GOOD, ".pth"), (OLD, ".pth"), (safetensors.torch.save(PLAIN), ".safetensors")]),
    place=st.floats(0, 1, exclude_max=True),
    bits=st.integers(0, 255),
    kind=st.sampled_from(["flip", "cut", "insert"]),
)
def test_a_spoilt_byte_gives_tensors_or_an_error_that_names_the_file(whole, place, bits, kind):
    body, suffix = whole
    at = int(place * len(body))
    spoilt = {"flip": bytes([body[at] ^ bits]) + body[at + 1 :], "cut": b"", "insert": bytes([bits]) + body[at:]}[kind]
    try:
        assert all(isinstance(one, torch.Tensor) for one in read_tensors(body[:at] + spoilt, suffix, "a").values())
    except ValueError as error:
        assert str(error).startswith("a holds") or str(error).startswith("a: ")


@settings(max_examples=200, deadline=None, derandomize=False)
@given(body=st.binary(max_size=100), suffix=st.sampled_from([".safetensors", ".pth"]))
def test_any_bytes_are_tensors_or_an_error_that_names_the_file(body, suffix):
    try:
        read_tensors(body, suffix, "a")
    except ValueError as error:
        assert str(error).startswith("a holds")


# -- what is no file, or too large


@pytest.mark.parametrize("name", ["model.safetensors", "model.card.yaml", "model.seen.parquet"])
@pytest.mark.parametrize("kind", [*SPECIAL_FILES, "2 TB"])
def test_what_is_no_file_or_too_large_is_refused_before_it_is_read(name, kind, tmp_path, capsys):
    uri = checkpoint(tmp_path)
    path = tmp_path / name
    path.unlink(missing_ok=True)
    if kind in SPECIAL_FILES:
        SPECIAL_FILES[kind](path)
    else:
        with path.open("wb") as file:
            file.truncate(2 * 10**12)
    assert name in refusal(lambda: ClassifierCheckpoint.open(uri).fingerprint, capsys)


def test_a_healthy_file_gives_the_same_tensors_by_any_way():
    for body, suffix in ((GOOD, ".pth"), (OLD, ".pth"), (safetensors.torch.save(PLAIN), ".safetensors")):
        assert all(torch.equal(value, PLAIN[key]) for key, value in read_tensors(body, suffix, "a").items())


def test_a_card_of_a_larger_network_allocates_nothing(tmp_path, capsys):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    uri = checkpoint(tmp_path, card(options={"channels": [4096] * 10}))
    assert "does not fit Small" in refusal(lambda: restore(uri), capsys)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB; it would have 12 GB


def test_weights_of_a_generator_are_checked_in_the_same_way(tmp_path, capsys):
    checkpoint(tmp_path)
    path = tmp_path / "model.pth"
    path.write_bytes(torch_file({"a": "b"}))
    assert f"{path} holds no state dict" in refusal(lambda: Checkpoint.open(str(path)).tensors(), capsys)
