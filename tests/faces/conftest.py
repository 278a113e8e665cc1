"""What the face tests share: the detector where its weights are installed, drawn faces, and photographic ones."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from synthfer.faces.mtcnn import INSTALL, Detector, Face
from synthfer.images import decode
from tests.drawn_faces import DETECTABLE, FACE_BOX, draw_faces

SAMPLE = 60


@pytest.fixture(scope="session")
def detector() -> Detector:
    try:
        version("facenet-pytorch")
    except PackageNotFoundError:
        pytest.skip(f"no weights of the face detector; run: {INSTALL}")
    return Detector()


@pytest.fixture(scope="session", params=["drawn", "photographic"])
def portraits(request: pytest.FixtureRequest) -> list[tuple[np.ndarray, tuple[float, ...]]]:
    """Portraits, 256 x 256, each with the box (left, top, right, bottom) of its face.

    The drawn ones are there on every machine. The photographic ones are generated, too; their boxes are those that a
    Haar cascade found.
    """
    if request.param == "drawn":
        return [(picture, FACE_BOX) for picture in draw_faces(DETECTABLE, 256)]
    folder: Path = request.getfixturevalue("shared_data")
    table = pq.read_table(folder / "sfhq_faces.parquet", columns=["image", "face_box", "face_found"])
    rows = [row for row in table.to_pylist() if row["face_found"]]
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, SAMPLE).astype(int)]
    return [(pixels(row["image"]), corners(*row["face_box"])) for row in rows]


@pytest.fixture(scope="session")
def found(detector: Detector, portraits: list[tuple[np.ndarray, tuple[float, ...]]]) -> list[list[Face]]:
    """The faces in each of the portraits."""
    return [detector.detect(picture) for picture, _ in portraits]


@pytest.fixture(scope="session")
def small_photographs(shared_data: Path) -> list[np.ndarray]:
    """Grey photographs of FER2013, 48 x 48, that the face fills."""
    column = pq.read_table(shared_data / "fer2013_small.parquet", columns=["image"])["image"]
    return [pixels(column[int(i)].as_py()) for i in np.linspace(0, len(column) - 1, SAMPLE)]


def pixels(value: bytes | dict[str, bytes]) -> np.ndarray:
    return decode(value["bytes"] if isinstance(value, dict) else value)


def corners(x: float, y: float, width: float, height: float) -> tuple[float, ...]:
    return x, y, x + width, y + height
