"""The plan of prompts: rows of every cell, each with a sentence. Nothing is stored: any row is computed on demand.

`PromptPlan.row` shows how a prompt comes about: `order.Interleave` gives the row its expression, `cells.Grid` its cell
(a value of each attribute), and the vocabulary (vocabulary.py, presets/*.yaml) the words for both, which fill a
template. Every prefix of a plan is balanced, and so is a run that was stopped half-way: the expressions are mixed in
proportion, and the cells of one expression differ by at most one row.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from synthfer.expressions import EXPRESSIONS
from synthfer.limits import MAX_ROWS
from synthfer.planning.cells import Grid
from synthfer.planning.order import Interleave
from synthfer.planning.plan import Plan, PlanConfig
from synthfer.planning.quotas import quotas
from synthfer.planning.vocabulary import Vocabulary, from_document, load_preset, render
from synthfer.sample import Row, seed_of
from synthfer.schema import option


@dataclass(frozen=True, kw_only=True)
class Config(PlanConfig):
    """What to make: which faces, and how many. Give one of total, per_expression, per_cell, balance."""

    preset: str = option("portrait", "vocabularies and templates: portrait, syntfer, or a path to a YAML file")
    total: int | None = option(
        None, "rows in all, spread evenly over the expressions (700 if nothing is asked)", low=1, high=MAX_ROWS
    )
    per_expression: int | dict[str, int] | None = option(
        None,
        "rows of each expression: a number, or a map such as {fear: 500, disgust: 300}; others get 0",
        low=0,
        high=MAX_ROWS,
    )
    per_cell: int | None = option(None, "rows of each cell (expression x every attribute)", low=1, high=MAX_ROWS)
    balance: str | None = option(
        None,
        "what brings each expression of a labelled set up to its largest: fer2013, rafdb, affectnet7, a dataset or a "
        "label,count CSV",
    )
    balance_to: int | None = option(
        None, "with balance: fill up to this many per expression, not to the largest", low=1, high=MAX_ROWS
    )
    attributes: dict[str, list[str] | str] = option({}, "restrict an attribute: plan.attributes.age=[young,old]")


class PromptPlan(Plan):
    """Rows of cells, each with a prompt."""

    method = 1

    def __init__(self, vocabulary: Vocabulary, counts: Mapping[str, int], seed: int) -> None:
        """`counts`: rows of each of the seven expressions, >= 0; `seed`: in [0, 2**63)."""
        self._vocabulary, self._seed = vocabulary, seed
        self._counts = {name: counts[name] for name in EXPRESSIONS}
        self._order = Interleave(list(self._counts.values()))
        self._grids = [Grid(vocabulary, name, seed) for name in EXPRESSIONS]

    def __len__(self) -> int:
        return len(self._order)

    def row(self, index: int) -> Row:
        label, k = self._order.locate(index)
        cell = self._grids[label].cell(k)
        phrases = self._vocabulary.phrases(cell)
        templates = self._vocabulary.templates
        template = templates[seed_of(self._seed, "template", index) % len(templates)]
        del cell["expression"]
        return Row(
            index=index,
            label=label,
            seed=seed_of(self._seed, index),
            attributes=cell,
            prompt=render(template, phrases),
            negative_prompt=self._vocabulary.negative,
        )

    def texts(self, limit: int) -> set[str | None] | None:
        templates, vocabulary = self._vocabulary.templates, self._vocabulary
        grids = [grid for grid, n in zip(self._grids, self._counts.values(), strict=True) if n]
        texts: set[str | None] = {vocabulary.negative}
        if len(self) < limit:
            return texts | {row.prompt for row in self.rows(range(len(self)))}
        if sum(map(len, grids)) * len(templates) >= limit:
            return None
        cells = [vocabulary.phrases(grid.cell(k)) for grid in grids for k in range(len(grid))]
        return texts | {render(template, cell) for template in templates for cell in cells}

    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def cells_per_expression(self) -> dict[str, int]:
        return {name: len(grid) for name, grid in zip(EXPRESSIONS, self._grids, strict=True)}

    def spec(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "seed": self._seed,
            "counts": self.counts(),
            "vocabulary": self._vocabulary.document(),
        }

    def summary(self, limit: int = 7000, prompts: int = 3) -> dict[str, Any]:
        """What a dry run shows, as JSON.

        rows; expressions: of each its rows, cells and rows per cell [least, most]; attributes: rows per value
        among the first `counted` rows, which are all if they are at most `limit`; prompts: the first ones.
        """
        counted = self.rows(range(min(limit, len(self))))
        values: dict[str, Counter[str]] = {name: Counter() for name in self._vocabulary.attributes}
        for row in counted:
            for name, value in row.attributes.items():
                values[name][value] += 1
        cells = self.cells_per_expression()
        return {
            "rows": len(self),
            "expressions": {
                name: {
                    "rows": n,
                    "cells": cells[name],
                    "rows_per_cell": [n // cells[name], -(-n // cells[name])],
                }
                for name, n in self._counts.items()
            },
            "counted": len(counted),
            "attributes": {
                name: {value: values[name][value] for value in attribute.values}
                for name, attribute in self._vocabulary.attributes.items()
            },
            "prompts": [row.prompt for row in counted[:prompts]],
        }


def from_spec(spec: Mapping[str, Any]) -> PromptPlan:
    """The plan that wrote this spec; `ConfigError` where another version of the method wrote it."""
    plan = PromptPlan(from_document(spec["vocabulary"], "in the spec"), spec["counts"], spec["seed"])
    plan.check_method(spec)
    return plan


def build(config: Config) -> PromptPlan:
    """The plan that a config asks for; `ConfigError` says which key to change, and how."""
    vocabulary = load_preset(config.preset).restricted(config.attributes)
    cells = {name: len(Grid(vocabulary, name, config.seed)) for name in EXPRESSIONS}
    counts = quotas(
        cells,
        total=config.total,
        per_expression=config.per_expression,
        per_cell=config.per_cell,
        balance=config.balance,
        balance_to=config.balance_to,
    )
    return PromptPlan(vocabulary, counts, config.seed)
