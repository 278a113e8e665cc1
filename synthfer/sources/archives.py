"""Zip archives that nobody vouches for: their directory is read within bounds, and each member too.

Python's zipfile reads the directory at once, as large as the archive says it is, and makes an object for every member;
it unpacks any method and follows offsets wherever they point. What an archive cannot be trusted with is checked here,
for listing (`open_zip`, `refusals`) and for reading (`read_member`).
"""

import os
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from synthfer.files import open_regular, problem_of
from synthfer.sources.layouts import readable

MAX_DIRECTORY_BYTES = 64 * 2**20
MAX_MEMBERS = 300_000
"""Twice what the largest archive of DigiFace-1M has; each takes about 1 KB of memory."""
MAX_RATIO = 100
"""Pictures are compressed already: what unpacks to more than this many times its size is not one."""
UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compression methods that are read; Python unpacks members of the others at once, however large they get."""
ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, RuntimeError, ValueError, OverflowError,
    OSError,
)  # fmt: skip
"""What Python raises for damaged archives: RuntimeError and NotImplementedError for what it cannot unpack."""
_MEMBER = b"PK\x01\x02"
_ENCRYPTED = 0x1
_HEADER_BYTES = 30


class _Bounded:
    """The file of an archive; while the directory is read, what is too large is refused before it is."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.opening, self.length = file, True, os.fstat(file.fileno()).st_size
        self.seek, self.tell, self.close, self.seekable = file.seek, file.tell, file.close, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            raise ValueError(f"its directory has {size:,} bytes; no more than {MAX_DIRECTORY_BYTES:,} are read")
        rest = max(0, self.length - self.file.tell())
        body = self.file.read(min(rest, MAX_DIRECTORY_BYTES if size < 0 else size))
        if self.opening and body.count(_MEMBER) > MAX_MEMBERS:
            raise ValueError(f"its directory lists more than {MAX_MEMBERS:,} members")
        return body


class Archive(zipfile.ZipFile):
    """A zip file, open for reading; closes its file."""

    def __init__(self, file: BinaryIO) -> None:
        self._bounded = _Bounded(file)
        super().__init__(self._bounded)
        self._bounded.opening = False

    def close(self) -> None:
        super().close()
        self._bounded.close()


def open_zip(path: Path) -> Archive:
    """An archive. `FileNotFoundError`; `ValueError` says what is wrong with it, without the path."""
    file = open_regular(path)
    try:
        return Archive(file)
    except ERRORS as error:
        file.close()
        raise ValueError(problem_of(error) or "it is cut off") from error


def read_member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """A member's bytes; `ValueError` says what is wrong with it, without its name."""
    try:
        member = archive.getinfo(name)
        if member.compress_type not in UNPACKED:
            raise ValueError("it is neither stored nor deflated")
        with archive.open(member) as body:
            data = body.read(max_bytes + 1)
    except ERRORS as error:
        raise ValueError(f"cannot be unpacked: {problem_of(error) or 'cut off'}") from error
    if len(data) > max_bytes:
        raise ValueError(f"unpacks to more than {max_bytes >> 20} MiB")
    return data


def refusals(members: Sequence[zipfile.ZipInfo], max_bytes: int) -> list[str | None]:
    """Why each member is not read, None for those that are; the reason begins with the member's name."""
    times = Counter(member.filename for member in members)
    overlapping = _overlapping(members)
    reasons = (_refusal(member, times[member.filename], id(member) in overlapping, max_bytes) for member in members)
    return [reason and f"{readable(m.filename)} {reason}" for m, reason in zip(members, reasons, strict=True)]


def _refusal(member: zipfile.ZipInfo, times: int, overlaps: bool, max_bytes: int) -> str | None:
    if member.file_size > max_bytes:
        return f"would unpack to {member.file_size:,} bytes; a picture has at most {max_bytes:,}"
    if member.file_size > MAX_RATIO * max(1, member.compress_size):
        return f"would unpack to {member.file_size // max(1, member.compress_size)} times its size"
    if times > 1:
        return "is in the archive twice: it is not clear which of them is meant"
    if overlaps:
        return "shares bytes with another member"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted: unpack the archive with its password, and import the folder"
    mode = member.external_attr >> 16
    return "is a link" if stat.S_ISLNK(mode) else None


def _overlapping(members: Sequence[zipfile.ZipInfo]) -> set[int]:
    """Ids of members whose bytes run into those of the next one, and of the next one."""
    ordered = sorted(members, key=lambda member: member.header_offset)
    pairs = (
        (a, b) for a, b in pairwise(ordered) if a.header_offset + _HEADER_BYTES + a.compress_size > b.header_offset
    )
    return {id(member) for pair in pairs for member in pair}
