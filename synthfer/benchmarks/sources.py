"""The ingest job against loops in one process that read, decode and hash the same pictures and keep nothing.

One loop is what a user would write with Pillow and hashlib; the other calls the functions that the job itself uses.
"""

import csv
import hashlib
import io
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from synthfer.cli import Invocation, Outcome
from synthfer.config import load
from synthfer.engine.cluster import session
from synthfer.engine.ingest import IngestConfig, read_lists, read_missing
from synthfer.environment import describe_environment
from synthfer.expressions import EXPRESSIONS, ORDERS
from synthfer.images import ImageConfig, decode, encode
from synthfer.sample import pixels_hash
from synthfer.schema import option
from synthfer.sources import fer2013
from synthfer.sources.collection_reader import CollectionReader

log = logging.getLogger(__name__)

Loops = dict[str, Callable[[], None]]
LAYOUTS = ("csv", "folders")
_SIDE = 48


@dataclass(frozen=True, kw_only=True)
class SourcesConfig:
    """What to measure of ingest."""

    layouts: list[str] = option(
        list(LAYOUTS), "fer2013.csv, and its copy as class folders of JPEG files", choices=LAYOUTS
    )
    faces: int = option(35_887, "pictures of 48 x 48, as many as FER2013 has by default", low=100, high=10_000_000)


def measure(config: SourcesConfig, invocation: Invocation) -> Outcome:
    """Measure each layout: the loops, the job, the loops again, so that a drift of the machine shows in both."""
    results: dict[str, Any] = {"conditions": describe_environment("ray", "numpy", "pillow", "pyarrow")}
    for layout in config.layouts:
        log.info("measuring %s", layout)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            path, loops = _MAKERS[layout](root / "collection", config.faces)
            before = {name: config.faces / _seconds(loop) for name, loop in loops.items()}
            results[layout] = _job(layout, path, root / "dataset", config.faces, invocation)
            after = {name: config.faces / _seconds(loop) for name, loop in loops.items()}
        for name in loops:
            bare = 2 / (1 / before[name] + 1 / after[name])
            results[layout][f"{name}_images_per_s"] = [round(before[name], 1), round(after[name], 1)]
            for part in ("steady", "whole"):
                results[layout][f"{part}_to_{name}"] = round(results[layout][f"{part}_images_per_s"] / bare, 3)
    return Outcome(results)


def _job(layout: str, path: Path, out: Path, faces: int, invocation: Invocation) -> dict[str, Any]:
    """Images/s of the job: `steady` from the first worker's start to the last one's end, `whole` with all around it
    but the start of Ray."""
    source = "fer2013" if layout == "csv" else "folder"
    config = load(IngestConfig, [f"source={source}", f"path={path}", f"out={out}"])
    with session():
        start = time.perf_counter()
        collection, index = read_lists(config, invocation)
        indexed = time.perf_counter()
        _, stats, _ = read_missing(config, collection, index, invocation)
        end = time.perf_counter()
    return {
        "index_s": round(indexed - start, 3),
        "steady_images_per_s": round(stats.images_per_s or 0.0, 1),
        "whole_images_per_s": round(faces / (end - start), 1),
        "workers": len(stats.workers),
    }


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _faces(count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Labels and grey pictures, uint8 (48, 48): smooth noise, which packs about as well as a face."""
    rng = np.random.default_rng(0)
    for k in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8))
        smooth = np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), np.int16)
        yield k % len(EXPRESSIONS), np.clip(smooth + rng.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)


def _make_csv(folder: Path, count: int) -> tuple[Path, Loops]:
    folder.mkdir()
    path = folder / "fer2013.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["emotion", "pixels", "Usage"])
        for label, grey in _faces(count):
            code = ORDERS["fer2013"].index(EXPRESSIONS[label])
            rows.writerow([code, " ".join(map(str, grey.ravel().tolist())), "Training"])

    def loop() -> None:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                grey = np.array(row["pixels"].split(), np.uint8).reshape(_SIDE, _SIDE)
                out = io.BytesIO()
                Image.fromarray(grey).save(out, "PNG")
                hashlib.blake2b(np.repeat(grey[..., None], 3, 2).tobytes(), digest_size=16).hexdigest()

    def same() -> None:
        reader, image = CollectionReader(folder), ImageConfig(format="png")
        for entry in fer2013.find(path, fer2013.Config()).entries:
            assert entry.image is not None
            pixels = reader.read(entry.image)
            assert isinstance(pixels, np.ndarray)
            encode(pixels, image)
            pixels_hash(pixels)

    return path, {"plain_loop": loop, "same_functions": same}


def _make_folders(folder: Path, count: int) -> tuple[Path, Loops]:
    for name in EXPRESSIONS:
        (folder / name).mkdir(parents=True)
    for k, (label, grey) in enumerate(_faces(count)):
        Image.fromarray(grey).save(folder / EXPRESSIONS[label] / f"{k:05d}.jpg", quality=95)

    def loop() -> None:
        for path in sorted(folder.rglob("*.jpg")):
            pixels = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
            hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()

    def same() -> None:
        for path in sorted(folder.rglob("*.jpg")):
            pixels_hash(decode(path.read_bytes()))

    return folder, {"plain_loop": loop, "same_functions": same}


_MAKERS = {"csv": _make_csv, "folders": _make_folders}
