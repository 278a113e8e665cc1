"""Where an audit's tasks run: in this process one after another, or on a cluster through an engine's pool."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class TaskPool(Protocol):
    """Runs module-level functions. A handle that `submit` returned may be an argument of a later call."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Starts a call and returns a handle to its result, which stays where it was computed."""
        ...

    def stream(self, handles: Sequence[Any]) -> Iterable[Any]:
        """An argument for a call that iterates over the handles' results and holds one of them at a time."""
        ...

    def map(self, function: Callable[..., T], calls: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """The results of many calls, in order; only some of the calls are queued at a time."""
        ...


class SerialPool:
    """Runs in this process, one call at a time; a handle is the result itself."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Makes the call."""
        return function(*arguments)

    def stream(self, handles: Sequence[Any]) -> Iterable[Any]:
        """The results themselves."""
        return handles

    def map(self, function: Callable[..., T], calls: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """Makes each call when its result is asked for."""
        return (function(*arguments) for arguments in calls)
