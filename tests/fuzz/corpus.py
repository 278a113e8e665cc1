"""Healthy files of every kind that synthfer reads, each with what reads them: what the fuzz test damages.

A target is a folder of files and a function that reads the folder as a user's command would.
"""

import json
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from synthfer import classifiers, generators, images, sources
from synthfer.classifiers import checkpoints
from synthfer.config import load
from synthfer.engine.generate import GenerateConfig
from synthfer.engine.ingest import IngestImages, SampleDefaults, SampleReader
from synthfer.evaluation.contamination import read_audits
from synthfer.faces import FaceConfig
from synthfer.guards.verdict import AUDIT_FILE, PAIRS, PAIRS_FILE
from synthfer.planning.vocabulary import load_preset
from synthfer.sample import SCHEMA
from synthfer.store import Dataset, View
from synthfer.store.view import SCHEMA as SELECTION
from tests import tiny_pipelines
from tests.generators import tiny_weights
from tests.sources.images import cell, pack, png, save
from tests.sources.test_dcface import packed, record, write
from tests.store.tables import filled, ids_of, spec_of

Reader = Callable[[Path], Any]


def dataset(folder: Path) -> None:
    filled(str(folder), spec_of(rows=8, unit_size=4))


def read_dataset(folder: Path) -> None:
    opened = Dataset(str(folder))
    opened.verify(pixels=True)
    opened.gc()
    for batch in opened.scan(SCHEMA.names):
        batch.to_pylist()


def view(folder: Path) -> None:
    source = filled(str(folder / "faces"), spec_of(rows=8, unit_size=8))
    n = 3
    selection = pa.table([ids_of(range(n)), ["rejected"] * n, ["a copy"] * n, [0.5] * n], schema=SELECTION)
    View.create(str(folder / "view"), [source], selection, {"by": "a test"})
    contract = folder / "view" / "_view.json"  # relative to nothing: the folder is copied
    contract.write_text(contract.read_text().replace(str(folder), "FOLDER"))


def read_view(folder: Path) -> None:
    contract = folder / "view" / "_view.json"
    if b"FOLDER" in (body := contract.read_bytes()):
        contract.write_bytes(body.replace(b"FOLDER", str(folder).encode()))
    for batch in View(str(folder / "view")).scan(SCHEMA.names):
        batch.to_pylist()


def classifier(folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = classifiers.build("small", channels=(4, 4))
    checkpoints.save(model, folder / "model.safetensors", trained_on=["fer2013:train"], licence="free")


def torch_classifier(folder: Path) -> None:
    classifier(folder)
    state = checkpoints.restore(folder / "model.safetensors").state_dict()
    torch.save({"state_dict": state}, folder / "model.pth")
    (folder / "model.safetensors").unlink()


def read_classifier(folder: Path) -> None:
    (found,) = checkpoints.collect(str(folder))
    model = found.restore()
    size = model.input.size
    if size <= 256:
        model(torch.zeros(1, 3, size, size))


def generator(name: str) -> Reader:
    def read(folder: Path) -> None:
        made = generators.build(name, weights=str(folder / "model.safetensors"), batch_size=1)
        json.dumps(made.producer())

    return read


def pipeline(folder: Path) -> None:
    tiny_pipelines.save("sd", folder)


def read_pipeline(folder: Path) -> None:
    words = ["out=x", "generator=diffusion", f"generator.model={folder}", "generator.steps=1"]
    options = load(GenerateConfig, words).generator.options
    from synthfer.generators.diffusion import pipelines

    pipelines.load(options, torch.float32)


def collection(source: str) -> Reader:
    """Every entry of a collection as a sample, as the ingest job makes it."""
    module = sources.module(source)
    defaults = SampleDefaults(
        source=source,
        producer="",
        source_type="digitalCapture",
        face=FaceConfig(),
        image=IngestImages(),
        real=True,
    )

    def read(folder: Path) -> None:
        entries = list(module.find(folder, module.Config()).entries)
        if entries:
            SampleReader(folder, defaults).table(entries)

    return read


def class_folders(folder: Path) -> None:
    for number, name in enumerate(("angry", "happy")):
        save(folder / "train" / name / f"{number}.png", number)
    for kind in images.FORMATS:
        body = images.encode(np.full((16, 16, 3), 90, np.uint8), images.ImageConfig(format=kind))
        (folder / "train" / "angry" / f"x.{kind}").write_bytes(body)


def read_pictures(folder: Path) -> None:
    collection("folder")(folder)
    for file in sorted(folder.rglob("*.*")):
        images.digital_source_type(file.read_bytes())


def digiface(folder: Path) -> None:
    pack(folder / "subjects_0-1999_72_imgs.zip", {"0/0.png": png(0), "0/1.png": png(1), "7/0.png": png(2)})
    pack(folder / "subjects_2000-3999_72_imgs.zip", {"2000/0.png": png(3)}, zipfile.ZIP_STORED)


def dcface(folder: Path) -> None:
    write(folder / "record", [record(packed(png(seed))) for seed in range(3)], ["0/a.jpg", "0/b.jpg", "7/a.jpg"])


def parquet(folder: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["sad", "happy"], "_type": "ClassLabel"}}
    table = pa.table({"image": [{"bytes": png(n), "path": f"{n}.png"} for n in range(4)], "label": [0, 1, 0, 1]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), folder / "train.parquet", row_group_size=2)


def fer2013(folder: Path) -> None:
    lines = [f"{code},{cell(code)},Training" for code in range(4)]
    (folder / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *lines]))


def audit(folder: Path) -> None:
    pq.write_table(PAIRS.empty_table(), folder / PAIRS_FILE)
    report = {"sides": {"test": {"hashes": ["0" * 64], "splits": ["test"]}}}
    (folder / AUDIT_FILE).write_text(json.dumps(report))


def config(folder: Path) -> None:
    (folder / "run.yaml").write_text("out: x\nplan: {name: prompts, total: 70}\ngenerator: {name: diffusion}\n")


def read_config(folder: Path) -> None:
    load(GenerateConfig, [], [folder / "run.yaml"])


def vocabulary(folder: Path) -> None:
    source = Path(sources.__file__).parents[1] / "planning" / "presets"
    body = next(iter(sorted(source.rglob("*.yaml")))).read_text()
    (folder / "words.yaml").write_text(body)


def read_vocabulary(folder: Path) -> None:
    load_preset(str(folder / "words.yaml"))


TARGETS: dict[str, tuple[Reader, Reader]] = {
    "dataset": (dataset, read_dataset),
    "view": (view, read_view),
    "classifier": (classifier, read_classifier),
    "classifier by torch": (torch_classifier, read_classifier),
    "editor": (tiny_weights.expression_editor, generator("expression_editor")),
    "vae_gan": (tiny_weights.vae_gan, generator("vae_gan")),
    "gan": (tiny_weights.gan, generator("gan")),
    "pipeline": (pipeline, read_pipeline),
    "pictures": (class_folders, read_pictures),
    "zip archives": (digiface, collection("digiface")),
    "records": (dcface, collection("dcface")),
    "parquet": (parquet, collection("parquet")),
    "csv": (fer2013, collection("fer2013")),
    "audit": (audit, lambda folder: read_audits([str(folder)])),
    "config": (config, read_config),
    "vocabulary": (vocabulary, read_vocabulary),
}
"""Name -> what writes the healthy files into an empty folder, and what reads such a folder."""


@cache
def files(folder: Path) -> tuple[Path, ...]:
    """All files of a target's folder, relative to it, in one order."""
    return tuple(sorted(_files(folder)))


def _files(folder: Path) -> Iterator[Path]:
    return (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
