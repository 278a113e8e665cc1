"""What a stranger may have put beside a contract: views, an import's index, faces, the batch size; links; cards."""

import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthfer.engine.batch_size import BATCH_SIZE_KEY, recorded_batch_size
from synthfer.planning import faces
from synthfer.planning.faces import FaceTable, open_faces, read_faces
from synthfer.reasons import MAX_LENGTH, stored_reason
from synthfer.sources.entry import Entry, ImageRef
from synthfer.sources.index import KEY as INDEX
from synthfer.sources.index import Index, StoredIndex
from synthfer.store import Dataset, View, open_store, shard
from synthfer.store.card import dataset_card, escaped
from synthfer.store.dataset_ref import open_ref
from synthfer.store.view import SCHEMA as SELECTION_SCHEMA
from tests.store import hostile
from tests.store.hostile import DEEP, call, column, edit, table, text
from tests.store.tables import filled, ids_of, spec_of, table_of, with_column

VIEW, SELECTION = "_view.json", "selection.parquet"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> tuple[Path, Path]:
    """A dataset and a view of it."""
    folder = tmp_path_factory.mktemp("sound")
    dataset = filled(str(folder / "set"))
    ids = ids_of([1, 3, 8])
    selection = pa.table([ids, ["rejected"] * 3, ["a copy"] * 3, [1.0] * 3], schema=SELECTION_SCHEMA)
    return Path(dataset.uri), Path(View.create(str(folder / "view"), [dataset], selection, {"by": "a test"}).uri)


@pytest.fixture
def view(sound, tmp_path) -> Path:
    return hostile.copy(sound[1], tmp_path / "view")


def many(count: int):
    """As many datasets, each under a name of its own."""
    return lambda v: v.update(datasets=[{"uri": f"/nowhere/{n}", "manifest_hash": "0" * 64} for n in range(count)])


VIEWS = {
    "empty": text(""),
    "garbage": text(b"\xff"),
    "null": text("null"),
    "a list": text("[]"),
    "deep": text(DEEP),
    "an empty list of datasets": edit(lambda v: v.update(datasets=[])),
    "no datasets": edit(lambda v: v.pop("datasets")),
    "datasets of texts": edit(lambda v: v.update(datasets=["a", "b"])),
    "datasets without a hash": edit(lambda v: v.update(datasets=[{"uri": "a"}])),
    "an address that is a number": edit(lambda v: v["datasets"][0].update(uri=7)),
    "a dataset twice": edit(lambda v: v.update(datasets=v["datasets"] * 2)),
    "too many datasets": edit(many(20_000)),
    "an extra key": edit(lambda v: v.update(more=1)),
    "made_by is a list": edit(lambda v: v.update(made_by=[])),
    "another format": edit(lambda v: v.update(format="synthfer-view/9")),
    "a format of null": edit(lambda v: v.update(format=None)),
    "another hash": edit(lambda v: v.update(view_hash="0" * 64)),
    "another hash of a dataset": edit(lambda v: v["datasets"][0].update(manifest_hash="0" * 64)),
    "a hash of null": edit(lambda v: v.update(view_hash=None)),
    "another selection": edit(lambda v: v.update(selection_sha256="0" * 64)),
    "a huge file": hostile.sparse(2**40),
    **{name: change for name, change in hostile.SPECIAL.items() if name != "a dangling link"},
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_that_is_none_is_refused_by_name(view, tmp_path, capsys, name):
    VIEWS[name](view / VIEW)
    assert call("longtail", f"uri={view}", f"out={tmp_path / 'out'}") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert VIEW in error or SELECTION in error or "a view" in error
    assert len(error) < 3000


def test_a_view_of_itself_is_refused(view, tmp_path, capsys):
    edit(lambda v: v["datasets"][0].update(uri=str(view)))(view / VIEW)
    assert call("longtail", f"uri={view}", f"out={tmp_path / 'out'}") == 2
    assert "there is no dataset at" in json.loads(capsys.readouterr().out)["error"]


def resigned(change):
    """The selection changed, and the view with the hash of what it is now."""

    def changed(view: Path) -> None:
        import hashlib

        change(view / SELECTION)
        digest = hashlib.sha256((view / SELECTION).read_bytes()).hexdigest()
        edit(lambda v: v.update(selection_sha256=digest))(view / VIEW)

    return changed


SELECTIONS = {
    "no Parquet": text("no"),
    "another schema": table(lambda t: t.select(["sample_id"])),
    "an extra column": table(lambda t: t.append_column("more", t["weight"])),
    "ids as numbers": table(column("sample_id", lambda row: row, pa.int64())),
    "no ids": table(column("sample_id", lambda row: None)),
    "no weights": table(column("weight", lambda row: None)),
    "weights of NaN": table(column("weight", lambda row: float("nan"))),
    "weights below 0": table(column("weight", lambda row: -1.0)),
    "a decision of its own": table(column("decision", lambda row: "<b>")),
    "an id twice": table(lambda t: t.take([0, 0, 1])),
    "an id 3 million times": table(lambda t: t.take([0] * 3_000_000)),
    "ids in another order": table(lambda t: t.take([2, 0, 1])),
    "one reason for all, 4 GB": table(
        lambda t: t.take([0] * 4000).set_column(2, "reason", hostile.repeated(4000, 10**6)), store_schema=False
    ),
    "a footer of 4 GB": hostile.footer_length(2**32 - 9),
    "ids that are no Unicode": table(
        lambda t: t.set_column(0, "sample_id", pa.array([b"\xff"] * len(t), pa.binary()).view(pa.string()))
    ),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_selection_that_is_none_is_refused_by_name(view, tmp_path, capsys, name):
    resigned(SELECTIONS[name])(view)  # its view_hash is another, too, but what is wrong with the rows is said first
    assert call("longtail", f"uri={view}", f"out={tmp_path / 'out'}") == 2
    assert SELECTION in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("name", hostile.SPECIAL)
def test_a_selection_that_is_no_file_is_refused_by_name(view, name):
    hostile.SPECIAL[name](view / SELECTION)
    with pytest.raises(ValueError, match=r"selection\.parquet"):
        View(str(view))


ENTRIES = [Entry(key=f"{n}.png", image=ImageRef("file", f"{n}.png"), label=n % 7) for n in range(10)]


def stored_index(folder: Path, lines: list[str] | None = None) -> Index:
    index = Index.from_entries(ENTRIES)
    index.write(open_store(str(folder)), 4)
    if lines is not None:
        (folder / INDEX).unlink()
        pq.write_table(pa.table({"entry": lines}), folder / INDEX, row_group_size=4)
    return index


def swapped(label: int) -> str:
    return ENTRIES[0].to_json().replace('"label":0', f'"label":{label}')


LINES = {
    "empty": "",
    "deep": '{"key":' + "[" * 5000 + "]" * 5000 + "}",
    "a list": "[]",
    "no key": '{"label":1}',
    "a key that is a number": '{"key":1,"label":1,"reason":"x"}',
    "an extra key": '{"key":"a","label":1,"more":1,"reason":"x"}',
    "neither image nor reason": '{"key":"a","label":1}',
    "a label of 99": swapped(99),
    "a label below 0": swapped(-1),
    "a label as text": '{"key":"a","label":"fear","reason":"x"}',
    "a split of its own": '{"key":"a","label":1,"split":"<b>","reason":"x"}',
    "three label_probs": '{"key":"a","label":1,"label_probs":[0,0,1],"reason":"x"}',
    "a box of two": '{"key":"a","box":[1,2],"label":1,"reason":"x"}',
    "a place that is a text": '{"key":"a","label":1,"place":"a.png"}',
    "a place with another key": '{"key":"a","label":1,"place":{"form":"file","module":"os"}}',
    "a place before the file": '{"key":"a","label":1,"place":{"form":"slice","path":"a","start":-5,"length":4}}',
    "10^30 bytes": '{"key":"a","label":1,"place":{"form":"slice","path":"a","length":1' + "0" * 30 + "}}",
    "NaN": '{"key":"a","label":1,"scores":{"v":NaN},"reason":"x"}',
    "a megabyte and more": '{"key":"' + "a" * 2**20 + '","label":1,"reason":"x"}',
}


@pytest.mark.parametrize("name", LINES)
def test_an_entry_that_is_none_is_refused_by_name(tmp_path, name):
    index = stored_index(tmp_path, [LINES[name], *(entry.to_json() for entry in ENTRIES[1:])])
    stored = StoredIndex(open_store(str(tmp_path)), 10, 4)
    with pytest.raises(ValueError, match=r"_index\.parquet, unit 0"):
        stored.unit(0)
    assert [entry.key for entry in stored.unit(1)] == ["4.png", "5.png", "6.png", "7.png"]
    with pytest.raises(ValueError, match=r"_index\.parquet was changed after the import began"):
        stored.check(index.sha256)


INDEXES = {
    "no Parquet": text("no"),
    "another schema": table(lambda t: t.rename_columns(["line"]), row_group_size=4),
    "numbers": table(column("entry", lambda row: row, pa.int64()), row_group_size=4),
    "fewer rows": table(lambda t: t.slice(1), row_group_size=4),
    "more rows": table(lambda t: pa.concat_tables([t, t]), row_group_size=4),
    "other units": table(lambda t: t, row_group_size=5),
    "cut off": hostile.cut(0.8),
    "a footer of 4 GB": hostile.footer_length(2**32 - 9),
    "labels swapped": table(column("entry", lambda row: ENTRIES[row].to_json().replace('"label":1', '"label":2'))),
    **{name: change for name, change in hostile.SPECIAL.items() if name != "a dangling link"},
}


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_that_was_changed_between_two_runs_stops_the_second(tmp_path, name):
    index = stored_index(tmp_path)
    INDEXES[name](tmp_path / INDEX)
    with pytest.raises(ValueError, match=r"_index\.parquet"):
        index.write(open_store(str(tmp_path)), 4)


def test_an_index_that_nobody_changed_is_written_again(tmp_path):
    stored_index(tmp_path).write(open_store(str(tmp_path)), 4)
    rows = [entry for unit in range(3) for entry in StoredIndex(open_store(str(tmp_path)), 10, 4).unit(unit)]
    assert rows == ENTRIES


@pytest.fixture(scope="module")
def face_table(sound) -> FaceTable:
    return open_faces("plan.faces", str(sound[0]), ["train"])


FACES = {
    "no Parquet": text("no"),
    "another schema": table(lambda t: t.select(["sample_id"])),
    "labels swapped": table(column("label", lambda row: 3)),
    "a label of 99": table(column("label", lambda row: 99)),
    "no ids": table(column("sample_id", lambda row: None)),
    "a split of its own": table(column("split", lambda row: "<b>")),
    "another dataset": table(column("dataset", lambda row: 5)),
    "a unit below 0": table(column("unit", lambda row: -1)),
    "a place below 0": table(column("place", lambda row: -1)),
    "a footer of 4 GB": hostile.footer_length(2**32 - 9),
    "one id for all, 4 GB": table(
        lambda t: t.take([0] * 4000).set_column(0, "sample_id", hostile.repeated(4000, 10**6)), store_schema=False
    ),
    **{name: change for name, change in hostile.SPECIAL.items() if name != "a dangling link"},
}


@pytest.mark.parametrize("name", FACES)
def test_faces_that_were_changed_between_two_runs_stop_the_second(face_table, tmp_path, name):
    store = open_store(str(tmp_path))
    face_table.write(store)
    face_table.write(store)
    FACES[name](tmp_path / faces.KEY)
    for again in (lambda: face_table.write(store), lambda: read_faces(store, face_table.sha256)):
        with pytest.raises(ValueError, match=r"_faces\.parquet"):
            again()


def test_attributes_that_were_changed_between_two_runs_stop_the_second(face_table, tmp_path):
    store = open_store(str(tmp_path))
    face_table.write(store)
    table(column("attributes", lambda row: {"age": "another"}))(tmp_path / faces.KEY)
    with pytest.raises(ValueError, match=r"_faces\.parquet holds other attributes"):
        face_table.write(store)


@pytest.mark.parametrize("uris", ["no JSON", "{}", "[1]", "null", DEEP, '["a", NaN]'])
def test_the_datasets_of_faces_are_a_list_of_texts(face_table, tmp_path, uris):
    face_table.write(open_store(str(tmp_path)))
    stored = pq.read_table(tmp_path / faces.KEY)
    pq.write_table(stored.replace_schema_metadata({"synthfer.faces": uris}), tmp_path / faces.KEY)
    with pytest.raises(ValueError, match=r"_faces\.parquet"):
        read_faces(open_store(str(tmp_path)), face_table.sha256)


SHAPES = ["", "{", "null", "[8]", "8", '{"batch_size": 8}', '{"batch_size": "8", "asked": 16}', DEEP,
          '{"batch_size": 0, "asked": 16}', '{"batch_size": -8, "asked": 16}', '{"batch_size": 32, "asked": 16}',
          '{"batch_size": 1000000000, "asked": 2000000000}', '{"batch_size": 1e30, "asked": 2e30}',
          '{"batch_size": 8, "asked": 16, "more": 1}', '{"batch_size": ' + "9" * 400 + ', "asked": 16}',
          '{"batch_size": 8, "asked": 16}' + " " * 5000]  # fmt: skip


@pytest.mark.parametrize("body", SHAPES)
def test_a_batch_size_that_is_none_is_refused_by_name(tmp_path, body):
    (tmp_path / BATCH_SIZE_KEY).write_text(body)
    with pytest.raises(ValueError, match=r"_shape\.json"):
        recorded_batch_size(open_store(str(tmp_path)))


# -- links


def test_gc_never_follows_a_link_and_deletes_nothing_that_is_not_its_own(sound, tmp_path):
    place, other = hostile.copy(sound[0], tmp_path / "set"), tmp_path / "other"
    hexadecimal = "0" * 32
    own = [f".x.{hexadecimal}.tmp", f"data/.x.{hexadecimal}.tmp", "_probe-12ab-3"]
    foreign = [
        ".editor.tmp",
        "data/.x.tmp",
        f"nested/data/.x.{hexadecimal}.tmp",
        "_probe-12ab/file",
        "_probe-notes.txt",
    ]
    for folder in (place / "nested" / "data", other, place / "_probe-12ab"):
        folder.mkdir(parents=True)
    for name in [*own, *foreign, f"../other/.x.{hexadecimal}.tmp", "../other/_probe-1"]:
        (place / name).touch()
        os.utime(place / name, (time.time() - 7200,) * 2)
    (place / "data" / "elsewhere").symlink_to(other, target_is_directory=True)
    (place / "data" / f".link.{hexadecimal}.tmp").symlink_to(other / f".x.{hexadecimal}.tmp")
    (place / "_probe-77").symlink_to(other, target_is_directory=True)
    os.utime(place / "_probe-77", (time.time() - 7200,) * 2, follow_symlinks=False)
    assert Dataset(str(place)).gc(delete=True, min_age_s=3600) == ["_probe-12ab-3", "_probe-77", *sorted(own[:2])]
    assert sorted(path.name for path in other.iterdir()) == [f".x.{hexadecimal}.tmp", "_probe-1"]
    assert all((place / name).exists() for name in foreign)
    assert any("elsewhere" in finding.key for finding in Dataset(str(place)).verify())


def test_data_that_is_a_link_is_said_and_not_taken_for_an_empty_dataset(sound, tmp_path, capsys):
    place = hostile.copy(sound[0], tmp_path / "set")
    (place / "data").rename(tmp_path / "elsewhere")
    (place / "data").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(ValueError, match="is a link to another place, which is not followed"):
        Dataset(str(place)).missing()
    for command in ("verify", "gallery"):
        words = [f"out={tmp_path / 'page.html'}"] if command == "gallery" else []
        assert call(command, f"uri={place}", *words) == 2
        assert "data is a link to another place" in json.loads(capsys.readouterr().out)["error"]


def test_shards_that_are_links_to_files_are_read(sound, tmp_path):
    place = hostile.copy(sound[0], tmp_path / "set")
    path = place / "data" / "train-00001-of-00003.parquet"
    path.rename(tmp_path / "blob")
    path.symlink_to(tmp_path / "blob")
    assert Dataset(str(place)).verify() == []


@pytest.mark.parametrize(
    "uri", ["", "a\0b", "x" * 5000, "~nobody-of-that-name/x", "/dev/null", "/dev/null/x", "file://host/x"]
)
def test_a_place_that_is_none_is_refused(uri, tmp_path):
    with pytest.raises(ValueError, match=r"cannot store|names the host"):
        Dataset.create(uri, spec_of())


def test_a_folder_that_is_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match="cannot store at"):
        Dataset.create(str(tmp_path / "loop"), spec_of())


@pytest.mark.parametrize("limit", ["MAX_METADATA_BYTES", "MAX_SHARD_BYTES"])
def test_a_unit_that_is_larger_than_readers_take_is_not_committed(tmp_path, monkeypatch, limit):
    dataset = Dataset.create(str(tmp_path), spec_of(rows=6, unit_size=6))
    monkeypatch.setattr(shard, limit, 400)
    with pytest.raises(ValueError, match=r"train-00000.*smaller unit_size"):
        dataset.commit(0, table_of(range(6)), {})


# -- the hash


def test_labels_splits_and_lineage_are_in_the_hash(tmp_path):
    changes = {
        "label": [6 - row for row in range(6)], "label_probs": [[1.0, 0, 0, 0, 0, 0, 0]] * 6, "split": ["test"] * 6,
        "source": ["other"] * 6, "source_id": ["p"] * 6, "parent_id": ["p"] * 6, "partner_id": ["p"] * 6,
        "partner_source_id": ["p"] * 6, "derived_from_real_identity": [True] * 6,
    }  # fmt: skip
    hashes = set()
    for number, (name, values) in enumerate([("prompt", ["same"] * 6), *changes.items()]):
        dataset = Dataset.create(str(tmp_path / str(number)), spec_of(rows=6))
        dataset.commit(0, with_column(table_of(range(6)), name, values), {})
        hashes.add(dataset.seal().manifest_hash)
        assert dataset.verify() == []
    assert len(hashes) == len(changes) + 1


def test_no_content_passes_for_another(tmp_path):
    hashes = set()
    for number, (source, parent) in enumerate(
        [("a", 'b","c'), ('a","b', "c"), ("a\tb", "c"), ("a", "b\tc"), ("", None)]
    ):
        dataset = Dataset.create(str(tmp_path / str(number)), spec_of(rows=6))
        rows = with_column(with_column(table_of(range(6)), "source", [source] * 6), "parent_id", [parent] * 6)
        dataset.commit(0, rows, {})
        hashes.add(dataset.seal().manifest_hash)
    assert len(hashes) == 5


def earlier(uri: Path) -> Dataset:
    """A new dataset of the format before labels were hashed."""
    Dataset.create(str(uri), spec_of())
    edit(lambda value: value.update(format="synthfer/1"))(uri / "_dataset.json")
    return Dataset(str(uri))


def test_a_dataset_of_the_earlier_format_is_resumed_and_sealed_with_its_own_hash(tmp_path, capsys):
    dataset = earlier(tmp_path / "set")
    for unit in range(3):
        Dataset.create(dataset.uri, spec_of()).commit(unit, table_of(dataset.spec.unit_rows(unit)), {})
    manifest = dataset.seal()
    # The hash that the version of that time gave to the same rows.
    assert manifest.manifest_hash == EARLIER
    assert "format" not in json.loads((tmp_path / "set" / "_SUCCESS").read_text())
    assert b"synthfer.format" not in pq.read_metadata(tmp_path / "set" / dataset.spec.key(0)).metadata
    assert Dataset(dataset.uri).verify() == []
    assert sum(batch.num_rows for batch in Dataset(dataset.uri).scan()) == 15
    assert "an earlier format" in (tmp_path / "set" / "README.md").read_text()


EARLIER = "47dfa57b7985b8b26d8fae39f820009399f51443e78908e6168c6651b7ea4675"


def test_a_shard_of_one_format_is_none_of_a_dataset_of_the_other(tmp_path):
    old, new = earlier(tmp_path / "old"), filled(str(tmp_path / "new"), seal=False)
    (tmp_path / "old" / "data").mkdir()
    os.link(tmp_path / "new" / new.spec.key(0), tmp_path / "old" / old.spec.key(0))
    with pytest.raises(ValueError, match=r"format synthfer/2, expected synthfer/1"):
        list(old.scan())


# -- what people read


def test_a_card_shows_what_a_collection_says_as_text_alone():
    hostile_text = (
        "CC-BY <script>alert(1)</script> [x](javascript:a) `b` | *c*\n# head\n---\n~~~\n\u202eevil\x1b[2J\ud800"
    )
    shown = escaped(hostile_text)
    assert "\n" not in shown
    assert not any(char in shown for char in "<>\u202e\x1b\ud800")
    for mark in "[]`|*#~":
        assert shown.count(mark) == shown.count(f"\\{mark}")
    assert escaped("CC BY-NC-SA 4.0; research only (see the site)") == "CC BY-NC-SA 4.0; research only (see the site)"


def test_a_card_stays_one_document_whatever_stands_in_plan_and_producer(sound):
    dataset = Dataset(str(sound[0]))
    words = "~~~\n---\nlicense: mit\n</details><img src=x>\u202e\u2028\u2066"
    spec = spec_of(words=words)
    spec.producer.update(kind="real", licence=words, generator="g", faces={"licences": [words, {"a": 1}]})
    card = dataset_card(spec, dataset.manifest)
    assert card.count("\n---\n") == 1 and card.startswith("---\n")
    assert card.count("\n~~~\n") == card.count("\n~~~json\n") == 3
    assert not any(char in card for char in "\u202e\u2028\u2066")
    outside = "".join(part.partition("\n~~~\n")[2] for part in card.split("\n~~~json\n"))
    assert "<img" not in outside and "&lt;img" in outside
    for odd in ("text", 7, None, {"licences": "text"}):
        spec.producer["faces"] = odd
        dataset_card(spec, dataset.manifest)


@pytest.mark.parametrize("change", [text(b"\xff\xfe"), hostile.gone, *hostile.SPECIAL.values()])
def test_a_card_that_is_none_is_refused_by_name(sound, tmp_path, capsys, change):
    place = hostile.copy(sound[0], tmp_path / "set")
    change(place / "README.md")
    assert call("card", f"uri={place}") == 2
    assert "README.md" in json.loads(capsys.readouterr().out)["error"]


def test_a_card_moves_no_cursor(sound, tmp_path, capsys):
    place = hostile.copy(sound[0], tmp_path / "set")
    (place / "README.md").write_text("a card\x1b]0;title\x07\x1b[2Jof a stranger\n")
    assert call("card", f"uri={place}") == 0
    assert "\x1b" not in capsys.readouterr().err


def test_a_dataset_of_failures_alone_says_so(tmp_path, caplog, capsys):
    dataset = Dataset.create(str(tmp_path / "set"), spec_of(rows=6))
    rows = table_of([4, 9, 14, 19, 24, 29])
    assert set(rows["decision"].to_pylist()) == {"failed"}
    dataset.commit(0, with_column(rows, "sample_id", ids_of(range(6))), {})
    dataset.seal()
    assert "none of its 6 rows is accepted" in caplog.text
    assert "No row is accepted" in (tmp_path / "set" / "README.md").read_text()
    call("verify", f"uri={dataset.uri}")
    assert call("gallery", f"uri={dataset.uri}", f"out={tmp_path / 'page.html'}") == 0


# -- reasons


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("cannot identify image file <_io.BytesIO object at 0x7f1c2b3d4e50>", "cannot identify image file"),
        ("Tensor at 0x7f1c2b3d4e50 is odd", "Tensor at 0x... is odd"),
        ("a colour of 0xff00ff", "a colour of 0xff00ff"),
        ("line\nand\ttab \x1b[31m and \u202e", "line and tab [31m and"),
        ("half \ud800", "half ?"),
        ("no such file: /tmp/tmpab12cd/x.png", "no such file: a temporary file"),
        ("blank image", "blank image"),
        (None, None),
    ],
)
def test_reasons_are_functions_of_the_input(text, stored, monkeypatch):
    assert stored_reason(text) == stored


@given(st.text(st.characters(codec=None), max_size=3000))
def test_any_reason_can_be_stored(text):
    reason = stored_reason(text)
    assert reason is not None and len(reason) <= MAX_LENGTH and reason.isprintable()
    reason.encode()


# -- any bytes


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode)),
    name=st.sampled_from([VIEW, SELECTION]),
)
def test_any_bytes_in_a_view_are_an_error_of_ours(sound, tmp_path_factory, body, name):
    place = hostile.copy(sound[1], tmp_path_factory.mktemp("any") / "view")
    (place / name).write_bytes(body)
    with pytest.raises(ValueError, match=r"_view\.json|selection\.parquet"):
        open_ref(str(place))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(line=st.text(max_size=200), at=st.integers(0, 9))
def test_any_line_in_an_index_is_an_error_of_ours(tmp_path_factory, line, at):
    folder = tmp_path_factory.mktemp("index")
    lines = [entry.to_json() for entry in ENTRIES]
    lines[at] = line
    stored_index(folder, lines)
    with pytest.raises(ValueError, match=r"_index\.parquet"):
        StoredIndex(open_store(str(folder)), 10, 4).unit(at // 4)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.floats(0, 1), name=st.sampled_from(["index", "faces", "selection"]))
def test_a_bit_flipped_in_a_table_is_an_error_of_ours_or_none(sound, face_table, tmp_path_factory, at, name):
    folder = tmp_path_factory.mktemp("flip")
    store = open_store(str(folder))
    try:
        if name == "index":
            index = stored_index(folder)
            hostile.flipped(at)(folder / INDEX)
            index.write(store, 4)
        elif name == "faces":
            face_table.write(store)
            hostile.flipped(at)(folder / faces.KEY)
            read_faces(store, face_table.sha256)
        else:
            place = hostile.copy(sound[1], folder / "view")
            resigned(hostile.flipped(at))(place)
            assert pc.sum(View(str(place)).selection["weight"]).as_py() is not None
    except ValueError as error:
        assert str(folder) in str(error)
