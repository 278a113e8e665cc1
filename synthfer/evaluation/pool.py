"""Where the work of an audit is done: here, one piece after another, or wherever an engine puts it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Pool(Protocol):
    """Runs functions of a module; a handle that `start` gave may be an argument of a later call."""

    def start(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Begins a call and gives a handle to its result, which stays wherever it was made."""
        ...

    def one_by_one(self, handles: Sequence[Any]) -> Iterable[Any]:
        """An argument of a call that gives the handles' results one after another, so that one is held at a time."""
        ...

    def map(self, function: Callable[..., T], calls: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """The results of many calls, in order; only some of them wait at a time."""
        ...


class Serial:
    """This process, one call at a time; a handle is the result itself."""

    def start(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Makes the call."""
        return function(*arguments)

    def one_by_one(self, handles: Sequence[Any]) -> Iterable[Any]:
        """The results themselves."""
        return handles

    def map(self, function: Callable[..., T], calls: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """Makes each call when its result is asked for."""
        return (function(*arguments) for arguments in calls)
