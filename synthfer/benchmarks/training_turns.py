"""The training job's own workers, which begin each run only when they are told to: so that another loop can take turns.

The gang, its process group, the pictures, the feed and the steps are those of `engine.training`; the list of runs is
one whose iterator waits, and the board is one that notes when it was told something.
"""

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from synthfer.engine.cluster import ClusterResources
from synthfer.engine.status_actor import StatusActor
from synthfer.engine.worker_group import WorkerGroup
from synthfer.training.runs import Run

_LOOK_SECONDS = 1.0


class Referee(StatusActor):
    """A board that says which run may begin, the first being 0, and knows for which one the gang waits.

    Whoever asks is answered when it is time: asking again and again would cost the other side its share of the machine.
    """

    def __init__(self) -> None:
        super().__init__()
        self.allowed, self.asked, self.over = -1, -1, False
        self._changed = asyncio.Condition()

    def report(self, message: Mapping[str, Any]) -> None:
        """Progress, with the time of this process in seconds."""
        super().report({**message, "at": time.perf_counter()})

    async def ask(self, number: int) -> bool:
        """Whether a worker may begin a run, when that is known; to ask means that those before it are done."""
        async with self._changed:
            self.asked = max(self.asked, number)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self.over or number <= self.allowed)
        return not self.over

    async def allow(self, number: int) -> None:
        """Runs until this one may begin; comes back when they are done."""
        async with self._changed:
            self.allowed = number
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self.asked > number)

    async def end(self) -> None:
        """No run may begin any more."""
        async with self._changed:
            self.over = True
            self._changed.notify_all()


@dataclass(frozen=True)
class Turns:
    """Runs that come out of its iterator only when the referee allows them. Pickles."""

    runs: Sequence[Run]
    referee: Any

    def __iter__(self) -> Iterator[Run]:
        for number, run in enumerate(self.runs):
            if not ray.get(self.referee.ask.remote(number)):
                return
            yield run
        ray.get(self.referee.ask.remote(len(self.runs)))


@dataclass(frozen=True)
class Turn:
    """A run: pictures trained on, images/s between the first and the last time that it told of steps, and the share
    of the time that was not spent on making batches."""

    pictures: int
    images_per_s: float
    device_busy: float


class Gang:
    """Workers of a job that train one run after another."""

    def __init__(self, batch: int, referee: Any, thread: threading.Thread, failure: list[BaseException]) -> None:
        self._batch, self._referee, self._thread, self._failure = batch, referee, thread, failure
        self._allowed = -1

    def turn(self) -> Turn:
        """The next run. What ended the gang is raised."""
        self.wait()
        facts = [message for message in ray.get(self._referee.take_messages.remote()) if message["kind"] == "steps"]
        first, last = facts[0], facts[-1]
        batch, seconds = self._batch, last["at"] - first["at"]
        return Turn(
            pictures=batch * last["step"],
            images_per_s=batch * (last["step"] - first["step"]) / seconds,
            device_busy=sum(told["device_busy"] for told in facts[1:]) / len(facts[1:]),
        )

    def wait(self) -> None:
        """Allows the next run, none the first time, and waits until the gang could begin the one after it."""
        done = self._referee.allow.remote(self._allowed)
        self._allowed += 1
        while not ray.wait([done], timeout=_LOOK_SECONDS)[0]:
            if not self._thread.is_alive():
                said = ray.get(self._referee.failure.remote())
                raise RuntimeError(f"the training workers ended early: {said or self._failure}")


@contextmanager
def gang(group: WorkerGroup, resources: ClusterResources) -> Iterator[tuple[Gang, float]]:
    """The workers of a job, and the seconds until they could begin its first run."""
    start = time.perf_counter()
    referee = ray.remote(num_cpus=0)(Referee).remote()
    runs = Turns(group.experiment.runs, referee)
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            group.ray_trainer(runs, resources, referee).fit()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            failure.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    workers = Gang(group.experiment.config.batch, referee, thread, failure)
    try:
        workers.wait()
        yield workers, time.perf_counter() - start
    finally:
        ray.get(referee.end.remote())
        thread.join()
