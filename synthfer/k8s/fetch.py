"""Copies weights from a bucket to the disk of a pod before Ray starts in it; k8s/weights/s3 runs it.

A second call copies only what is missing. A file gets its final name when it is complete.
"""

import hashlib
import logging
from pathlib import Path

from synthfer.schema import ConfigError
from synthfer.store import ObjectStore, open_store

log = logging.getLogger(__name__)

PIECE_BYTES = 64 * 2**20


def fetch(source: str, out: Path) -> tuple[int, int]:
    """Copies every object under `source` (s3://bucket/prefix or a folder) into `out`; files and bytes copied now.

    `ConfigError` where there is nothing under `source`, `OSError` where a copy is not what the store says it is.
    """
    store, copied, size = open_store(source), 0, 0
    objects = sorted(store.list())
    if not objects:
        raise ConfigError(f"source={source}: is empty: give the bucket and prefix of the weights")
    for key, length in objects:
        file = out / key
        if not file.resolve().is_relative_to(out.resolve()):
            raise ConfigError(f"source={source}: {key!r} is outside of the folder; rename it in the bucket")
        if file.is_file() and file.stat().st_size == length:
            continue
        log.info("%s, %.0f MB", key, length / 1e6)
        _copy(store, key, length, file)
        copied, size = copied + 1, size + length
    return copied, size


def _copy(store: ObjectStore, key: str, length: int, file: Path) -> None:
    """One object, piece by piece so that memory stays small, checked against the hash that the store keeps."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part, digest = file.with_name(f".{file.name}.part"), hashlib.sha256()
    with part.open("wb") as target:
        for start in range(0, length, PIECE_BYTES):
            piece = store.get(key, start, min(start + PIECE_BYTES, length))
            digest.update(piece)
            target.write(piece)
    stat = store.stat(key)
    if part.stat().st_size != length or (stat and stat.sha256 and stat.sha256 != digest.hexdigest()):
        part.unlink()
        raise OSError(f"{store.uri}/{key} changed while it was copied: run the same command again")
    part.replace(file)
