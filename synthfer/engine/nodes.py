"""Which nodes of a cluster a job's workers run on, by labels, and their prices; nothing that is made depends on it.

A job that names no nodes takes any, so that work for CPUs may land on a node with GPUs, and hold it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from synthfer.config import option
from synthfer.label_selectors import fits


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The keys that say which nodes, and what they cost. `ValueError`: labels that no node can have."""

    nodes: list[dict[str, str]] = option(
        [],
        "labels of the nodes to run on, as [{pool: l4}, {pool: h100}]: the next alternative is for what the ones "
        "before have no room for. A value may be '!cpu' or 'in(l4,h100)'; of several pools in one alternative a "
        "cluster that grows starts the one with the highest priority that did not fail lately (empty: any node)",
    )
    prices: dict[str, float] = option({}, "price of one GPU-hour by pool: {l4-spot: 0.25}; the spend is told", low=0)

    def __post_init__(self) -> None:
        if not all(self.nodes):
            raise ValueError("nodes: an alternative without labels is any node; name a label, or leave nodes out")
        try:
            ray.remote(_nothing).options(**self.placement)
        except ValueError as error:
            raise ValueError(f"nodes: {error}") from error

    @property
    def placement(self) -> dict[str, Any]:
        """Ray's options for whatever is started on these nodes."""
        # Ray takes the space in `in(a, b)` for a part of b, and finds no such node.
        selectors = [{key: value.replace(" ", "") for key, value in selector.items()} for selector in self.nodes]
        if not selectors:
            return {}
        others = [{"label_selector": selector} for selector in selectors[1:]]
        return {"label_selector": selectors[0]} | ({"fallback_strategy": others} if others else {})

    def take(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels is one of them."""
        return not self.nodes or any(fits(labels, selector) for selector in self.nodes)


def _nothing() -> None:
    """What Ray is asked about, which checks labels where work is described."""
