"""A user's program for the kill tests, in processes that start in milliseconds: forked from a warm server."""

import multiprocessing
import os
import signal
from collections.abc import Mapping

from synthfer.store import objects
from tests.store.tables import filled

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["pytest", "tests.store.programs", "synthfer.store.s3"])


def start(*words: object) -> multiprocessing.Process:
    """The program in a process of its own."""
    process = _context.Process(target=program, args=words)
    process.start()
    return process


def program(
    uri: str, env: Mapping[str, str] | None = None, call: str | None = None, moment: str = "", number: int = 0
) -> None:
    """Create, commit what is missing, seal; with `call` killed before or after the n-th call of `os.<call>`."""
    os.environ.update(env or {})
    objects._RACES = (1,)  # a short probe, always of the same number of calls
    if call:
        _kill_at(call, moment, number)
    filled(uri)


def _kill_at(call: str, moment: str, number: int) -> None:
    act, calls = getattr(os, call), 0

    def killed(*args, **options):
        nonlocal calls
        calls += 1
        if (calls, moment) == (number, "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return act(*args, **options)
        finally:
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, call, killed)
