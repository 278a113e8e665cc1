"""The keys of a plan that has no cells: how many rows of each expression."""

from dataclasses import dataclass

from synthfer.config import option
from synthfer.expressions import EXPRESSIONS
from synthfer.planning.plan import PlanConfig
from synthfer.planning.quotas import quotas


@dataclass(frozen=True, kw_only=True)
class CountsConfig(PlanConfig):
    """Give at most one of total, per_expression, balance."""

    total: int | None = option(None, "rows in all, spread evenly over the expressions", low=1)
    per_expression: int | dict[str, int] | None = option(None, "rows of each expression, as {fear: 500}", low=0)
    balance: str | None = option(
        None,
        "what a labelled set lacks to be uniform: fer2013, rafdb, affectnet7, a dataset, a view, a label,count CSV",
    )
    balance_to: int | None = option(None, "with balance: fill up to this many per expression", low=1)

    @property
    def any_count(self) -> bool:
        """Whether any number of rows is asked for."""
        return any(value is not None for value in (self.total, self.per_expression, self.balance, self.balance_to))

    def counts(self, total: int | None = None) -> dict[str, int]:
        """Rows of each expression; `total` where no number is asked for. `ConfigError` as of `quotas`."""
        return quotas(
            dict.fromkeys(EXPRESSIONS, 1),
            total=self.total if self.any_count else total,
            per_expression=self.per_expression,
            balance=self.balance,
            balance_to=self.balance_to,
        )
