"""Reads the images of a collection from files, archives and tables, none of which is trusted.

Nothing is unpacked to disk, every read has a limit, and no path leaves the collection's folder. Open files and the last
column of a table are kept, since the images of a unit are mostly stored side by side.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from synthfer import sources
from synthfer.files import NotAFileError, open_regular, problem_of
from synthfer.sources.archives import open_zip, read_member
from synthfer.sources.entry import ImageRef, SourceError, safe_path
from synthfer.sources.layouts import folder_of, readable
from synthfer.sources.parquet_files import ERRORS as PARQUET_ERRORS
from synthfer.sources.parquet_files import Column, open_parquet

MAX_BYTES = 64 * 2**20
"""Limit of one image file; what claims to be larger is not read."""
FORMS = ("file", "zip", "slice", "record", "pixels", "parquet")
_MAX_OPEN = 8
_NUMBERS = b"0123456789 \t\r\n"
T = TypeVar("T")


class CollectionReader:
    """Reads images by `ImageRef`: the bytes of an image file, or pixels if there is no file. Not safe for threads."""

    def __init__(self, root: Path | None, modules: Sequence[str] = ()) -> None:
        """`modules` are dotted names of sources of the user's own, whose `picture` may be called."""
        self._modules = modules
        self.root = None if root is None else folder_of(root)
        self._open: OrderedDict[tuple[str, ...], Any] = OrderedDict()
        self._column: Column | None = None
        self._column_key: tuple[str | int, ...] = ()

    def read(self, ref: ImageRef) -> bytes | np.ndarray:
        """The bytes of an image file, or pixels (uint8, H x W x 3).

        `ValueError` or `OSError` say what is wrong with this image; the reader can go on with the next one.
        """
        if ref.form not in FORMS:
            # The form stands in a stored index, which may be a stranger's: it imports nothing by itself.
            picture = getattr(sources.named(ref.form, self._modules), "picture", None)
            if picture is None:
                raise ValueError(f"the form {ref.form!r} of a picture is not known; known: {', '.join(FORMS)}")
            pixels: np.ndarray = picture(ref)
            return pixels
        read: Callable[[ImageRef], bytes | np.ndarray] = getattr(self, f"_{ref.form}")
        return read(ref)

    def _path(self, ref: ImageRef) -> Path:
        assert self.root is not None
        return self.root / safe_path(ref.path)

    def _opened(self, ref: ImageRef, opener: Callable[[Path], T]) -> T:
        """A file opened; what is no file is an error that names it as the collection does."""
        path = self._path(ref)
        try:
            return opener(path)
        except NotAFileError as error:
            raise ValueError(f"{readable(ref.path)} {error.problem}") from error

    def _file(self, ref: ImageRef) -> bytes:
        with self._opened(ref, open_regular) as file:
            body = file.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise ValueError(f"{ref.path} is larger than {MAX_BYTES >> 20} MiB")
        return body

    def _zip(self, ref: ImageRef) -> bytes:
        member = f"{ref.path}: {readable(ref.name)}"
        try:
            archive = self._cached(("zip", ref.path), lambda: self._opened(ref, open_zip))
        except SourceError:
            raise
        except ValueError as error:
            raise ValueError(f"{member} cannot be unpacked: {error}") from error
        try:
            return read_member(archive, ref.name, MAX_BYTES)
        except ValueError as error:
            raise ValueError(f"{member} {error}") from error

    def _slice(self, ref: ImageRef) -> bytes:
        if not 0 <= ref.length <= MAX_BYTES:
            raise ValueError(f"{ref.path}: {ref.length} bytes are more than {MAX_BYTES >> 20} MiB")
        file: BinaryIO = self._cached(("slice", ref.path), lambda: self._opened(ref, open_regular))
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
        try:
            if key != self._column_key:
                self._column, self._column_key = None, ()  # freed first: two columns would need twice the memory
                self._column, self._column_key = self._read_column(ref), key
            assert self._column is not None
            value = self._column[ref.length]
        except (FileNotFoundError, SourceError):
            raise
        except PARQUET_ERRORS as error:
            raise ValueError(f"{ref.path}: row group {ref.start} cannot be read: {problem_of(error)}") from error
        body = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(body, bytes):
            raise ValueError(f"{ref.path}: column {ref.name} holds no image bytes here")
        if len(body) > MAX_BYTES:
            raise ValueError(f"{ref.path}: {len(body):,} bytes are more than {MAX_BYTES >> 20} MiB")
        return body

    def _read_column(self, ref: ImageRef) -> Column:
        parquet = self._cached(("table", ref.path), lambda: self._opened(ref, open_parquet))
        return Column(parquet, ref.start, ref.name)

    def _cached(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        """What `make` returns; the `_MAX_OPEN` most recently used results are kept."""
        if key in self._open:
            self._open.move_to_end(key)
        else:
            self._open[key] = make()
            while len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)[1].close()
        value: T = self._open[key]
        return value
