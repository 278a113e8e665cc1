"""Waiting for many requests at once: a `map` with threads that keeps the order of its items."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def ordered_thread_map(work: Callable[[S], T], items: Iterable[S], threads: int) -> Iterator[T]:
    """`map(work, items)` in `threads` threads, which stay at most `threads` items ahead of the reader."""
    pool, source = ThreadPoolExecutor(threads), iter(items)
    try:
        pending = [pool.submit(work, item) for item in islice(source, threads)]
        while pending:
            result = pending.pop(0).result()
            pending.extend(pool.submit(work, item) for item in islice(source, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
