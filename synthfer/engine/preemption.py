"""A worker's way off a node that is about to leave: nothing is begun there that the node may not see the end of.

A node that was told to end (SIGTERM, as at an eviction, or a spot node's notice) drains: Ray starts nothing new on it.
But calls that wait in its actors would still be begun, and an actor without calls would hold the node until its time is
up. So every actor looks now and then whether its node drains. Once it does, what is in hand is finished, what waits is
not begun, and the actor moves: Ray starts it on another node and sends it the calls that it has not answered. A unit in
hand that takes longer than the node has is lost whole, as at any death, and made again elsewhere.
"""

import logging
import threading
import time
from collections.abc import Hashable

import ray
import ray._private.state

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Between two looks, and at least between the last answer and the move, so that the answer is heard."""


def draining() -> bool:
    """Whether the node of this process is about to leave.

    Ray tells it by a private name alone, by which Ray Data and Ray Train ask, too.
    """
    try:
        return ray.get_runtime_context().get_node_id() in ray._private.state.state.get_draining_nodes()
    except Exception as error:  # noqa: BLE001 - a head that does not answer now is asked again soon
        log.debug("is this node about to leave? %s", error)
        return False


class DrainWatcher:
    """Called as often as one likes, says whether this process's node drains; it looks every `LOOK_SECONDS`."""

    def __init__(self) -> None:
        self._leaving, self._looked = False, -LOOK_SECONDS

    def __call__(self) -> bool:
        if not self._leaving and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked, self._leaving = time.monotonic(), draining()
        return self._leaving


class PreemptionGuard:
    """Moves the actor that has it once its node drains. The actor's threads say what they begin and what is done."""

    def __init__(self) -> None:
        self._in_hand: set[Hashable] = set()
        self._leaving, self._lock = False, threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self, work: Hashable) -> None:
        """Says that `work` begins. Where it may not, this does not return: the process ends, and the call moves."""
        with self._lock:
            if not self._leaving:
                self._in_hand.add(work)
                return
        threading.Event().wait()

    def done(self, work: Hashable) -> None:
        """Says that `work` is done, whether or not it was begun."""
        with self._lock:
            self._in_hand.discard(work)

    def _watch(self) -> None:
        idle = 0
        while idle < 2:
            time.sleep(LOOK_SECONDS)
            leaving = self._leaving or draining()
            with self._lock:
                self._leaving = leaving
                idle = idle + 1 if leaving and not self._in_hand else 0
        log.warning("this node is about to leave: the actor moves to another one")
        ray.kill(ray.get_runtime_context().current_actor, no_restart=False)
