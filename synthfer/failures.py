"""What an error means to whoever called a job: wrong input or a failure, in one line, or else a bug with its traceback.

Wrong input is what a `raise` of this package says of what the user gave, and a place where the system lets nobody read
or write. A failure is an error of this package's own kinds, or one that the system (no room, no memory) is behind. Any
other error is a bug.
"""

import dis
import errno
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from synthfer.schema import ConfigError

_LONGEST_NAME = 200
_WRONG_PLACE = {
    errno.EACCES: "give it to this user, or choose another place",
    errno.EPERM: "give it to this user, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another place",
    errno.EISDIR: "a folder stands where a file is needed: choose another name",
    errno.EEXIST: "choose another name, or move what is there",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "links lead back to themselves: correct them",
    errno.ENXIO: "it is no file: choose another place",
    errno.ENODEV: "it is no file: choose another place",
    errno.EINVAL: "choose another place",
}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Failure:
    """`message`: what went wrong, in words. `wrong_input`: the user can correct it. `bug`: show the traceback."""

    message: str
    wrong_input: bool = False
    bug: bool = False


def explain(error: Exception) -> Failure:
    """What to say of an error."""
    if isinstance(error, ConfigError):
        return Failure(str(error), wrong_input=True)
    if isinstance(error, (ValueError, FileNotFoundError)) and raised_by_us(error):
        return Failure(str(error), wrong_input=True)
    if isinstance(error, OSError) and (failure := _of_the_system(error)):
        return failure
    if isinstance(error, MemoryError):
        return Failure(f"out of memory in {_where(error)}: ask for less at once (batch, size, rows, workers)")
    if isinstance(error, RecursionError):
        return Failure(f"something is nested too deep in {_where(error)}: simplify what was given, or report it")
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return Failure(f"{error.object[:_LONGEST_NAME]!r} is not Unicode text (UTF-8): rename it", wrong_input=True)
    if type(error).__module__.startswith("synthfer.") and raised_by_us(error):
        return Failure(str(error))
    return Failure(f"{type(error).__name__}: {error}", bug=True)


def cause_lines(error: BaseException) -> Iterator[str]:
    """Where an error was raised and what caused it, one line each."""
    yield f"raised in {_where(error)}"
    seen = {id(error)}
    while (cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        if id(cause) in seen:
            return
        seen.add(id(cause))
        error = cause
        yield f"caused by {type(error).__name__} in {_where(error)}: {' '.join(str(error).split())[:1000]}"


def raised_by_us(error: Exception) -> bool:
    """Whether a `raise` of this package or the script made the error; an error that a library raised is a failure."""
    frame = error.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    if frame is None:
        return False
    package = str(frame.tb_frame.f_globals.get("__name__")).partition(".")[0]
    instruction = dis.opname[frame.tb_frame.f_code.co_code[frame.tb_lasti]]
    return package in ("synthfer", "__main__") and instruction == "RAISE_VARARGS"


def _of_the_system(error: OSError) -> Failure | None:
    """No room, or a path that cannot be read or written; what we say ourselves of a store that does not answer."""
    name = error.filename2 or error.filename
    where = "" if name is None else f"{_short(os.fsdecode(name) if isinstance(name, bytes) else str(name))}: "
    if error.errno in _NO_ROOM:
        return Failure(f"{where}{error.strerror}: make room, then run the same command again: it continues")
    if error.errno in _WRONG_PLACE and name is not None and not isinstance(name, int):
        return Failure(f"{where}{error.strerror}: {_WRONG_PLACE[error.errno]}", wrong_input=True)
    if raised_by_us(error):
        return Failure(str(error))
    if error.errno == errno.EIO:
        return Failure(f"{where}{error.strerror}: look at the disk, then run the same command again")
    return None


def _short(name: str) -> str:
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    return shown if shown.isprintable() else repr(shown)


def _where(error: BaseException) -> str:
    """The innermost line of this package that the error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}synthfer{os.sep}" in frame.filename] or frames
    if not ours:
        return "nowhere"
    return f"{'/'.join(ours[-1].filename.rsplit(os.sep, 2)[-2:])}:{ours[-1].lineno}"
