"""DCFace: synthetic faces by a diffusion model of identity and style (Kim et al., CVPR 2023), without labels.

Reads the release of github.com/mk-minchul/dcface after dcface_0.5m_oversample_xid.zip is unpacked: record/file.rec,
file.idx and list.txt, an MXNet indexed RecordIO with a tab-separated list of number and path. MXNet itself is not
needed; the format, from its published sources:

- dmlc-core, recordio.h and recordio.cc: a record is the word 0xced7230a, a word whose upper 3 bits are a flag and
  whose lower 29 are a length, the payload, and zeros up to a multiple of 4 bytes; all little-endian. A payload that
  holds 0xced7230a at a multiple of 4 is cut there into parts (flags 1, 2 ... 2, 3; a whole record has 0), each a
  record of its own, and the word itself is dropped, since it precedes the next part anyway.
- MXNet, python/mxnet/recordio.py: lines "key<TAB>offset" in the .idx; the payload of a picture begins with
  flag (uint32), label (float32), id and id2 (uint64); where flag is not 0, that many float32 labels follow.
- InsightFace: records of labels without a picture (at 0 and at the end) hold ranges of identities; they are no rows.

The release writes label 0 everywhere; the identity is the first folder of the path in list.txt. Without a list it is
the label. The faces of the identities themselves are repeated ("oversample_xid"): every later copy is rejected,
which reads the whole file once.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from synthfer.files import open_regular
from synthfer.sources.collection_reader import MAX_BYTES
from synthfer.sources.entry import Collection, Entry, ImageRef, SourceError, relative, require_path, safe_path
from synthfer.sources.layouts import abbreviated, unknown_layout
from synthfer.sources.tables import split_lines

OFFICIAL = {"dcface_0.5m": 500_000, "dcface_1.2m": 1_200_000}
"""Published number of faces, before the repeats, by the start of the release's folder name."""
MAX_PARTS = 1_000
"""Parts of one record; a random picture of 64 MiB holds the word that divides them once in 250."""
MAGIC = struct.pack("<I", 0xCED7230A)
LICENCE = "not stated; made by models that were trained on CASIA-WebFace and FFHQ: non-commercial research"
_HEADER = struct.Struct("<IfQQ")
_EXPECTED = "record/file.rec, file.idx and list.txt, unpacked from dcface_0.5m_oversample_xid.zip"


@dataclass(frozen=True, kw_only=True)
class Config:
    """DCFace has no options."""


class _Record(NamedTuple):
    """A payload joined from its parts; `stored` is its offset in the file, `cuts` where words had been dropped.

    Byte p of the payload is stored at `stored` + p + 4 for each cut at p or before.
    """

    payload: bytes
    stored: int
    cuts: tuple[int, ...]


def find(path: Path | None, config: Config) -> Collection:
    """One entry for every record, in the order of list.txt, or of file.idx where there is no list."""
    root = require_path(path, "dcface", _EXPECTED)
    folder = next((f for f in (root, root / "record") if (f / "file.rec").is_file()), None)
    if folder is None or not (folder / "file.idx").is_file():
        raise unknown_layout(root, "dcface", _EXPECTED)
    notes = [] if (folder / "list.txt").is_file() else ["there is no list.txt: the records' labels are the identities"]
    names = [part.lower() for part in root.resolve().parts]
    count = next((n for start, n in OFFICIAL.items() for name in names if name.startswith(start)), None)
    return Collection(
        layout="MXNet indexed RecordIO",
        entries=_entries(folder, root, notes),
        licence=LICENCE,
        kind="synthetic",
        source_type="trainedAlgorithmicMedia",
        official={"train": {"all": count}} if count else None,
        notes=notes,
    )


def _entries(folder: Path, root: Path, notes: list[str]) -> Iterator[Entry]:
    offsets: dict[int, int] = {}
    known: set[int] = set()
    for line, fields in split_lines(folder / "file.idx", "\t"):
        words = [""] if isinstance(fields, ValueError) else fields
        key, offset = _whole(words[0]), _whole(words[1]) if len(words) == 2 else -1
        problem = "its number was there before" if key in offsets else "it is not number<TAB>offset"
        if offset in known and key >= 0:
            problem = "its offset was there before"  # a record is one row: the same one again and again takes hours
        if min(key, offset) < 0 or key in offsets or offset in known:
            yield Entry(key=f"file.idx:{line}", reason=f"line {line} of file.idx is not as published: {problem}")
        else:
            offsets[key] = offset
            known.add(offset)
    with open_regular(folder / "file.rec") as file:
        records = _Records(file, relative(folder / "file.rec", root))
        yield from _listed(folder / "list.txt", offsets, records)
        if offsets and (folder / "list.txt").is_file():
            keys = abbreviated([str(key) for key in offsets])
            notes.append(f"records of file.idx that are not in list.txt, read all the same: {len(offsets):,} ({keys})")
        for key, offset in offsets.items():
            yield from records.entries(key, offset, None)
    if records.ranges:
        notes.append(f"{records.ranges:,} records hold ranges of identities and no picture")


def _listed(file: Path, offsets: dict[int, int], records: "_Records") -> Iterator[Entry]:
    """The records of list.txt; each is removed from `offsets`."""
    for line, fields in split_lines(file, "\t") if file.is_file() else ():
        try:
            if isinstance(fields, ValueError):
                raise SourceError(f"it {fields}")
            key = _whole(fields[0])
            if key not in offsets:
                raise SourceError(f"record {fields[0][:40]!r} is not in file.idx, or was listed before")
            offset = offsets.pop(key)
            path = safe_path(fields[1] if len(fields) > 1 else "")
        except SourceError as error:
            yield Entry(key=f"list.txt:{line}", reason=f"line {line} of list.txt: {error}")
        else:
            yield from records.entries(key, offset, path)


class _Records:
    """The records of one .rec file as entries; remembers the images so far, to reject exact duplicates."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name = file, name
        self.first_by_hash: dict[bytes, int] = {}
        self.ranges = 0
        self.size = os.fstat(file.fileno()).st_size
        self.unread = 2 * self.size
        """Bytes that may still be read: records that lie within one another would be read again and again."""

    def entries(self, key: int, offset: int, path: str | None) -> Iterator[Entry]:
        """One entry; none for a record of labels alone."""
        try:
            if self.unread < 0:
                raise ValueError("the records before it overlap: file.idx and file.rec do not fit together")
            if offset >= self.size:
                raise ValueError(f"the file ends before byte {offset + 8}, inside it")
            record = _read(self.file, offset)
            self.unread -= len(record.payload)
            label, start = _label(record.payload)
        except (ValueError, OSError) as error:
            yield Entry(key=str(key), reason=f"record {key} of {self.name}: {error}")
            return
        picture = record.payload[start:]
        if not picture and start > _HEADER.size:
            self.ranges += 1
            return
        first = self.first_by_hash.setdefault(hashlib.blake2b(picture, digest_size=16).digest(), key)
        identity = path.partition("/")[0] if path and "/" in path else f"{label:.0f}"
        yield Entry(
            key=str(key),
            image=_image(record, start, self.name) if picture else None,
            source_id=f"dcface:{identity}",
            reason=f"record {key} holds no picture" if not picture
            else None if first == key else f"exact duplicate of {first}",
        )  # fmt: skip


def _read(file: BinaryIO, offset: int) -> _Record:
    """The record at an offset. `ValueError`: there is none, it is truncated, or it is larger than any image."""
    parts, size, flag, at = list[bytes](), 0, None, offset
    file.seek(offset)
    while flag not in (0, 3):
        head = file.read(8)
        if len(head) < 8:
            raise ValueError(f"the file ends before byte {at + 8}, inside it")
        if head[:4] != MAGIC:
            raise ValueError(f"no record is at byte {at}: file.idx and file.rec do not fit together")
        word = int.from_bytes(head[4:], "little")
        before, flag, length = flag, word >> 29, word & (1 << 29) - 1
        if flag not in ((0, 1) if before is None else (2, 3)) or (flag in (1, 2) and length % 4):
            raise ValueError(f"byte {at} begins no part that can stand there (flag {flag}, {length} bytes)")
        size += length + 4
        if len(parts) == MAX_PARTS:
            raise ValueError(f"it has more than {MAX_PARTS:,} parts, which no picture has")
        if size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES >> 20} MiB, which no picture has")
        parts.append(file.read(length))
        at += 8 + length
        if len(parts[-1]) < length:
            raise ValueError(f"the file ends before byte {at}, inside it")
    cuts, end = list[int](), 0
    for part in parts[:-1]:
        end += len(part) + len(MAGIC)
        cuts.append(end)
    return _Record(MAGIC.join(parts), offset + 8, tuple(cuts))


def _label(payload: bytes) -> tuple[float, int]:
    """The first label, and where the image starts in the payload."""
    if len(payload) < _HEADER.size:
        raise ValueError(f"its {len(payload)} bytes are no MXNet header of {_HEADER.size}")
    count, label, _, _ = _HEADER.unpack_from(payload)
    start = _HEADER.size + 4 * count
    if len(payload) < start:
        raise ValueError(f"its {len(payload)} bytes are too few for the {count} labels that its header says")
    return (struct.unpack_from("<f", payload, _HEADER.size)[0] if count else label), start


def _image(record: _Record, start: int, name: str) -> ImageRef:
    """Where the image is stored: a slice of the file, less the words that are not part of the image."""
    before = [cut for cut in record.cuts if cut <= start]
    inside = [cut - start + 4 * i for i, cut in enumerate(c for c in record.cuts if c > start)]
    length = len(record.payload) - start + 4 * len(inside)
    stored = record.stored + start + 4 * len(before)
    return ImageRef("record" if inside else "slice", name, stored, length, ",".join(map(str, inside)))


def _whole(text: str) -> int:
    """The number that a text stands for; -1 if it is none, or larger than any file."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
