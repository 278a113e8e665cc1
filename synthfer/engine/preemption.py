"""Preemption: an actor leaves a node that is about to end, and loses no work that it has finished.

A node that received SIGTERM (an eviction, or the notice of a spot node) drains: Ray starts nothing new on it. But calls
that are queued in its actors would still start, and an actor without calls would keep the node until its time is up. So
every actor checks regularly whether its node drains. Once it does, the actor finishes its work in flight, starts
nothing more, and restarts: Ray starts it on another node and sends it the calls that it has not answered. A unit in
flight that takes longer than the node has is lost, as when a worker dies, and is done again elsewhere.
"""

import logging
import threading
import time
from collections.abc import Hashable

import ray
import ray._private.state

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
"""Between two checks, and at least between the last answer and the restart, so that the answer arrives."""


def draining() -> bool:
    """Whether the node of this process is about to end.

    Ray exposes it by a private name only, which Ray Data and Ray Train use, too.
    """
    try:
        return ray.get_runtime_context().get_node_id() in ray._private.state.state.get_draining_nodes()
    except Exception as error:  # noqa: BLE001 - a head that does not answer now is asked again soon
        log.debug("cannot check whether this node drains: %s", error)
        return False


class DrainWatcher:
    """Says whether this process's node drains; cheap to call often, since it checks every `POLL_SECONDS`."""

    def __init__(self) -> None:
        self._draining, self._checked = False, -POLL_SECONDS

    def __call__(self) -> bool:
        if not self._draining and time.monotonic() - self._checked >= POLL_SECONDS:
            self._checked, self._draining = time.monotonic(), draining()
        return self._draining


class PreemptionGuard:
    """Restarts the actor that owns it on another node once its own drains.

    The actor's threads call `begin` and `done` around each piece of work.
    """

    def __init__(self) -> None:
        self._in_flight: set[Hashable] = set()
        self._draining, self._lock = False, threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self, work: Hashable) -> None:
        """Registers `work` as in flight. On a draining node it never returns: the actor restarts with the call."""
        with self._lock:
            if not self._draining:
                self._in_flight.add(work)
                return
        threading.Event().wait()

    def done(self, work: Hashable) -> None:
        """Registers `work` as finished, whether or not it was in flight."""
        with self._lock:
            self._in_flight.discard(work)

    def _watch(self) -> None:
        idle = 0  # checks in a row that found the node draining and no work in flight
        while idle < 2:
            time.sleep(POLL_SECONDS)
            now = self._draining or draining()
            with self._lock:
                self._draining = now
                idle = idle + 1 if now and not self._in_flight else 0
        log.warning("this node is about to end: the actor restarts on another one")
        ray.kill(ray.get_runtime_context().current_actor, no_restart=False)
