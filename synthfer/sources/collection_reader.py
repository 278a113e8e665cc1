"""Reading the pictures of a collection from wherever they stand, without trusting any of it.

Nothing is unpacked to disk, no read goes beyond a limit, and no path leaves the collection's folder. Open files and
the last tables are kept, since the pictures of a unit mostly stand side by side.
"""

import stat
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synthfer import sources
from synthfer.sources.entry import ImageRef, safe_path
from synthfer.sources.layouts import folder_of

MAX_BYTES = 64 * 2**20
"""No picture file is larger; what claims to be is not read."""
MAX_COLUMN_BYTES = 4 * 2**30
"""Pictures of one row group of a Parquet file, which are read together."""
FORMS = ("file", "zip", "slice", "record", "pixels", "parquet")
UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compression of archive members; Python unpacks the other methods at one go, however much comes out."""
_OPEN = 8
_NUMBERS = b"0123456789 \t\r\n"
T = TypeVar("T")


class CollectionReader:
    """Gives a picture's file bytes, or its pixels where it has no file. Not safe for threads; one per worker."""

    def __init__(self, root: Path | None) -> None:
        self.root = None if root is None else folder_of(root)
        self._kept: OrderedDict[tuple[str, ...], Any] = OrderedDict()
        self._column: pa.ChunkedArray | None = None
        self._column_key: tuple[str | int, ...] = ()

    def read(self, ref: ImageRef) -> bytes | np.ndarray:
        """The bytes of an image file, or pixels (uint8, H x W x 3).

        `ValueError` or `OSError` say what is wrong with this picture; the next one can be read.
        """
        if ref.form not in FORMS:
            pixels: np.ndarray = sources.module(ref.form).picture(ref)
            return pixels
        read: Callable[[ImageRef], bytes | np.ndarray] = getattr(self, f"_{ref.form}")
        return read(ref)

    def _path(self, ref: ImageRef) -> Path:
        assert self.root is not None
        return self.root / safe_path(ref.path)

    def _file(self, ref: ImageRef) -> bytes:
        path = self._path(ref)
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would never end
            raise ValueError(f"{ref.path} is no regular file")
        if found.st_size > MAX_BYTES:
            raise ValueError(f"{ref.path} is larger than {MAX_BYTES >> 20} MiB")
        with path.open("rb", buffering=0) as file:
            return file.read()

    def _zip(self, ref: ImageRef) -> bytes:
        try:
            archive = self._keep(("zip", ref.path), lambda: zipfile.ZipFile(self._path(ref)))
            if archive.getinfo(ref.name).compress_type not in UNPACKED:
                raise NotImplementedError("it is neither stored nor deflated")
            with archive.open(ref.name) as member:
                body: bytes = member.read(MAX_BYTES + 1)
        except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"{ref.path}: {ref.name} cannot be unpacked: {error or 'cut off'}") from error
        if len(body) > MAX_BYTES:
            raise ValueError(f"{ref.path}: {ref.name} unpacks to more than {MAX_BYTES >> 20} MiB")
        return body

    def _slice(self, ref: ImageRef) -> bytes:
        if ref.length > MAX_BYTES:
            raise ValueError(f"{ref.path}: {ref.length} bytes are more than {MAX_BYTES >> 20} MiB")
        file = self._keep(("slice", ref.path), lambda: self._path(ref).open("rb"))
        file.seek(ref.start)
        body = file.read(ref.length)
        if len(body) < ref.length:
            raise ValueError(f"{ref.path} ends at byte {ref.start + len(body)}, inside this picture")
        return body

    def _record(self, ref: ImageRef) -> bytes:
        """A slice of a RecordIO file without the 4-byte words that `name` lists by their places in the slice."""
        body = self._slice(ref)
        ends = [int(at) for at in ref.name.split(",")]
        return b"".join(body[a:b] for a, b in zip([0, *(at + 4 for at in ends)], [*ends, len(body)], strict=True))

    def _pixels(self, ref: ImageRef) -> np.ndarray:
        """Decimal grey values of a square picture in a CSV cell."""
        text = self._slice(ref)
        if odd := text.translate(None, _NUMBERS):
            raise ValueError(f"pixels are not whole numbers: {odd[:20]!r}")
        values = np.fromstring(text, np.int64, sep=" ")
        side = int(len(values) ** 0.5)
        if not side or side * side != len(values):
            raise ValueError(f"{len(values)} pixels are not a square picture")
        if values.min() < 0 or values.max() > 255:
            raise ValueError(f"pixels lie outside 0..255: {values.min()} to {values.max()}")
        return np.repeat(values.astype(np.uint8).reshape(side, side, 1), 3, axis=2)

    def _parquet(self, ref: ImageRef) -> bytes:
        key = (ref.path, ref.start, ref.name)
        if key != self._column_key:
            self._column, self._column_key = None, ()  # two columns at once would be twice the memory
            self._column, self._column_key = self._read_column(ref), key
        assert self._column is not None
        value = self._column[ref.length].as_py()
        body = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(body, bytes):
            raise ValueError(f"{ref.path}: column {ref.name} holds no image bytes here")
        return body

    def _read_column(self, ref: ImageRef) -> pa.ChunkedArray:
        file = self._keep(("table", ref.path), lambda: pq.ParquetFile(self._path(ref)))
        try:
            group = file.metadata.row_group(ref.start)
            columns = (group.column(number) for number in range(group.num_columns))
            size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == ref.name)
            if size > MAX_COLUMN_BYTES:
                limit = MAX_COLUMN_BYTES >> 30
                raise ValueError(
                    f"its pictures take {size:,} bytes, over {limit} GiB: write it with smaller row groups"
                )
            return file.read_row_group(ref.start, columns=[ref.name]).column(0)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ValueError(f"{ref.path}: row group {ref.start} cannot be read: {error}") from error

    def _keep(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        """What `make` gives, kept until `_OPEN` others were asked for since."""
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._kept[key] = make()
            while len(self._kept) > _OPEN:
                self._kept.popitem(last=False)
        kept: T = self._kept[key]
        return kept
