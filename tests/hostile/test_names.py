"""Dotted names: imported by the user's own word alone, members by protocol, and one line says what they lack."""

import pickle
from pathlib import Path
from types import ModuleType

import pytest

from synthfer import classifiers, embedders, gates, generators, sources
from synthfer.classifiers.checkpoints import collect, restore, save
from synthfer.cli import WRONG_INPUT, main
from synthfer.engine.evaluate import EvaluateJob
from synthfer.engine.generate import COMMAND as GENERATE
from synthfer.engine.ingest import COMMAND as INGEST
from synthfer.engine.train import COMMAND as TRAIN
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.entry import ImageRef
from synthfer.training import tasks
from tests.hostile.cards import card, checkpoint
from tests.hostile.exit_codes import refusal

OWN = "tests.hostile.own_classifier"
BAD = {
    "no letters": ".",
    "two dots": "..",
    "nothing after the dot": "a.",
    "nothing before the dot": ".a",
    "a relative name": "..synthfer.cli",
    "two dots within": "a..b",
    "a space": "a b.c",
    "a path": "/etc/passwd.x",
    "a path upwards": "../a.b",
    "a semicolon": "os;x.y",
    "a digit first": "1a.b",
    "a line break": "os.path\n",
    "a NUL": "os\0.path",
    "a dash": "my-package.net",
    "letters of another script": "оs.path",
    "too long": "a." * 5000 + "a",
    "an interpolation": "${oc.env:HOME}.x",
}
LACKING = {
    "a module of the library": "os.path",
    "a package": "xml.dom",
    "a module of synthfer": "synthfer.cli",
    "nothing like it": "no_such_package.no_such_module",
    "no such module in a package": "synthfer.no_such_module",
    "a module that fails": "tests.hostile.broken_module",
    "a function": "os.path.join",
    "a module of another package": "synthfer.audit.audit",
}
REGISTRIES = [classifiers, generators, sources, embedders, gates, tasks]


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda one: one.__name__.rpartition(".")[2])
@pytest.mark.parametrize("name", [*BAD.values(), *LACKING.values()], ids=[*BAD, *LACKING])
def test_what_is_no_member_is_one_line(registry, name, capsys):
    said = refusal(lambda: registry.module(name), capsys)
    assert name[:10].strip() in said.encode().decode("unicode_escape", "replace") or repr(name)[1:8] in said
    assert "\n" not in said and len(said) < 500


def test_what_fails_on_import_is_said_with_its_error(capsys):
    said = refusal(lambda: gates.module("tests.hostile.broken_module"), capsys)
    assert said == "gate tests.hostile.broken_module cannot be imported: ZeroDivisionError: first line"
    said = refusal(lambda: generators.module("os.path"), capsys)
    assert said == "os.path is no generator: it has not a dataclass Config and a function build."
    assert "a function find" in refusal(lambda: sources.module("os.path"), capsys)


WORDS = {
    "generator=..": GENERATE,
    "generator=os.path": GENERATE,
    "generator=a.": GENERATE,
    "generator=tests.hostile.broken_module": GENERATE,
    "generator=no_such.module": GENERATE,
    "generator=[a, b]": GENERATE,
    "generator={name: 7}": GENERATE,
    "generator={name: [os.path]}": GENERATE,
    "generator.name=xml.dom": GENERATE,
    "gate=a.": GENERATE,
    "gate=os.path": GENERATE,
    "gate=[blank, os.path]": GENERATE,
    "gate={os.path: {}}": GENERATE,
    "classifier=os.path": TRAIN,
    "classifier=..": TRAIN,
    "task=os.path": TRAIN,
    "task=a.": TRAIN,
    "source=os.path": INGEST,
    "source=..": INGEST,
    "source=synthfer.sources.labels": INGEST,
}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_names_no_member_is_wrong_input(word, tmp_path, capsys):
    words = {GENERATE: ["plan.total=7"], TRAIN: ["data={a: a}"], INGEST: ["path=."]}[WORDS[word]]
    assert main({"": WORDS[word]}, [word, *words, f"out={tmp_path}/out", "--dry-run", "--json"]) == WRONG_INPUT
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err and word.partition("=")[0].partition(".")[0] in printed.out


def own(folder: Path) -> str:
    """A checkpoint of a classifier of somebody's own."""
    path = folder / "own.safetensors"
    save(classifiers.build(OWN), path, trained_on=["a:train"])
    return str(path)


def test_a_classifier_of_ones_own_is_restored_where_it_is_named(tmp_path, capsys):
    uri = own(tmp_path)
    said = refusal(lambda: restore(uri), capsys)
    assert OWN in said and "modules=[NAME]" in said
    assert type(restore(uri, [OWN])).__name__ == "Own"
    (opened,) = collect(str(tmp_path), [OWN])
    assert type(pickle.loads(pickle.dumps(opened.without_fingerprint)).restore()).__name__ == "Own"  # noqa: S301


def test_evaluation_takes_the_names_of_ones_own():
    assert EvaluateJob(checkpoints=["a"], datasets=["b"], out="c", modules=[OWN]).modules == [OWN]


def test_naming_one_module_allows_no_other(tmp_path, capsys):
    uri = checkpoint(tmp_path, card(architecture="idlelib.idle"))
    assert "idlelib.idle" in refusal(lambda: restore(uri, [OWN]), capsys)


FORMS = ("os.path", "idlelib.idle", OWN, "fer2013", "labels", "..", "", "__init__", "a" * 9999)


@pytest.mark.parametrize("form", FORMS, ids=[form[:20] for form in FORMS])
def test_the_form_of_a_picture_imports_nothing(form, tmp_path, capsys):
    said = refusal(lambda: CollectionReader(tmp_path).read(ImageRef(form)), capsys)
    assert form[:20] in said and len(said) < 500


def test_a_source_of_ones_own_draws_its_pictures_where_it_is_named(tmp_path, capsys, monkeypatch):
    module = ModuleType("own.source")
    monkeypatch.setitem(__import__("sys").modules, "own.source", module)
    module.Config, module.find, module.picture = EvaluateJob, print, lambda ref: ref.start
    assert CollectionReader(tmp_path, ["own.source"]).read(ImageRef("own.source", start=7)) == 7
    assert "own.source" in refusal(lambda: CollectionReader(tmp_path).read(ImageRef("own.source")), capsys)


def test_shipped_sources_still_draw(tmp_path):
    with pytest.raises((ValueError, LookupError)):
        CollectionReader(None).read(ImageRef("avatars", name="no avatar"))
