"""The plan of latents: draws from a generator's prior, unlabelled or of the expressions that the generator knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from synthfer.expressions import EXPRESSIONS
from synthfer.planning.order import Interleave
from synthfer.planning.plan import UNLABELLED, Plan
from synthfer.planning.quotas import DEFAULT_TOTAL, CountsConfig
from synthfer.sample import Row, seed_of


@dataclass(frozen=True, kw_only=True)
class Config(CountsConfig):
    """How many faces. `total` alone gives unlabelled ones; other keys need a generator that knows the expressions."""


class LatentPlan(Plan):
    """Rows that differ by their seeds alone, and by the class where one is asked for."""

    method = 1

    def __init__(self, counts: Mapping[str, int], seed: int) -> None:
        """`counts`: rows of each expression, or of `UNLABELLED` alone."""
        self._seed = seed
        self._counts = {name: counts[name] for name in (*EXPRESSIONS, UNLABELLED) if name in counts}
        self._order = Interleave(list(self._counts.values()))

    def __len__(self) -> int:
        return len(self._order)

    def row(self, index: int) -> Row:
        number, _ = self._order.locate(index)
        label = None if UNLABELLED in self._counts else number
        return Row(index=index, label=label, seed=seed_of(self._seed, index), operation="sample")

    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def spec(self) -> dict[str, Any]:
        return {"kind": "latents", "method": self.method, "seed": self._seed, "counts": self.counts()}

    def summary(self, limit: int = 7000) -> dict[str, Any]:
        expressions = {name: {"rows": rows} for name, rows in self._counts.items()}
        return {"rows": len(self), "expressions": expressions, "counted": 0, "attributes": {}}


def from_spec(spec: Mapping[str, Any]) -> LatentPlan:
    """The plan that wrote this spec."""
    plan = LatentPlan(spec["counts"], spec["seed"])
    plan.check_method(spec)
    return plan


def build(config: Config) -> LatentPlan:
    """The plan that a config asks for; `ConfigError` says which key to change, and how."""
    if config.per_expression is None and config.balance is None and config.balance_to is None:
        return LatentPlan({UNLABELLED: config.total or DEFAULT_TOTAL}, config.seed)
    return LatentPlan(config.counts(), config.seed)
