"""Reads the images of a collection from files, archives and tables, none of which is trusted.

Nothing is unpacked to disk, every read has a limit, and no path leaves the collection's folder. Open files and the last
column of a table are kept, since the images of a unit are mostly stored side by side.
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
"""Limit of one image file; what claims to be larger is not read."""
MAX_COLUMN_BYTES = 4 * 2**30
"""Limit of the images in one row group of a Parquet file, which are read together."""
FORMS = ("file", "zip", "slice", "record", "pixels", "parquet")
UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compression methods that are read; Python unpacks members of the others at once, however large they get."""
_MAX_OPEN = 8
_NUMBERS = b"0123456789 \t\r\n"
T = TypeVar("T")


class CollectionReader:
    """Reads images by `ImageRef`: the bytes of an image file, or pixels if there is no file. Not safe for threads."""

    def __init__(self, root: Path | None) -> None:
        self.root = None if root is None else folder_of(root)
        self._open: OrderedDict[tuple[str, ...], Any] = OrderedDict()
        self._column: pa.ChunkedArray | None = None
        self._column_key: tuple[str | int, ...] = ()

    def read(self, ref: ImageRef) -> bytes | np.ndarray:
        """The bytes of an image file, or pixels (uint8, H x W x 3).

        `ValueError` or `OSError` say what is wrong with this image; the reader can go on with the next one.
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
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would never end
            raise ValueError(f"{ref.path} is no regular file")
        if status.st_size > MAX_BYTES:
            raise ValueError(f"{ref.path} is larger than {MAX_BYTES >> 20} MiB")
        with path.open("rb", buffering=0) as file:
            return file.read()

    def _zip(self, ref: ImageRef) -> bytes:
        try:
            archive = self._cached(("zip", ref.path), lambda: zipfile.ZipFile(self._path(ref)))
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
        file = self._cached(("slice", ref.path), lambda: self._path(ref).open("rb"))
        file.seek(ref.start)
        body = file.read(ref.length)
        if len(body) < ref.length:
            raise ValueError(f"{ref.path} ends at byte {ref.start + len(body)}, inside this picture")
        return body

    def _record(self, ref: ImageRef) -> bytes:
        """A slice of a RecordIO file without the 4-byte words whose offsets in the slice `name` lists."""
        body = self._slice(ref)
        ends = [int(offset) for offset in ref.name.split(",")]
        return b"".join(body[a:b] for a, b in zip([0, *(end + 4 for end in ends)], [*ends, len(body)], strict=True))

    def _pixels(self, ref: ImageRef) -> np.ndarray:
        """Decimal grey values of a square picture in a CSV cell."""
        text = self._slice(ref)
        if unexpected := text.translate(None, _NUMBERS):
            raise ValueError(f"pixels are not whole numbers: {unexpected[:20]!r}")
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
            self._column, self._column_key = None, ()  # freed first: two columns would need twice the memory
            self._column, self._column_key = self._read_column(ref), key
        assert self._column is not None
        value = self._column[ref.length].as_py()
        body = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(body, bytes):
            raise ValueError(f"{ref.path}: column {ref.name} holds no image bytes here")
        return body

    def _read_column(self, ref: ImageRef) -> pa.ChunkedArray:
        file = self._cached(("table", ref.path), lambda: pq.ParquetFile(self._path(ref)))
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

    def _cached(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        """What `make` returns; the `_MAX_OPEN` most recently used results are kept."""
        if key in self._open:
            self._open.move_to_end(key)
        else:
            self._open[key] = make()
            while len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
        value: T = self._open[key]
        return value
