"""A running job's gauges for Prometheus, and what its GPUs cost.

Ray serves the gauges on the metrics port of the driver's node, with `ray_` before each name. The driver sets all of
them, since it has every report; workers count nothing. A thread sets them every few seconds, because Ray drops a gauge
that was not set for 20 seconds: values are never old, a stalled job shows that nothing moves, a job that has ended has
no gauges, and an unknown value is left out.
"""

import logging
import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol

import ray
from ray.util.metrics import Gauge

from synthfer.cli import Stopped
from synthfer.progress import Meter
from synthfer.store import Spec, open_store

log = logging.getLogger(__name__)

Values = Mapping[str, float | None]

REFRESH = 5.0
"""Seconds between two updates of all gauges and of the cluster's nodes."""

BUSY_WINDOW = 300.0
"""Seconds that the busy share is taken over: several units of every worker."""

TAGS = ("stage", "dataset")
"""The job by the name of its script, and the URI that it writes to. Prometheus has a `job` of its own."""

GAUGES = {
    "synthfer_images_per_second": "Images per second over the last minute, failed ones too",
    "synthfer_device_busy_share": "Share of the last five minutes that the workers' devices were busy, 0 to 1",
    "synthfer_units_committed": "Units of the dataset that are committed",
    "synthfer_units_planned": "Units of the dataset",
    "synthfer_rows_failed": "Rows that failed in this run",
    "synthfer_failed_share": "Share of this run's rows that failed, 0 to 1",
    "synthfer_rejected_share": "Share of this run's rows that a gate rejected, 0 to 1",
    "synthfer_steps_done": "Steps of training that this run has done, those before its checkpoints included",
    "synthfer_steps_planned": "Steps of training that this run will do in all",
    "synthfer_blocks_done": "Blocks of rows that this run has compared or scored",
    "synthfer_blocks_planned": "Blocks of rows that this run will compare or score in all",
    "synthfer_seconds_left": "Seconds until all is done at the rate of the last minute",
    "synthfer_gpu_hours": "GPU-hours that the cluster has held during this run, idle ones too",
    "synthfer_spend": "What these GPU-hours cost by engine.prices",
}


class CostMeter:
    """GPU-hours of all nodes that the cluster holds during this run, used or not, and their price.

    Nodes count while Ray lists them as alive and the job uses the cluster: nodes that are starting do not, nor does the
    sealing of a dataset. An earlier run of the same job is not included.
    `prices`: pool -> price of one GPU-hour, in any currency.
    """

    def __init__(self, prices: Mapping[str, float]) -> None:
        self.prices, self.hours = prices, defaultdict[str, float](float)

    def add(self, nodes: Iterable[Mapping[str, Any]], seconds: float) -> None:
        """Adds `seconds` of all GPUs of these nodes, as `ray.nodes()` returns them."""
        for pool, gpus in gpus_held(nodes).items():
            if self.prices and pool not in self.prices and pool not in self.hours:
                log.warning(
                    "engine.prices has no price for the GPUs of pool %s, so the spend is not known; it has %s",
                    pool, ", ".join(self.prices),
                )  # fmt: skip
            self.hours[pool] += gpus * seconds / 3600

    @property
    def spend(self) -> float | None:
        """None without prices, and where one is missing: a part of the sum would look like all of it."""
        if not self.prices or self.hours.keys() - self.prices.keys():
            return None
        return sum(hours * self.prices[pool] for pool, hours in self.hours.items())

    def summary(self) -> dict[str, float]:
        """The entries for a job's summary; none where the cluster held no GPU."""
        spend = {} if self.spend is None else {"spend": self.spend}
        return {"gpu_hours": sum(self.hours.values()), **spend} if self.hours else {}


def gpus_held(nodes: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """GPUs by pool of the nodes that are alive. The pool of a node without that label is its node group, else `gpu`."""
    held = defaultdict[str, float](float)
    for node in nodes:
        if node["Alive"] and (gpus := node["Resources"].get("GPU")):
            labels = node["Labels"]
            held[labels.get("synthfer.io/pool") or labels.get("ray.io/node-group") or "gpu"] += gpus
    return dict(held)


class Metrics:
    """Sets the gauges of one run of a job while it is open, from `progress` and `cost`. No error here ends a job.

    `with Metrics("generate", uri, prices) as metrics: metrics.progress = GenerationProgress(...)`, once work starts.
    """

    def __init__(self, stage: str, dataset: str, prices: Mapping[str, float]) -> None:
        self.cost = CostMeter(prices)
        self.progress: Callable[[], Values] = dict
        self._tags = dict(zip(TAGS, (stage, open_store(dataset).uri), strict=True))
        self._gauges: dict[str, Gauge] = {}
        self._broken = False
        self._ended, self._thread = threading.Event(), threading.Thread(target=self._update, daemon=True)

    def __enter__(self) -> "Metrics":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(REFRESH)  # a lost cluster may never answer
        cost = self.cost.summary()
        if cost:
            log.info("this run: %s", ", ".join(f"{name} {value:.4g}" for name, value in cost.items()))
        if isinstance(error, Stopped):
            error.summary |= cost

    def _update(self) -> None:
        counted_until = time.monotonic()
        while True:
            last = self._ended.wait(REFRESH)
            try:
                nodes, now = ray.nodes(), time.monotonic()
                self.cost.add(nodes, now - counted_until)
                counted_until = now
                self._set(self.progress())
                self._set({f"synthfer_{name}": value for name, value in self.cost.summary().items()})
            except Exception as error:  # noqa: BLE001 - an error in metrics must not end the job
                if not self._broken:
                    log.warning("metrics are missing or late: %s", error)
                self._broken = True
            if last:
                return

    def _set(self, values: Values) -> None:
        for name, value in values.items():
            if value is not None and math.isfinite(value):
                gauge = self._gauges.get(name) or self._gauges.setdefault(name, Gauge(name, GAUGES[name], TAGS))
                gauge.set(value, self._tags)


class GenerationStats(Protocol):
    """What a job has added to a dataset up to now."""

    units: int
    rows: int
    failed: int
    rejected: int

    @property
    def device_seconds(self) -> tuple[float, float]:
        """Seconds that the workers' devices were busy, and from the first to the last picture of each; both summed."""
        ...


class GenerationProgress:
    """Gauge values of a job that fills a dataset; `committed` units were there before."""

    def __init__(self, meter: Meter, stats: GenerationStats, spec: Spec, committed: int) -> None:
        self.meter, self.stats, self.spec, self.committed = meter, stats, spec, committed
        self._device = deque([(time.monotonic(), *stats.device_seconds)])

    def __call__(self) -> Values:
        stats = self.stats
        return {
            "synthfer_images_per_second": self.meter.rate,
            "synthfer_device_busy_share": self._busy(),
            "synthfer_units_committed": self.committed + stats.units,
            "synthfer_units_planned": self.spec.units,
            "synthfer_rows_failed": stats.failed,
            "synthfer_failed_share": stats.failed / stats.rows if stats.rows else None,
            "synthfer_rejected_share": stats.rejected / stats.rows if stats.rows else None,
            "synthfer_seconds_left": self.meter.seconds_left,
        }

    def _busy(self) -> float | None:
        """None before the first report; 0 where there was none in the whole window."""
        now, (busy, span) = time.monotonic(), self.stats.device_seconds
        self._device.append((now, busy, span))
        while now - self._device[0][0] > BUSY_WINDOW:
            self._device.popleft()
        _, busy_then, span_then = self._device[0]
        return (busy - busy_then) / (span - span_then) if span > span_then else 0.0 if span else None


def counting(what: str, meter: Meter) -> Callable[[], Values]:
    """Gauge values of a job that counts `what`: steps of a training, blocks of an audit or an evaluation."""
    return lambda: {
        f"synthfer_{what}_done": meter.done,
        f"synthfer_{what}_planned": meter.total,
        "synthfer_seconds_left": meter.seconds_left,
    }
