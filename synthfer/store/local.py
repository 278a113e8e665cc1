"""Objects in a folder: each is written to a hidden temporary file, flushed to disk, and hard-linked to its key.

`link` fails if the name exists, so that one call is both the atomic publication and the conditional create. A process
that is killed at any point leaves at most a hidden file, which readers skip and `gc` finds.
"""

import errno
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from synthfer.store.objects import ConditionalCreate, Stat, is_older_than, probe_conditional_create

_TEMPORARY = ".tmp"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def _folder(uri: str) -> Path:
    """The absolute folder of a path or file:// URI: workers may start in another folder."""
    if not uri.startswith("file:"):
        path = Path(uri).expanduser()
    else:
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"{uri!r} names the host {parts.netloc!r}: write file:///folder with three slashes.")
        path = Path(unquote(parts.path))
    if not uri or (path.exists() and not path.is_dir()):
        raise ValueError(f"cannot store at {uri!r}: it is not a folder.")
    return path.resolve()


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, so that they survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


class LocalStore:
    """`ObjectStore` in a folder of a file system with hard links (local disks, NFS; not FAT or some network mounts)."""

    def __init__(self, uri: str) -> None:
        self._root = _folder(uri)
        self.uri = str(self._root)

    def put_new(self, key: str, body: bytes | pa.Buffer) -> bool:
        path = self._root / key
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_TEMPORARY}")
        _make_folder(path.parent)
        try:
            with temporary.open("xb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            created = self._link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if created:
            _sync_folder(path.parent)
        return created

    def _link(self, temporary: Path, path: Path) -> bool:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return path.samefile(temporary)  # NFS may lose the answer and link again: then the existing file is ours
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise ValueError(
                f"the file system of {self._root} has no hard links ({error.strerror}), without which a "
                "killed writer could leave half a file. Use a local disk, NFS or s3://."
            ) from error
        return True

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        with (self._root / key).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start, end, _ = slice(start, end).indices(size)
            file.seek(start)
            body = file.read(max(0, end - start))
        if len(body) != max(0, end - start):
            raise OSError(f"{self._root / key}: read {len(body)} of {end - start} bytes")
        return body

    def stat(self, key: str) -> Stat | None:
        try:
            return Stat((self._root / key).stat().st_size, None)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        root = len(self.uri.rstrip(os.sep)) + 1
        for entry in self._files(prefix):
            if not entry.name.startswith("."):
                yield entry.path[root:].replace(os.sep, "/"), entry.stat().st_size

    def _files(self, prefix: str) -> Iterator[os.DirEntry[str]]:
        folder, _, start = prefix.rpartition("/")
        pending = [self._root / folder]
        while pending:
            try:
                entries = os.scandir(pending.pop())
            except FileNotFoundError:
                continue
            with entries:
                for entry in entries:
                    if not entry.name.startswith(start):
                        continue
                    if entry.is_dir():
                        pending.append(Path(entry.path))
                    else:
                        yield entry
            start = ""

    def open(self, key: str, size: int | None = None) -> pa.NativeFile:
        return pa.OSFile(str(self._root / key))

    def delete(self, key: str) -> None:
        (self._root / key).unlink(missing_ok=True)

    def probe(self) -> ConditionalCreate:
        return probe_conditional_create(self.put_new, self.delete)

    def leftovers(self, min_age_s: float, delete: bool) -> Sequence[str]:
        leftovers = []
        for entry in self._files(""):
            with suppress(FileNotFoundError):  # its writer, which is still running, has just removed it
                if not (entry.name.startswith(".") and entry.name.endswith(_TEMPORARY)):
                    continue
                if not is_older_than(min_age_s, entry.stat().st_mtime):
                    continue
                if delete:
                    Path(entry.path).unlink()
                leftovers.append(str(Path(entry.path).relative_to(self._root)))
        return sorted(leftovers)
