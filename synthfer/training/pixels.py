"""The pictures of the training data, decoded once to squares of the network's size and kept as bytes.

In memory, or in a file that all processes of a node map: it is written under a temporary name by the one process that
has the lock, and renamed when it is whole. The kernel frees the lock of a process that dies, so that whoever waits
builds in its place.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer import images
from synthfer.canonical import canonical_json
from synthfer.documents import read_json
from synthfer.files import check_regular, read_file
from synthfer.limits import check_memory
from synthfer.store.dataset_ref import UnitRange
from synthfer.training.data import Data

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the number of pictures decoded so far and the number of all."""

_FORMAT = "synthfer-pixels/1"
_MAX_KEY_BYTES = 2**20
_THREADS = 4
_AT_ONCE = 256  # squares that wait for each other; files wait by the batch that the store reads


def load(data: Data, size: int, folder: str | None = None, progress: Progress | None = None) -> np.ndarray:
    """The picture of every row of `data.rows`, whatever its role: uint8 (n, 3, size, size), RGB, `images.square`.

    `folder` None: an array in memory. Else a read-only map of a file there, local to the node, which is written
    the first time; other processes wait for it. `ValueError` names the dataset and sample whose picture
    cannot be read, or the dataset that has changed since the data was opened.
    """
    needed = 3 * size * size * data.rows.num_rows
    if folder is None:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        check_memory("the decoded pictures", needed, "set engine.cache to a folder, or lower size", machine)
        pixels = np.empty((data.rows.num_rows, 3, size, size), np.uint8)
        done = 0
        for some in _decoded(data, size, progress):
            pixels[done : done + len(some)] = some
            done += len(some)
        return pixels
    key = _key(data, size)
    path = Path(folder) / f"pixels-{hashlib.blake2b(canonical_json(key), digest_size=16).hexdigest()}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_suffix(".lock")):
        mapped = _mapped(path, key)
        if mapped is None:
            free = shutil.disk_usage(path.parent).free
            check_memory(f"the decoded pictures in {path.parent}", needed, "name another folder, or lower size", free)
            _write(path, key, _decoded(data, size, progress))
            mapped = _mapped(path, key)
    if mapped is None:
        raise OSError(f"{path} cannot be read back as it was written: look at the disk, or choose another folder")
    return mapped


def _key(data: Data, size: int) -> dict[str, Any]:
    """All that decides over the pixels."""
    origins = [*data.sources, *([data.validation] if data.validation else [])]
    places = hashlib.blake2b(digest_size=16)
    for name in ("part", "place"):
        places.update(data.rows[name].to_numpy().astype("<i8").tobytes())
    return {
        "format": _FORMAT,
        "shape": [data.rows.num_rows, 3, size, size],
        "origins": [[source.dataset_ref.hash, list(source.splits)] for source in origins],
        "places": places.hexdigest(),
    }


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time, on one node."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _mapped(path: Path, key: dict[str, Any]) -> np.ndarray | None:
    """The file as a read-only array; None where there is none, or it is not what its key says."""
    try:
        written = read_json(read_file(path.with_suffix(".json"), _MAX_KEY_BYTES), str(path.with_suffix(".json")))
        check_regular(path)
        pixels: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning("%s is damaged and written again: %s", path, error)
        return None
    if written != key or list(pixels.shape) != key["shape"] or pixels.dtype != np.uint8:
        log.warning("%s holds other pictures than its name says and is written again", path)
        return None
    return pixels


def _write(path: Path, key: dict[str, Any], decoded: Iterator[np.ndarray]) -> None:
    """The file and, before it, its key; renamed when on the disk."""
    path.with_suffix(".json").write_bytes(canonical_json(key))
    aside = path.with_suffix(".part")
    header = {"descr": "|u1", "fortran_order": False, "shape": tuple(key["shape"])}
    try:
        with aside.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for some in decoded:
                file.write(some.data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _decoded(data: Data, size: int, progress: Progress | None) -> Iterator[np.ndarray]:
    """The pictures of all rows in order, a few at a time, uint8 (k, 3, size, size)."""
    done = 0
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for part, samples in _encoded(data):
            some = np.stack(list(pool.map(partial(_picture, part, size), samples)))
            yield some
            done += len(some)
            if progress:
                progress(done, data.rows.num_rows)


def _picture(part: UnitRange, size: int, sample: tuple[str, bytes]) -> np.ndarray:
    return np.ascontiguousarray(images.square(part.decode(*sample), size).transpose(2, 0, 1))


def _encoded(data: Data) -> Iterator[tuple[UnitRange, list[tuple[str, bytes]]]]:
    """Ids and files of a few rows after another, in the order of `data.rows`, with their part."""
    for number, part in enumerate(data.parts):
        rows = data.rows.filter(pc.equal(data.rows["part"], number))
        if rows.num_rows:
            for samples in _of_part(part, data.splits_of(number), rows):
                yield part, samples


def _of_part(part: UnitRange, splits: Sequence[str], rows: pa.Table) -> Iterator[list[tuple[str, bytes]]]:
    """Ids and files of these rows of a part; the rest of its pictures is read, but not copied."""
    places, ids, start, done = rows["place"].to_numpy(), rows["sample_id"].combine_chunks(), 0, 0
    for batch in part.batches(["sample_id", "image"], splits):
        end = int(np.searchsorted(places, start + batch.num_rows))
        mine = places[done:end] - start
        names, files = batch["sample_id"].take(pa.array(mine)), pc.struct_field(batch["image"], "bytes")
        if not names.equals(ids[done:end]):
            break
        for first in range(0, len(mine), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            yield list(zip(names[some].to_pylist(), (files[i].as_py() for i in mine[some].tolist()), strict=True))
        start, done = start + batch.num_rows, end
    if done < len(ids):
        raise ValueError(f"{part.dataset} has other samples than when it was opened: begin again")
