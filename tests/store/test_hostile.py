"""What a stranger may have put into a dataset: contract, seal, manifest, shards, special files. Errors that name it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthfer.sample import SCHEMA
from synthfer.store import Dataset
from tests.store import hostile
from tests.store.hostile import DEEP, call, column, contract, edit, text
from tests.store.tables import filled, spec_of, table_of

CONTRACT, SUCCESS, MANIFEST, SHARD = (
    "_dataset.json",
    "_SUCCESS",
    "_manifest.parquet",
    "data/train-00001-of-00003.parquet",
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    spec = spec_of(kind="latents", method=1, counts={"none": 15})
    return Path(filled(str(tmp_path_factory.mktemp("sound") / "set"), spec).uri)


@pytest.fixture
def place(sound, tmp_path):
    return hostile.copy(sound, tmp_path / "set")


CONTRACTS = {
    "empty": text(""),
    "garbage": text(b"\x00\xff\x80"),
    "cut off": hostile.cut(0.5),
    "null": text("null"),
    "a list": text("[1, 2]"),
    "a text": text('"synthfer/1"'),
    "deep": text(DEEP),
    "deep within a sound one": edit(lambda v: v.update(store=json.loads("[" * 60 + "]" * 60))),
    "a key twice": text('{"format": "synthfer/1", "format": "synthfer/1"}'),
    "of 100 MB": hostile.sparse(100_000_000),
    "of a petabyte": hostile.sparse(2**43),
    "another format": edit(lambda v: v.update(format="synthfer/9")),
    "a format that is a list": edit(lambda v: v.update(format=["synthfer/1"])),
    "no spec": edit(lambda v: v.pop("spec")),
    "a spec that is a list": edit(lambda v: v.update(spec=[])),
    "a spec that is null": edit(lambda v: v.update(spec=None)),
    "no hash of the spec": edit(lambda v: v.pop("spec_sha256")),
    "a hash of the spec that is a number": edit(lambda v: v.update(spec_sha256=7)),
    "store is a text": edit(lambda v: v.update(store="atomic")),
    "a store of another kind": edit(lambda v: v.update(store={"conditional_create": "perhaps"})),
    "an extra key": edit(lambda v: v.update(licence="mine")),
    "totals of another dataset": edit(lambda v: v.update(totals={"rows": 3, "units": 1})),
    "edited": edit(lambda v: v["spec"].update(rows=16)),
    "rows as text": contract(lambda s: s.update(rows="15")),
    "rows as 15.0": contract(lambda s: s.update(rows=15.0)),
    "totals as floats": edit(lambda v: v.update(totals={"rows": 15.0, "units": 3.0})),
    "rows as a fraction": contract(lambda s: s.update(rows=15.5)),
    "rows as true": contract(lambda s: s.update(rows=True)),
    "rows negative": contract(lambda s: s.update(rows=-15)),
    "rows 0": contract(lambda s: s.update(rows=0)),
    "10^10 rows": contract(lambda s: s.update(rows=10**10, unit_size=10**6)),
    "10^15 rows": contract(lambda s: s.update(rows=10**15)),
    "10^30 rows": contract(lambda s: s.update(rows=10**30)),
    "10^400 rows": contract(lambda s: s.update(rows=10**400)),
    "10^9 rows in units of one": contract(lambda s: s.update(rows=10**9, unit_size=1)),
    "units of 10^9": contract(lambda s: s.update(rows=10**9, unit_size=10**9)),
    "unit size 0": contract(lambda s: s.update(unit_size=0)),
    "no unit size": contract(lambda s: s.pop("unit_size")),
    "an extra key in the spec": contract(lambda s: s.update(format="synthfer/1")),
    "a plan that is a list": contract(lambda s: s.update(plan=[])),
    "a plan that is null": contract(lambda s: s.update(plan=None)),
    "a deep plan": contract(lambda s: s.update(plan={"a": json.loads("[" * 60 + "]" * 60)})),
    "a producer that is a text": contract(lambda s: s.update(producer="me")),
    "another schema": contract(lambda s: s.update(schema=99)),
    "a schema that is a list": contract(lambda s: s.update(schema=[[1]])),
    "other expressions": contract(lambda s: s.update(expressions=["joy"])),
    "half a surrogate": text('{"format": "\\ud800"}'),
    "NaN": text('{"format": NaN}'),
    **hostile.SPECIAL,
}


@pytest.mark.parametrize("name", CONTRACTS)
@pytest.mark.parametrize("command", ["verify", "gallery"])
def test_a_contract_that_is_none_is_refused_by_name(place, tmp_path, capsys, name, command):
    CONTRACTS[name](place / CONTRACT)
    words = [f"out={tmp_path / 'page.html'}"] if command == "gallery" else []
    assert call(command, f"uri={place}", *words) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert CONTRACT in error
    assert len(error) < 3000


SEALS = {
    "empty": text(""),
    "garbage": text(b"\xff\x00"),
    "deep": text(DEEP),
    "null": text("null"),
    "a list": text("[]"),
    "a huge file": hostile.sparse(2**40),
    "no hash": edit(lambda v: v.pop("manifest_hash")),
    "a hash that is no hash": edit(lambda v: v.update(manifest_hash="<b>")),
    "an extra key": edit(lambda v: v.update(more=1)),
    "rows as text": edit(lambda v: v.update(rows="15")),
    "other rows": edit(lambda v: v.update(rows=16)),
    "other bytes": edit(lambda v: v.update(bytes=1)),
    "a byte more": edit(lambda v: v.update(bytes=v["bytes"] + 1)),
    "bytes as a float": edit(lambda v: v.update(bytes=float(v["bytes"]))),
    "10^30 bytes": edit(lambda v: v.update(bytes=10**30)),
    "counts of a list": edit(lambda v: v.update(counts=[1])),
    "counts of another sum": edit(lambda v: v["counts"]["fear"].update(accepted=100)),
    "negative counts": edit(lambda v: v["counts"]["fear"].update(accepted=-1)),
    "counts of other names": edit(lambda v: v["counts"].update({"<script>": {"accepted": 0}})),
    "another spec": edit(lambda v: v.update(spec="0" * 64)),
    "another format": edit(lambda v: v.pop("format", None) or v.update(format="synthfer/1")),
    "another table": edit(lambda v: v.update(table="0" * 64)),
    **hostile.SPECIAL,
}


@pytest.mark.parametrize("name", SEALS)
def test_a_seal_that_is_none_is_one_finding_and_never_read_as_good(place, capsys, name):
    SEALS[name](place / SUCCESS)
    assert call("verify", f"uri={place}") == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert any(SUCCESS in problem or MANIFEST in problem for problem in problems)
    assert call("gallery", f"uri={place}", f"out={place / 'page.html'}") == 2
    assert SUCCESS in (error := json.loads(capsys.readouterr().out)["error"]) or MANIFEST in error


def resealed(change):
    """The manifest changed, and `_SUCCESS` with the hash of what it is now: a stranger can do both."""

    def changed(place: Path) -> None:
        import hashlib

        change(place / MANIFEST)
        digest = hashlib.sha256((place / MANIFEST).read_bytes()).hexdigest()
        edit(lambda v: v.update(table=digest))(place / SUCCESS)

    return changed


MANIFESTS = {
    "no Parquet": text("PAR1"),
    "another schema": hostile.table(lambda t: t.select(["unit", "key"])),
    "an extra column": hostile.table(lambda t: t.append_column("more", t["unit"])),
    "units as text": hostile.table(column("unit", str, pa.string())),
    "nulls": hostile.table(column("sha256", lambda row: None)),
    "negative sizes": hostile.table(column("bytes", lambda row: -1)),
    "other rows": hostile.table(column("rows", lambda row: 5)),
    "rows moved between units": hostile.table(column("rows", lambda row: [5, 7, 3][row])),
    "sizes of other shards": hostile.table(column("bytes", lambda row: 1000)),
    "sizes of a petabyte": hostile.table(column("bytes", lambda row: 10**15)),
    "hashes that are none": hostile.table(column("rows_hash", lambda row: "x" * 64)),
    "fewer units": hostile.table(lambda t: t.slice(1)),
    "a unit twice": hostile.table(lambda t: pa.concat_tables([t, t.slice(2)])),
    "a million units": hostile.table(lambda t: t.take([0] * 1_000_000)),
    "units in another order": hostile.table(lambda t: t.take([2, 1, 0])),
    "a footer of 4 GB": hostile.footer_length(2**32 - 9),
    "a footer of 20 MB": hostile.footer_length(20_000_000),
    "no footer": hostile.footer_length(0),
    "one text for all, 4 GB": hostile.table(
        lambda t: t.take([0] * 4000).set_column(6, "counts", hostile.repeated(4000, 10**6)), store_schema=False
    ),
    "cut off": hostile.cut(0.9),
    "texts that are no Unicode": hostile.table(
        lambda t: t.set_column(1, "key", pa.array([b"\xff"] * len(t), pa.binary()).view(pa.string()))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_is_none_is_refused_by_name(place, capsys, name):
    resealed(MANIFESTS[name])(place)
    assert call("gallery", f"uri={place}", f"out={place / 'page.html'}") == 2
    assert MANIFEST in json.loads(capsys.readouterr().out)["error"]
    assert call("verify", f"uri={place}") == 1
    assert any(MANIFEST in problem for problem in json.loads(capsys.readouterr().out)["problems"])


def relabelled(counts: dict) -> None:
    """As many rows by decisions that they do not have."""
    counts["anger"] = {"accepted": 3}


FORGED = {
    "counts of the seal": (SUCCESS, lambda place: edit(lambda v: relabelled(v["counts"]))(place / SUCCESS)),
    "counts of the manifest": (SHARD, resealed(hostile.table(column("counts", lambda row: "{}")))),
    "counts of the manifest, swapped": (
        SHARD,
        resealed(hostile.table(lambda t: t.set_column(6, "counts", t["counts"].take([1, 0, 2])))),
    ),
    "hashes of rows, swapped": (
        SHARD,
        resealed(hostile.table(lambda t: t.set_column(5, "rows_hash", t["rows_hash"].take([1, 0, 2])))),
    ),
}
"""Sound by itself, and not what the shards hold."""


@pytest.mark.parametrize("name", FORGED)
def test_a_seal_that_says_what_the_shards_do_not_is_a_finding(place, capsys, name):
    key, change = FORGED[name]
    change(place)
    assert call("verify", f"uri={place}") == 1
    assert any(problem.startswith(key) for problem in json.loads(capsys.readouterr().out)["problems"])


@pytest.mark.parametrize("name", hostile.SPECIAL)
def test_a_card_that_is_no_file_is_a_finding(place, capsys, name):
    hostile.SPECIAL[name](place / "README.md")
    assert call("verify", f"uri={place}") == 1
    assert any(problem.startswith("README.md: is ") for problem in json.loads(capsys.readouterr().out)["problems"])


def test_a_text_for_a_number_is_shown_as_a_text(place, capsys):
    contract(lambda s: s.update(rows="16"))(place / CONTRACT)
    assert call("verify", f"uri={place}") == 2
    assert 'rows: expected integer >= 1, got "16"' in json.loads(capsys.readouterr().out)["error"]


def unsealed(place: Path) -> None:
    for name in (SUCCESS, MANIFEST):
        (place / name).unlink()


def note(name: str, value: str | bytes | None):
    """The shard's footer with another entry."""

    def changed(path: Path) -> None:
        stored = pq.read_table(path)
        metadata = {**(stored.schema.metadata or {}), **(pq.read_metadata(path).metadata or {})}
        metadata.pop(b"ARROW:schema", None)
        if value is None:
            metadata.pop(f"synthfer.{name}".encode(), None)
        else:
            metadata[f"synthfer.{name}".encode()] = value if isinstance(value, bytes) else value.encode()
        pq.write_table(stored.replace_schema_metadata(metadata), path, use_dictionary=False)

    return changed


def repeat(stored: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """The first row as often as there are values, with these in one column."""
    return stored.take([0] * len(values)).set_column(SCHEMA.get_field_index(name), name, values)


def rows(change):
    """The shard with other rows under its own footer."""

    def changed(path: Path) -> None:
        stored = pq.read_table(path)
        metadata = {k: v for k, v in pq.read_metadata(path).metadata.items() if k != b"ARROW:schema"}
        changed = change(stored.cast(SCHEMA))
        pq.write_table(changed.replace_schema_metadata({**SCHEMA.metadata, **metadata}), path, store_schema=False)

    return changed


SHARDS = {
    "empty": text(""),
    "garbage": text(b"PAR1" + bytes(range(256)) * 4),
    "cut off": hostile.cut(0.7),
    "a footer of 4 GB": hostile.footer_length(2**32 - 9),
    "a footer of 20 MB": hostile.footer_length(20_000_000),
    "no footer": hostile.footer_length(0),
    "no note of the unit": note("unit", None),
    "a unit as text": note("unit", '"1"'),
    "a unit of 5,000 digits": note("unit", "9" * 5000),
    "another unit": note("unit", "2"),
    "rows as null": note("rows", "null"),
    "counts that are a list": note("counts", "[]"),
    "counts that are deep": note("counts", DEEP),
    "counts below 0": note("counts", '{"fear": {"accepted": -6, "failed": 12}}'),
    "notes that are no JSON": note("notes", "{"),
    "notes that are a list": note("notes", "[1]"),
    "a hash that is none": note("rows_hash", "zz"),
    "a spec that is no Unicode": note("spec", b"\xff"),
    "another format": note("format", "synthfer/1"),
    "a format that nobody knows": note("format", "synthfer/7"),
    "a label of 99": rows(column("label", lambda row: 99)),
    "a label below 0": rows(column("label", lambda row: -2)),
    "a decision of its own": rows(column("decision", lambda row: "<b>maybe</b>")),
    "a split of its own": rows(column("split", lambda row: "all")),
    "no ids": rows(column("sample_id", lambda row: None)),
    "no split": rows(column("split", lambda row: None)),
    "three label_probs": rows(column("label_probs", lambda row: [0.1, 0.2, 0.7])),
    "label_probs of NaN": rows(column("label_probs", lambda row: [float("nan")] * 7)),
    "a box of one number": rows(column("box", lambda row: [1.0])),
    "scores without values": rows(column("scores", lambda row: [{"gate": "a", "value": None}])),
    "texts that are no Unicode": rows(
        lambda t: t.set_column(
            SCHEMA.get_field_index("prompt"), SCHEMA.field("prompt"),
            pa.array([b"\xff\xfe"] * len(t), pa.binary()).view(pa.string()),
        )
    ),
    "other columns": rows(lambda t: t.drop_columns(["prompt"])),
    "labels as text": rows(column("label", lambda row: "fear", pa.string())),
    "one row more": rows(lambda t: pa.concat_tables([t, t.slice(5)])),
    "a million rows": rows(lambda t: t.take([0] * 1_000_000)),
    "one prompt for all, 4 GB": rows(lambda t: repeat(t, "prompt", hostile.repeated(4000, 10**6))),
    "one attribute for all, 4 GB": rows(
        lambda t: repeat(t, "attributes", pa.StructArray.from_arrays([hostile.repeated(4000, 10**6)], ["age"]))
    ),
    **{name: change for name, change in hostile.SPECIAL.items() if name != "a folder"},
}  # fmt: skip


NOT_ON_THE_PAGE = {
    "a split of its own", "no split", "three label_probs", "label_probs of NaN", "a box of one number",
}  # fmt: skip
"""In columns that the page does not read."""


@pytest.mark.parametrize("name", SHARDS)
def test_a_shard_that_is_none_is_named_by_every_reader(place, capsys, name):
    unsealed(place)
    SHARDS[name](place / SHARD)
    code = call("gallery", f"uri={place}", f"out={place / 'page.html'}")
    outcome = json.loads(capsys.readouterr().out)
    assert (code == 2 and SHARD in outcome["error"]) or (code == 0 and name in NOT_ON_THE_PAGE)
    assert call("verify", f"uri={place}") == 1
    assert any(problem.startswith(SHARD) for problem in json.loads(capsys.readouterr().out)["problems"])
    with pytest.raises(ValueError, match="train-00001-of-00003"):
        list(Dataset(str(place)).scan(SCHEMA.names))


def test_a_folder_under_a_shards_name_is_no_commit_and_named_when_it_is_in_the_way(place, capsys):
    unsealed(place)
    hostile.folder(place / SHARD)
    dataset = Dataset(str(place))
    assert dataset.missing().tolist() == [1]
    for ask in (dataset.is_committed, lambda unit: dataset.commit(unit, table_of(range(6, 12)), {})):
        with pytest.raises(ValueError, match=r"train-00001-of-00003\.parquet is a folder, not a file"):
            ask(1)
    assert call("verify", f"uri={place}") == 1
    assert any(f"{SHARD}/inside" in problem for problem in json.loads(capsys.readouterr().out)["problems"])


def test_a_shard_larger_than_any_unit_is_not_read(place, capsys):
    unsealed(place)
    hostile.sparse(2**40)(place / SHARD)
    assert call("gallery", f"uri={place}", f"out={place / 'page.html'}") == 2
    assert SHARD in json.loads(capsys.readouterr().out)["error"]


def test_a_million_missing_shards_are_one_line_and_one_listing(place, capsys):
    unsealed(place)
    contract(lambda spec: spec.update(rows=10**9, unit_size=1000))(place / CONTRACT)
    assert call("verify", f"uri={place}") == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert len(problems) < 20
    assert any("999,992 more of 1,000,000 shards are missing" in problem for problem in problems)
    assert call("gallery", f"uri={place}", f"out={place / 'page.html'}") == 0


def test_a_thousand_stray_files_are_counted(place, capsys):
    for number in range(1000):
        (place / "data" / f"stray-{number}").touch()
    assert call("verify", f"uri={place}") == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert len(problems) < 20
    assert any("992 more objects" in problem for problem in problems)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode)),
    name=st.sampled_from([CONTRACT, SUCCESS, MANIFEST, SHARD]),
)
def test_any_bytes_under_any_name_are_an_error_of_ours(sound, tmp_path_factory, body, name):
    place = hostile.copy(sound, tmp_path_factory.mktemp("any") / "set")
    (place / name).write_bytes(body)
    with pytest.raises(ValueError, match=name):
        list(Dataset(str(place)).scan(SCHEMA.names))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.floats(0, 1), name=st.sampled_from([MANIFEST, SHARD, CONTRACT, SUCCESS]))
def test_a_bit_flipped_anywhere_is_an_error_of_ours_or_none(sound, tmp_path_factory, at, name):
    place = hostile.copy(sound, tmp_path_factory.mktemp("flip") / "set")
    hostile.flipped(at)(place / name)
    try:
        dataset = Dataset(str(place))
        assert dataset.verify() or name in (CONTRACT, SUCCESS)
        list(dataset.scan(SCHEMA.names))
    except (ValueError, FileNotFoundError) as error:
        assert "set" in str(error)
