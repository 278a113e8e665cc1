"""The audit of a collection in FER2013's format: what it finds is what a count finds that shares no code with it."""

import io
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from synthfer.audit.audit import audit, open_splits
from synthfer.audit.config import AuditConfig
from synthfer.audit.duplicates import identical_pixels
from synthfer.audit.task_pool import SerialPool
from synthfer.cli import Invocation
from synthfer.config import load
from synthfer.engine.ingest import IngestConfig, ingest
from tests.drawn_faces import draw_faces

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module", params=["drawn", "photographic"])
def collection(request, tmp_path_factory) -> Path:
    """The collection's Parquet file: drawn faces with planted copies, or the small FER2013 itself."""
    if request.param == "photographic":
        return request.getfixturevalue("shared_data") / "fer2013_small.parquet"
    file = tmp_path_factory.mktemp("drawn") / "faces.parquet"
    draw_collection(file)
    return file


def draw_collection(file: Path, persons: int = 120) -> None:
    """Grey faces of `persons`; every second one stands there a second time, every fourth a third time.

    Some copies are of the other split, some have another label, some both.
    """
    rows = []
    for person, pixels in enumerate(draw_faces(range(5000, 5000 + persons), 48)):
        body = io.BytesIO()
        Image.fromarray(pixels).convert("L").save(body, "png")
        for copy in range((1, 2, 1, 3)[person % 4]):
            label = (person + (copy if person % 3 == 0 else 0)) % 7
            split = "public_test" if (person + copy) % 5 == 0 else "train"
            rows.append(
                {"image": body.getvalue(), "split": split, "fer_label": label, "name": f"fer{len(rows):07}.png"}
            )
    pq.write_table(pa.Table.from_pylist(rows), file)


@pytest.fixture(scope="module")
def fer2013(collection, tmp_path_factory) -> str:
    """The collection as a dataset."""
    out = tmp_path_factory.mktemp("fer2013") / "dataset"
    config = load(IngestConfig, ["source=fer2013", f"path={collection}", f"out={out}"])
    ingest(config, Invocation(Console(file=io.StringIO()), Console(file=io.StringIO())))
    return str(out)


@pytest.fixture(scope="module")
def counted(collection) -> dict[str, int]:
    """Groups of identical pictures, from the collection's own file: pixels as bytes, grouped by a dict."""
    table = pq.read_table(collection, columns=["image", "split", "fer_label"])
    groups = defaultdict(list)
    for row in table.to_pylist():
        pixels = np.asarray(Image.open(io.BytesIO(row["image"])).convert("L")).tobytes()
        groups[pixels].append((row["split"], row["fer_label"]))
    shared = [group for group in groups.values() if len(group) > 1]
    across = [group for group in shared if len({split for split, _ in group}) > 1]
    return {
        "groups": len(shared),
        "rows_in_groups": sum(map(len, shared)),
        "copies": sum(len(group) - 1 for group in shared),
        "groups_across_splits": len(across),
        "groups_across_sides": len(across),
        "groups_with_conflicting_labels": sum(len({label for _, label in group}) > 1 for group in shared),
    }


def config(uri: str, *words: str) -> AuditConfig:
    return load(AuditConfig, [f"train={uri}", f"test={uri}", *words])


def test_identical_pictures_are_those_of_a_brute_force_count(fer2013, counted):
    verdict, _ = identical_pixels(open_splits(config(fer2013), SerialPool()))
    assert verdict.numbers == counted
    assert verdict.numbers["copies"] > 50  # there is something to find
    assert verdict.numbers["groups_across_splits"] > 0
    assert verdict.status == "fail"


@pytest.mark.parametrize("collection", ["drawn"], indirect=True)
def test_the_drawn_collection_has_copies_of_every_kind(counted):
    assert min(counted.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("collection", ["photographic"], indirect=True)  # its own crops, shifts and watermarks
def test_the_whole_audit_finds_the_collections_twins(fer2013, counted):
    result = audit(config(fer2013))
    told = {verdict.guard: verdict for verdict in result.verdicts}
    assert told["G2"].numbers == counted
    assert told["G11"].status in ("pass", "warn")
    assert told["G5"].numbers["test_rows"] >= 80  # photographs that were cropped, shifted or watermarked: looked at
    assert told["G12"].numbers["accuracy"] > told["G12"].numbers["accuracy_without_flagged"]
