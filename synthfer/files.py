"""Files, opened only if they are files: a pipe would wait for ever, a device never ends; and files put in place whole.

What a path leads to is looked at before it is opened and again when it is open. Links to regular files are followed.
"""

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_SHOWN = 300
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class NotAFileError(ValueError):
    """A path does not lead to a regular file; the message names the path and `problem`, what is there."""

    def __init__(self, path: Path | str, problem: str) -> None:
        super().__init__(str(path)[:200], problem)
        self.problem = problem

    def __str__(self) -> str:
        return " ".join(self.args)


def problem_of(error: Exception) -> str:
    """What is wrong with a file in a few words without its path, for those who name it in their own way."""
    if isinstance(error, NotAFileError):
        return error.problem
    return (getattr(error, "strerror", None) or str(error))[:_SHOWN]


def check_regular(path: Path | str) -> os.stat_result:
    """The status of a regular file; `NotAFileError` says what else is there, `FileNotFoundError` that nothing is."""
    try:
        status = Path(path).stat()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            problem = "is a link that leads back to itself" if error.errno == errno.ELOOP else "is too long a path"
            raise NotAFileError(path, problem) from error
        raise
    except ValueError as error:  # a NUL character
        raise NotAFileError(repr(str(path)[:200]), "is no path") from error
    _check(path, status)
    return status


def open_regular(path: Path | str, buffering: int = -1) -> BinaryIO:
    """A regular file, open for reading bytes; errors are those of `check_regular`."""
    check_regular(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check(path, os.fstat(descriptor))  # somebody may have put a pipe there in between
    except NotAFileError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb", buffering)


def read_file(path: Path | str, max_bytes: int) -> bytes:
    """The content of a regular file; `ValueError` if it is larger than `max_bytes`."""
    with open_regular(path, buffering=0) as file:
        body = file.read(max_bytes + 1) if os.fstat(file.fileno()).st_size <= max_bytes else None
    if body is None or len(body) > max_bytes:
        raise ValueError(f"{path} is larger than {max_bytes:,} bytes, which is the most that is read")
    return body


def _check(path: Path | str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotAFileError(path, f"is {_KINDS.get(stat.S_IFMT(status.st_mode), 'no file')}, not a file")


def check_output(path: Path | str) -> Path:
    """The path of a file that can be written, its folder made; `OSError` or `NotAFileError` say why it cannot.

    For what a job writes at its end: an hour of work would be lost. A file that is there stays as it is.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        check_regular(path)
    with _aside(path):
        pass
    return path


def write_file(path: Path | str, body: bytes) -> None:
    """Puts `body` in place of a file, whole or not at all; errors are those of `check_output`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        check_regular(path)
    with _aside(path) as aside:
        aside.write_bytes(body)
        aside.replace(path.resolve())


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, which is gone afterwards; errors of the system name `path`."""
    target = path.resolve()
    aside = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        aside.touch(exist_ok=False)
        yield aside
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            aside.unlink()
