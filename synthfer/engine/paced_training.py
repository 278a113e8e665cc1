"""Training one run at a time, for the benchmark: the job's own workers wait before each run, so that another loop can
be timed between two runs.

Workers, process group, pictures, batches and steps are those of `engine.worker_group`. Only two things differ: the list
of runs is one whose iterator waits for permission, and the status actor notes the time of each message.
"""

import asyncio
import os
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

_POLL_SECONDS = 1.0


class PacingActor(StatusActor):
    """A status actor that says which run may start, the first being 0, and knows which one the workers wait for.

    A worker's question is answered only once the answer is known: polling would take CPU time from the other loop.
    """

    def __init__(self) -> None:
        super().__init__()
        self.permitted, self.requested, self.ended = -1, -1, False
        self._changed = asyncio.Condition()

    def report(self, message: Mapping[str, Any]) -> None:
        """Adds a progress message with the time of this process in seconds."""
        super().report({**message, "at": time.perf_counter()})

    async def request(self, number: int) -> bool:
        """Waits until a worker may start a run (True) or none may any more. To ask means that earlier runs are done."""
        async with self._changed:
            self.requested = max(self.requested, number)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self.ended or number <= self.permitted)
        return not self.ended

    async def permit(self, number: int) -> None:
        """Lets the runs up to this one start, and returns when they are done."""
        async with self._changed:
            self.permitted = number
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self.requested > number)

    async def end(self) -> None:
        """Lets no run start any more."""
        async with self._changed:
            self.ended = True
            self._changed.notify_all()


@dataclass(frozen=True)
class PacedRuns:
    """Runs that the iterator yields only when the actor permits them. Pickles."""

    runs: Sequence[Run]
    pacing: Any

    def __iter__(self) -> Iterator[Run]:
        for number, run in enumerate(self.runs):
            if not ray.get(self.pacing.request.remote(number)):
                return
            yield run
        ray.get(self.pacing.request.remote(len(self.runs)))


@dataclass(frozen=True)
class RunTiming:
    """A finished run: pictures trained on, images/s between its first and last message about steps, and the share of
    the time that was not spent on making batches."""

    pictures: int
    images_per_s: float
    device_busy: float


class PacedTraining:
    """Workers of a job that train one run after another."""

    def __init__(self, batch: int, pacing: Any, thread: threading.Thread, errors: list[BaseException]) -> None:
        self._batch, self._pacing, self._thread, self._errors = batch, pacing, thread, errors
        self._permitted = -1

    def next_run(self) -> RunTiming:
        """Trains the next run. Raises what ended the workers early."""
        self.advance()
        messages = [message for message in ray.get(self._pacing.take_messages.remote()) if message["kind"] == "steps"]
        first, last = messages[0], messages[-1]
        busy = [message["device_busy"] for message in messages[1:]]
        return RunTiming(
            pictures=self._batch * last["step"],
            images_per_s=self._batch * (last["step"] - first["step"]) / (last["at"] - first["at"]),
            device_busy=sum(busy) / len(busy),
        )

    def advance(self) -> None:
        """Permits the next run, none the first time, and waits until the workers could start the one after it."""
        done = self._pacing.permit.remote(self._permitted)
        self._permitted += 1
        while not ray.wait([done], timeout=_POLL_SECONDS)[0]:
            if not self._thread.is_alive():
                failure = ray.get(self._pacing.failure.remote())
                raise RuntimeError(f"the training workers ended early: {failure or self._errors}")


@contextmanager
def paced_training(group: WorkerGroup, resources: ClusterResources) -> Iterator[tuple[PacedTraining, float]]:
    """The workers of a job, and the seconds until they could start its first run."""
    start = time.perf_counter()
    pacing = ray.remote(num_cpus=0)(PacingActor).remote()
    runs = PacedRuns(group.experiment.runs, pacing)
    errors: list[BaseException] = []

    def fit() -> None:
        try:
            group.ray_trainer(runs, resources, pacing).fit()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            errors.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    training = PacedTraining(group.experiment.config.batch, pacing, thread, errors)
    try:
        training.advance()
        yield training, time.perf_counter() - start
    finally:
        ray.get(pacing.end.remote())
        thread.join()


def worker_niceness() -> int:
    """The niceness of a process that Ray starts: lower priority than the driver's, which a fair comparison shares."""
    niceness: int = ray.get(ray.remote(num_cpus=0)(_niceness).remote())
    return niceness


def _niceness() -> int:
    return os.nice(0)
