"""Ray's page of metrics as a test reads it."""

import time
import urllib.request
from collections.abc import Callable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

# Ray sends its numbers to the page every ten seconds; a busy machine needs several times as long.
PATIENCE = 200.0

Page = dict[str, Metric]


def page(port: int) -> Page:
    """The metrics at a port of this machine by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return {metric.name: metric for metric in text_string_to_metric_families(answer.read().decode())}


def page_with(port: int, wanted: Callable[[Page], bool]) -> Page:
    """The page once it says what is wanted."""
    end = time.monotonic() + PATIENCE
    while True:
        seen = page(port)
        if wanted(seen):
            return seen
        assert time.monotonic() < end, f"only {sorted(seen)}"
        time.sleep(0.5)


def values_of(seen: Page, prefix: str, **labels: str) -> dict[str, float]:
    """The values of the metrics whose names begin with `prefix`, where the labels are these; one of each at most."""
    found: dict[str, float] = {}
    for name, metric in seen.items():
        for sample in metric.samples:
            if name.startswith(prefix) and labels.items() <= sample.labels.items():
                assert name not in found, f"{name} twice with {labels}"
                found[name] = sample.value
    return found
