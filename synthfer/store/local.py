"""Objects in a folder: each is written to a hidden temporary file, flushed to disk, and hard-linked to its key.

`link` fails if the name exists, so that one call is both the atomic publication and the conditional create. A process
that is killed at any point leaves at most a hidden file, which readers skip and `gc` finds.
"""

import errno
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from synthfer.files import NotAFileError, check_regular, open_regular
from synthfer.store.objects import ConditionalCreate, Stat, is_older_than, is_probe, probe_conditional_create

_TEMPORARY = ".tmp"
_TEMPORARY_NAME = re.compile(r"\..+\.[0-9a-f]{32}\.tmp", re.DOTALL)
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def _folder(uri: str) -> Path:
    """The absolute folder of a path or file:// URI: workers may start in another folder."""
    if not uri.startswith("file:"):
        text = uri
    else:
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"{uri!r} names the host {parts.netloc!r}: write file:///folder with three slashes.")
        text = unquote(parts.path)
    try:
        path = Path(text).expanduser()
        path = path.resolve()
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a NUL character, no such user
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ValueError(f"cannot store at {_shown(uri)}: {reason}.") from error
    if not uri or not existing.is_dir():
        what = "it" if existing == path else str(existing)
        raise ValueError(f"cannot store at {_shown(uri)}: {what} is not a folder.")
    return path


def _shown(uri: str) -> str:
    return repr(uri if len(uri) <= 200 else f"{uri[:200]}...")


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
        try:
            folder.mkdir(exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"cannot store in {folder}: there is a file in its place.") from error
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
            self._path(path.relative_to(self._root).as_posix())  # a pipe or a folder under the key is an error
            return path.samefile(temporary)  # NFS may lose the answer and link again: then the existing file is ours
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise ValueError(
                f"the file system of {self._root} has no hard links ({error.strerror}), without which a "
                "killed writer could leave half a file. Use a local disk, NFS or s3://."
            ) from error
        return True

    def _path(self, key: str) -> Path:
        """The path of an object; `NotAFileError` unless a regular file or nothing at all is there."""
        path = self._root / key
        try:
            check_regular(path)
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                raise NotAFileError(path, "is a link that leads nowhere") from None
        return path

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        try:
            with open_regular(self._path(key)) as file:
                size = os.fstat(file.fileno()).st_size
                start, end, _ = slice(start, end).indices(size)
                file.seek(start)
                body = file.read(max(0, end - start))
        except NotADirectoryError as error:
            raise FileNotFoundError(f"{self._root / key} does not exist") from error
        if len(body) != max(0, end - start):
            raise OSError(f"{self._root / key}: read {len(body)} of {end - start} bytes")
        return body

    def stat(self, key: str) -> Stat | None:
        try:
            return Stat(self._path(key).stat().st_size, None)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """See `ObjectStore.list`. What is no file, or a link that leads nowhere, is listed with its size as 0.

        `NotAFileError`: the folder of the prefix is a link. Links to folders are never followed: what is behind them
        does not belong to this store.
        """
        root = len(self.uri.rstrip(os.sep)) + 1
        for entry in self._files(prefix):
            if not entry.name.startswith("."):
                yield entry.path[root:].replace(os.sep, "/"), _size(entry)

    def _files(self, prefix: str) -> Iterator[os.DirEntry[str]]:
        folder, _, start = prefix.rpartition("/")
        pending = [self._root / folder]
        if folder and pending[0].is_symlink():
            raise NotAFileError(
                pending[0],
                "is a link to another place, which is not followed: put the folder itself there, or give the address "
                "of the place that it leads to",
            )
        while pending:
            path = pending.pop()
            try:
                entries = os.scandir(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                raise ValueError(f"{self._root} cannot be listed: {str(path)[:200]}... is nested too deep") from error
            with entries:
                for entry in entries:
                    if not entry.name.startswith(start):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
                    else:
                        yield entry
            start = ""

    def open(self, key: str, size: int | None = None) -> pa.NativeFile:
        return pa.OSFile(str(self._path(key)))

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            (self._root / key).unlink()

    def probe(self) -> ConditionalCreate:
        return probe_conditional_create(self.put_new, self.delete)

    def leftovers(self, min_age_s: float, delete: bool) -> Sequence[str]:
        """Probe objects, and temporary files of `put_new` in the store's folder and in those directly below.

        Links are not followed.
        """
        leftovers = []
        for entry in self._files(""):
            key = str(Path(entry.path).relative_to(self._root))
            if not is_probe(key) and (key.count(os.sep) > 1 or not _is_temporary(entry)):
                continue
            with suppress(FileNotFoundError):  # its writer, which is still running, has just removed it
                if not is_older_than(min_age_s, entry.stat(follow_symlinks=False).st_mtime):
                    continue
                if delete:
                    Path(entry.path).unlink()
                leftovers.append(key)
        return sorted(leftovers, key=lambda key: (not is_probe(key), key))


def _is_temporary(entry: os.DirEntry[str]) -> bool:
    """Whether `put_new` wrote it: by its name, and a file. Hidden files of other programs are theirs."""
    return _TEMPORARY_NAME.fullmatch(entry.name) is not None and entry.is_file(follow_symlinks=False)


def _size(entry: os.DirEntry[str]) -> int:
    """The size of a file or of what a link leads to; 0 for anything else, which reading refuses."""
    try:
        return entry.stat().st_size if entry.is_file() else 0
    except OSError:
        return 0
