"""The gallery of edits: faces beside what was made of them, scores summed up, and what it says where faces are gone."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from synthfer import gates
from synthfer.engine.generation_worker import generate_rows, read_faces, to_table
from synthfer.images import ImageConfig
from synthfer.planning import build, edits
from synthfer.report import gallery
from synthfer.schema import Choice
from synthfer.store import Dataset, Spec
from synthfer.store.image_reader import ImageReader
from tests.engine import face_generators
from tests.planning.face_datasets import even, faces_dataset

PNG = ImageConfig(format="png")


def edited(folder: Path, faces: str) -> Dataset:
    """Every face in all seven expressions, measured by a likeness of patches."""
    plan = build(Choice("edits", edits.Config(faces=faces, intensity=(0.2, 1.0))))
    generator = face_generators.build(face_generators.Config(batch_size=4))
    gate = gates.build("edits", identity="patches")
    spec = Spec(plan=plan.spec(), producer=generator.producer(), image={}, rows=len(plan), unit_size=7)
    dataset = Dataset.create(str(folder), spec)
    assert plan.faces is not None
    plan.faces.write(dataset.store)
    with ThreadPoolExecutor(1) as encoders:
        for unit in range(spec.units):
            rows = plan.rows(spec.unit_rows(unit))
            files = read_faces(plan, rows, ImageReader(plan.faces.uris))
            results = [future.result() for future in generate_rows(generator, rows, PNG, encoders, files, gate)]
            dataset.commit(unit, to_table(rows, results, source="turned", producer="x"), {})
    dataset.seal()
    return dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("edits")
    faces = faces_dataset(root / "faces", even(5), kind="real", broken=(2,))
    return faces, edited(root / "edits", faces)


def test_each_face_stands_beside_its_seven_edits(made, tmp_path):
    page = gallery(made[1], tmp_path / "page.html").read_text()
    section = page.partition('<section id="faces">')[2].partition("</section>")[0]
    assert section.count("<figcaption>the face</figcaption>") == 5
    assert section.count("<figcaption>happy</figcaption>") == 5
    assert section.count("<img") == 4 * 8
    assert "does not preserve their privacy" in section
    assert "same person" in section and "background change" in section
    assert section.count("unreadable picture") == 8  # of the face whose file is damaged, and its edits


def test_without_the_faces_the_edits_are_shown_alone(made, tmp_path, caplog):
    faces, dataset = made
    moved = Path(shutil.move(faces, tmp_path / "moved"))
    try:
        page = gallery(dataset, tmp_path / "page.html").read_text()
    finally:
        shutil.move(moved, faces)
    assert "the faces themselves are not shown" in caplog.text
    section = page.partition('<section id="faces">')[2].partition("</section>")[0]
    assert section.count("picture missing") == 5
    assert section.count("<img") == 4 * 7
