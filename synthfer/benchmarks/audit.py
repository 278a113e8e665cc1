"""The audit's scans against plain matrix products, its memory under a cap, and what it finds of planted copies."""

import itertools
import json
import logging
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthfer import images
from synthfer.audit import copies, near_duplicates, neighbours
from synthfer.audit.copies import CopyScan
from synthfer.audit.features import Features
from synthfer.cli import Invocation, Outcome
from synthfer.environment import describe_environment
from synthfer.limits import MAX_KEPT
from synthfer.sample import seed_of
from synthfer.schema import option
from synthfer.sources import avatars
from synthfer.statistics import clopper_pearson
from synthfer.store import Dataset

log = logging.getLogger(__name__)

PARTS = ("correlation", "embedding", "memory", "found")
_DIMENSIONS = 512
_TWIN = 0.9  # correlation of two whole pictures from which one is a natural twin of the other


@dataclass(frozen=True, kw_only=True)
class AuditBenchmark:
    """What to measure of the audit."""

    parts: list[str] = option(list(PARTS), "what to measure", choices=PARTS)
    train: int = option(8192, "training rows of the scans", low=512, high=10_000_000)
    test: int = option(
        64, "test rows of the correlation scan; the embedding scan takes 64 times as many", low=8, high=1_000_000
    )
    repeats: int = option(3, "times that scan and plain product are measured, in turns", low=1, high=1000)
    rows: int = option(200_000, "training rows of the part memory", low=1000, high=100_000_000)
    cap_mb: int = option(
        500, "memory that the part memory may take beyond what it has after its imports", low=100, high=2**20
    )
    faces: str | None = option(None, "dataset of faces for the part found (null: drawn ones)")
    strangers: str | None = option(None, "with faces: dataset of other faces (null: later ones of the same dataset)")
    known: int = option(6000, "training faces of the part found", low=100, high=1_000_000)
    strange: int = option(1000, "test faces without a copy in the part found", low=100, high=1_000_000)
    planted: int = option(200, "copies of each kind in the part found", low=10, high=MAX_KEPT)


def measure(config: AuditBenchmark, invocation: Invocation) -> Outcome:
    """Every part that is asked for, with the conditions it was measured under. One thread, so per core."""
    torch.set_num_threads(1)
    measures: dict[str, Callable[[AuditBenchmark], dict[str, Any]]] = {
        "correlation": correlation,
        "embedding": embedding,
        "memory": memory,
        "found": detection,
    }
    figures: dict[str, Any] = {"conditions": describe_environment("torch", "numpy", "pillow")}
    for part in config.parts:
        log.info("measuring %s", part)
        figures[part] = measures[part](config)
    return Outcome(figures)


def correlation(config: AuditBenchmark) -> dict[str, Any]:
    """Comparisons of a training picture with one view of a test picture, per second of one core."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (config.train, copies.SIDE, copies.SIDE), np.uint8)
    patches, views = copies.patches(grey), copies.views(grey[: config.test])
    pairs = len(patches) * views.shape[0] * views.shape[1]
    flat = views.reshape(-1, views.shape[2])
    return _against_plain(lambda: copies.scan(patches, views, CopyScan()), patches, flat, pairs, config.repeats)


def embedding(config: AuditBenchmark) -> dict[str, Any]:
    """Comparisons of two vectors of 512 dimensions per second of one core, and what follows for large sets."""
    rng = np.random.default_rng(0)
    left, right = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for vectors in (rng.standard_normal((n, _DIMENSIONS), np.float32) for n in (config.train, 64 * config.test))
    )
    scan: Callable[[], Any] = lambda: neighbours.top_matches(left, right, 0.9, 16)  # noqa: E731 - timed as a whole
    figures = _against_plain(scan, left, right, len(left) * len(right), config.repeats)
    hours = 1_000_000 * 300_000 / figures["comparisons_per_s"] / 3600
    return figures | {"estimated_core_hours_for_1000000_x_300000": round(hours, 3)}


def _against_plain(
    scan: Callable[[], Any], left: np.ndarray, right: np.ndarray, pairs: int, repeats: int
) -> dict[str, Any]:
    """The scan and nothing but its products in blocks of the same size, in turns; the best of each."""
    rows, columns = neighbours.ROWS, neighbours.COLUMNS
    a, b = torch.from_numpy(left), torch.from_numpy(right)

    def plain() -> None:
        for low in range(0, len(b), columns):
            some = b[low : low + columns].T.contiguous()
            out = torch.empty(rows, some.shape[1])
            for first in range(0, len(a), rows):
                block = a[first : first + rows]
                torch.mm(block, some, out=out[: len(block)])

    times: dict[str, list[float]] = {"scan": [], "plain": []}
    for _ in range(repeats):
        for name, work in (("plain", plain), ("scan", scan)):
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    best = {name: min(seconds) for name, seconds in times.items()}
    return {
        "comparisons_per_s": round(pairs / best["scan"]),
        "plain_products_per_s": round(pairs / best["plain"]),
        "to_plain": round(best["plain"] / best["scan"], 3),
    }


def memory(config: AuditBenchmark) -> dict[str, Any]:
    """Compares many training rows with one block of test rows in a process that may take only so much memory."""
    words = [sys.executable, "-m", __name__, str(config.rows), str(config.cap_mb)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the capped process failed: {done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def capped(rows: int, cap_mb: int, block: int = 4096) -> dict[str, Any]:
    """The part memory, in the process whose memory is capped; training rows are made block by block."""
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + cap_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sizes = [min(block, rows - low) for low in range(0, rows, block)]
    starts = list(itertools.accumulate([0, *sizes[:-1]]))
    test = _random_features(128, 10**6)
    blocks = (_random_features(size, number) for number, size in enumerate(sizes))
    start = time.perf_counter()
    near_duplicates.compare(
        blocks, starts, test, near_duplicates.Levels(near_duplicates.Limits(), 0.9, 0.9), CopyScan()
    )
    return {
        "train_rows": rows,
        "features_mb": round(rows * _bytes_per_row(test) / 2**20),
        "cap_mb": cap_mb,
        "seconds": round(time.perf_counter() - start, 2),
    }


def _random_features(rows: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, _DIMENSIONS), np.float32)
    return Features(
        rng.integers(0, 2**63, (rows, 2), np.uint64),
        rng.integers(0, 256, (rows, copies.SIDE, copies.SIDE), np.uint8),
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16),
    )


def _bytes_per_row(block: Features) -> float:
    return sum(part.nbytes for part in (block.hashes, block.grey, block.vectors)) / len(block)


def detection(config: AuditBenchmark) -> dict[str, Any]:
    """Share found of each kind of copy, and false alarms among test faces that have none.

    `found`: copies of test faces stand among the training faces. `reverse`: test faces are copies of training faces.
    Strangers are drawn from other parts, or are of another collection; from the same one, those that correlate by 0.9
    with a training face, natural twins, are set aside first.
    """
    known, strange, kind_of_strangers = _two_groups(config)
    grey, theirs = (np.stack([copies.to_grey(p) for p in part]) for part in (known, strange))
    clean = (_centred(theirs) @ _centred(grey).T).max(1) < _TWIN if config.faces and not config.strangers else None
    strangers = theirs if clean is None else theirs[clean]
    scan = CopyScan()
    alarms = copies.find(grey, strangers, scan)
    number = min(config.planted, len(known), len(strange))
    figures: dict[str, Any] = {"found": {}, "reverse": {}}
    for kind in copies.KINDS:
        for name, originals in (("found", strange), ("reverse", known)):
            copied = [
                copies.plant(pixels, kind, np.random.default_rng(seed_of(0, kind, row)))
                for row, pixels in enumerate(originals[:number])
            ]
            planted = np.stack([copies.to_grey(p) for p in copied])
            left, right = (grey, planted) if name == "reverse" else (np.concatenate([planted, grey]), theirs[:number])
            hits = copies.find(left, right, scan)
            figures[name][kind] = round(len(np.unique(hits.right[hits.left == hits.right])) / number, 4)
    alarmed = len(np.unique(alarms.right))
    return {
        "train": len(known),
        "planted_of_each_kind": number,
        **figures,
        "strangers": len(strangers),
        "kind_of_strangers": kind_of_strangers,
        "natural_twins_set_aside": len(theirs) - len(strangers),
        "alarms": alarmed,
        # A two-sided 90 % interval ends at the one-sided bound of 95 %.
        "alarms_per_1000_at_most": round(1000 * clopper_pearson(alarmed, len(strangers), 0.9).high, 2),
        "thresholds": {"similar": scan.similar, "agreement": scan.agreement},
    }


def _two_groups(config: AuditBenchmark) -> tuple[list[np.ndarray], list[np.ndarray], str]:
    """Training faces, test faces, and what the second are to the first."""
    if config.faces is None:
        groups: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        limits = (config.known, config.strange)
        for number in itertools.count():
            face = avatars.sample_attributes(seed_of(0, "audit", number))
            group = avatars.appearance_half(face)
            if len(groups[group]) < limits[group]:
                groups[group].append(avatars.draw(face))
            elif all(len(part) >= limit for part, limit in zip(groups, limits, strict=True)):
                break
        return *groups, "drawn from other parts"
    own = _pictures(config.faces)
    known = list(itertools.islice(own, config.known))
    if config.strangers:
        return known, list(itertools.islice(_pictures(config.strangers), config.strange)), "another collection"
    return (
        known,
        list(itertools.islice(own, config.strange)),
        "the same collection, so alarms may be true: look at them",
    )


def _centred(grey: np.ndarray) -> np.ndarray:
    flat = grey.reshape(len(grey), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    unit: np.ndarray = flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-6)
    return unit


def _pictures(uri: str) -> Iterator[np.ndarray]:
    for batch in Dataset(uri).scan(["image"]):
        yield from (images.decode(row["image"]["bytes"]) for row in batch.to_pylist() if row["image"])


if __name__ == "__main__":
    print(json.dumps(capped(int(sys.argv[1]), int(sys.argv[2]))))
