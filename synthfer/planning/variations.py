"""The plan of variations: faces of a labelled set, varied in a latent space until its classes are even.

Semantic augmentation for the long tail as in Li, Wang, Guan and Yin (arXiv 2411.17254): a new sample comes from the
encoding of a source image, so that a rare class grows from its own members. Only split train is ever encoded; faces of
other splits cannot be asked for. The operations are those of `synthfer.generators.vae_gan.operations`; noise is the
paper's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from synthfer.expressions import EXPRESSIONS
from synthfer.planning.faces import FaceTable, open_faces, seeded_order
from synthfer.planning.order import Interleave
from synthfer.planning.plan import Plan, check_range
from synthfer.planning.quotas import CountsConfig
from synthfer.sample import Row, seed_of
from synthfer.schema import ConfigError, option
from synthfer.suggest import nearest

OWN, PAIRED, FOREIGN = ("noise", "interpolate", "style"), ("interpolate", "style"), ("recondition", "direction")
"""Operations on a face of the wanted class; those of them that need a second face; those on a face of another class."""
OPERATIONS = (*OWN, *FOREIGN, "tail")
"""`tail` needs no face: it is drawn from the class's distribution in the latent space."""
_CONFIG_OF = {"noise": "scale", "tail": "scale", "interpolate": "between", "direction": "strength"}


@dataclass(frozen=True, kw_only=True)
class Config(CountsConfig):
    """Which faces, and how many variations of each expression. `plan.balance=URI` names both."""

    faces: str | None = option(None, "the faces to vary: a labelled dataset or view (null: that of plan.balance)")
    most_times: float | None = option(
        None, "with balance: no expression grows beyond this many times its own size (null: no cap)", low=1, high=1e6
    )
    operations: dict[str, float] = option(
        {}, f"share of each operation, of {', '.join(OPERATIONS)} ({{}}: noise alone)", low=0, high=1e6
    )
    scale: tuple[float, float] = option((0.5, 1.5), "noise, tail: least and most deviations", low=0, high=10)
    between: tuple[float, float] = option((0.25, 0.75), "interpolate: least and most way to the partner", low=0, high=1)
    strength: tuple[float, float] = option(
        (1.0, 1.0), "direction: least and most of the way between means", low=0, high=3
    )

    def __post_init__(self) -> None:
        for name in ("scale", "between", "strength"):
            check_range(name, getattr(self, name))
        if unknown := [name for name in self.operations if name not in OPERATIONS]:
            hint = nearest(unknown[0], OPERATIONS) or "."
            raise ValueError(
                f"operations: there is no operation {unknown[0]!r}{hint} There are {', '.join(OPERATIONS)}."
            )
        if self.operations and not sum(self.operations.values()):
            raise ValueError("operations: give at least one a share above 0")


class VariationPlan(Plan):
    """Rows of faces and operations. A class's faces are used evenly: no two differ by more than one use of a kind."""

    method = 1
    faces: FaceTable

    def __init__(
        self,
        faces: FaceTable,
        counts: Mapping[str, int],
        shares: Mapping[str, float],
        ranges: Mapping[str, Sequence[float]],
        seed: int,
    ) -> None:
        """`counts`: rows of each expression; `shares`: of each operation; `ranges`: least and most of its number."""
        self.faces, self._seed = faces, seed
        self._counts = {name: counts[name] for name in EXPRESSIONS}
        self._shares = {name: float(shares[name]) for name in OPERATIONS if shares.get(name)}
        self._ranges = {name: tuple(map(float, ranges[name])) for name in ("scale", "between", "strength")}
        self._order = Interleave(list(self._counts.values()))
        self._quotas = [_apportioned(rows, list(self._shares.values())) for rows in self._counts.values()]
        self._kinds = [Interleave(quota) for quota in self._quotas]
        ids = faces.rows["sample_id"].to_pylist()
        self._all = seeded_order(ids, seed, "variation")
        self._check()

    @cached_property
    def _own(self) -> list[np.ndarray]:
        """The faces of each class, in the order in which they are used."""
        return [self._all[self.faces.labels[self._all] == label] for label in range(len(EXPRESSIONS))]

    @cached_property
    def _foreign(self) -> list[np.ndarray]:
        """The labelled faces of all other classes."""
        labels = self.faces.labels[self._all]
        return [self._all[(labels != label) & (labels >= 0)] for label in range(len(EXPRESSIONS))]

    def _check(self) -> None:
        """`ConfigError` where a class has too few faces for what is asked of it."""
        for label, (name, quota) in enumerate(zip(EXPRESSIONS, self._quotas, strict=True)):
            for operation, rows in zip(self._shares, quota, strict=True):
                pool = self._pool(operation, label)
                least = 2 if operation in PAIRED else 0 if operation == "tail" else 1
                if rows and len(pool) < least:
                    of = f"of another expression than {name}" if operation in FOREIGN else f"of {name}"
                    raise ConfigError(
                        f"plan.operations.{operation}: {rows:,} rows of {name} need at least {least} training face(s) "
                        f"{of}, and there are {len(pool)}; leave the operation or expression out, or give other faces"
                    )

    def _pool(self, operation: str, label: int) -> np.ndarray:
        return (self._foreign if operation in FOREIGN else self._own)[label]

    def __len__(self) -> int:
        return len(self._order)

    def row(self, index: int) -> Row:
        label, k = self._order.locate(index)
        number, j = self._kinds[label].locate(k)
        operation, seed = list(self._shares)[number], seed_of(self._seed, index)
        faces = self._faces(label, number, operation, j, seed)
        return Row(
            index=index,
            label=label,
            seed=seed,
            operation=operation,
            code=self._code(operation, faces, seed),
            faces=faces,
            **(self.faces.lineage(faces[0]) if faces else {}),
            **(self._partner(faces[1]) if len(faces) > 1 else {}),
        )

    def _faces(self, label: int, number: int, operation: str, j: int, seed: int) -> tuple[int, ...]:
        """The faces of the j-th row of an operation; the operations on own faces take turns through them together."""
        if operation == "tail":
            return ()
        pool = self._pool(operation, label)
        sharing = FOREIGN if operation in FOREIGN else OWN
        before = zip(self._shares, self._quotas[label][:number], strict=False)
        at = (sum(rows for name, rows in before if name in sharing) + j) % len(pool)
        if operation not in PAIRED:
            return (int(pool[at]),)
        other = (at + 1 + seed_of(seed, "partner") % (len(pool) - 1)) % len(pool)
        return int(pool[at]), int(pool[other])

    def _partner(self, face: int) -> dict[str, Any]:
        lineage = self.faces.lineage(face)
        return {"partner_id": lineage["parent_id"], "partner_source_id": lineage["source_id"]}

    def _code(self, operation: str, faces: Sequence[int], seed: int) -> tuple[float, ...]:
        """Its number, where it has one, and for faces of another class that class."""
        code: list[float] = []
        if key := _CONFIG_OF.get(operation):
            low, high = self._ranges[key]
            share = float(np.random.default_rng(seed_of(seed, "code")).random())
            code.append(float(np.float32(low + (high - low) * share)))
        if operation in FOREIGN:
            code.append(float(self.faces.labels[faces[0]]))
        return tuple(code)

    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def spec(self) -> dict[str, Any]:
        return {
            "kind": "variations",
            "method": self.method,
            "seed": self._seed,
            "faces": {"sha256": self.faces.sha256, "rows": len(self.faces)},
            "counts": self.counts(),
            "operations": dict(self._shares),
            "ranges": {name: list(span) for name, span in self._ranges.items()},
        }

    def uses(self) -> dict[str, tuple[int, int, int]]:
        """Of each expression with rows: its own faces, and least and most uses of one as a source of its own class."""
        uses = {}
        for label, (name, quota) in enumerate(zip(EXPRESSIONS, self._quotas, strict=True)):
            rows = sum(n for operation, n in zip(self._shares, quota, strict=True) if operation in OWN)
            count = len(self._own[label])
            if self._counts[name]:
                uses[name] = (count, rows // count if count else 0, -(-rows // count) if count else 0)
        return uses

    def summary(self, limit: int = 7000) -> dict[str, Any]:
        return {
            "rows": len(self),
            "expressions": {name: {"rows": rows} for name, rows in self._counts.items()},
            **self.attribute_counts(limit),
            "faces": self.faces.usage(self.uses()),
            "operations": {
                name: sum(quota[number] for quota in self._quotas) for number, name in enumerate(self._shares)
            },
        }


def _apportioned(rows: int, shares: Sequence[float]) -> list[int]:
    """`rows` by shares, whole numbers that sum up to it; the largest remainders are rounded up."""
    exact = np.array(shares) / sum(shares) * rows
    parts = np.floor(exact).astype(int)
    for number in np.argsort(parts - exact, kind="stable")[: rows - parts.sum()]:
        parts[number] += 1
    whole: list[int] = parts.tolist()
    return whole


def from_spec(spec: Mapping[str, Any], faces: FaceTable) -> VariationPlan:
    """The plan that wrote this spec, of the same faces."""
    plan = VariationPlan(faces, spec["counts"], spec["operations"], spec["ranges"], spec["seed"])
    plan.check_method(spec)
    return plan


def build(config: Config) -> VariationPlan:
    """The plan that a config asks for; `ConfigError` says which key to change, and how."""
    key, uri = ("plan.faces", config.faces) if config.faces is not None else ("plan.balance", config.balance)
    if uri is None:
        raise ConfigError("plan.balance or plan.faces is needed: the labelled dataset or view whose faces are varied")
    faces = open_faces(key, uri, ["train"])
    own = dict(zip(EXPRESSIONS, np.bincount(faces.labels[faces.labels >= 0], minlength=7).tolist(), strict=True))
    counts = config.counts()
    if config.most_times is not None:
        if config.balance is None:
            raise ConfigError("plan.most_times needs plan.balance, which says what there is")
        counts = {name: min(rows, int((config.most_times - 1) * own[name])) for name, rows in counts.items()}
        if not any(counts.values()):
            raise ConfigError(f"plan.most_times={config.most_times} leaves nothing to make; give a higher number")
    ranges = {name: getattr(config, name) for name in ("scale", "between", "strength")}
    return VariationPlan(faces, counts, config.operations or {"noise": 1.0}, ranges, config.seed)
