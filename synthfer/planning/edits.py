"""The plan of edits: faces of a dataset, each given one expression or all seven, identity by identity.

The designs are those of SyntFER (arXiv 2605.17483): every face in all classes (SynFace490), each face once (SynFace70),
or the class counts of a target set without replacement (SynFace15). Children of a face inherit its lineage and split.
A code is an expression with an intensity, a polar pair (theta in radians, rho) or a point (x, y) of the editor's
two-dimensional space (GANmut, CVPR 2021); the presets are SyntFER's F (points of the Gaussian model) and V (directions
of the linear one).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthfer.expressions import EXPRESSIONS, index_of
from synthfer.limits import MAX_ROWS
from synthfer.planning.faces import FaceTable, block_shuffle, open_faces, seeded_order
from synthfer.planning.order import Interleave
from synthfer.planning.plan import Plan, check_range
from synthfer.planning.quotas import CountsConfig, labelled_counts
from synthfer.sample import SPLITS, Row, seed_of
from synthfer.schema import REQUIRED, ConfigError, option

MOST_RHO = 1.5
"""Codes reach beyond what editors are trained on (1) only so far."""
_CODES = ("expression", "polar", "point", "syntfer-f", "syntfer-v")
_POINTS = {
    "anger": (0.8572, -0.9997), "disgust": (-0.9823, -0.9984), "fear": (-0.1805, -1.0), "happy": (0.3152, -0.1149),
    "neutral": (-0.2812, -0.4329), "sad": (-1.0, -0.6416), "surprise": (0.9617, -0.451),
}  # fmt: skip
_AXES = {
    "anger": (-0.2205, -0.9754), "disgust": (-0.7135, -0.7007), "fear": (-0.6859, 0.7277), "happy": (0.9918, 0.1275),
    "sad": (-0.9996, -0.0287), "surprise": (-0.1363, 0.9907),
}  # fmt: skip
_V_RHO, _V_NEUTRAL_RHO = (0.5, 1.2), (0.0, 0.1)


@dataclass(frozen=True, kw_only=True)
class Config(CountsConfig):
    """Which faces, which expressions, how strong. Counts (total, per_expression, balance, like) use each face once."""

    faces: str = option(REQUIRED, "the faces to edit: a dataset or a view, a folder or s3://bucket/prefix")
    splits: list[str] = option(
        ["train"], "splits of the faces that are edited; an edit stays in its split", choices=SPLITS
    )
    labels: list[str] = option([], "only faces with these expressions, as [neutral] ([]: all)", choices=EXPRESSIONS)
    by: str = option(
        "identity", "what is used once: an identity (one face of it, drawn), or a face", choices=("identity", "face")
    )
    limit: int | None = option(None, "most faces, drawn by the seed (null: all)", low=1, high=MAX_ROWS)
    per_face: str = option(
        "seven", "without counts: each face in all seven expressions, or in one", choices=("seven", "one")
    )
    like: str | None = option(None, "as many of each expression as a labelled set has: fer2013, rafdb, a dataset ...")
    code: str = option(
        "expression",
        "how an edit is written: as expression and intensity, or as a point or direction of the plane",
        choices=_CODES,
    )
    codes: dict[str, list[float]] = option(
        {},
        "with code=point: happy: [x, y]; with code=polar: happy: [theta in radians]; one for each",
    )
    intensity: tuple[float, float] = option(
        (1.0, 1.0), "least and most intensity, or rho, drawn for each row", low=0, high=MOST_RHO
    )

    def __post_init__(self) -> None:
        check_range("intensity", self.intensity)


@dataclass(frozen=True)
class Code:
    """What the rows of one expression ask the editor for: an operation, and the range (low, high) of each number."""

    operation: str
    ranges: tuple[tuple[float, float], ...]

    def draw(self, seed: int) -> tuple[float, ...]:
        """The numbers of one row, rounded to what single precision holds."""
        shares = np.random.default_rng(seed).random(len(self.ranges))
        values = (low + (high - low) * float(share) for (low, high), share in zip(self.ranges, shares, strict=True))
        return tuple(float(np.float32(value)) for value in values)


class EditPlan(Plan):
    """Rows of faces and expressions."""

    method = 1
    faces: FaceTable

    def __init__(
        self, faces: FaceTable, counts: Mapping[str, int] | None, codes: Mapping[str, Code], seed: int
    ) -> None:
        """`faces`: those that are used, in reading order; `counts`: rows of each expression, None: all of each face."""
        self.faces, self._seed, self._codes = faces, seed, dict(codes)
        self._counts = None if counts is None else {name: counts[name] for name in EXPRESSIONS}
        self._interleave = Interleave(list(self._counts.values())) if self._counts else None
        self._order = block_shuffle(len(faces), seed)

    def __len__(self) -> int:
        return len(self._interleave) if self._interleave else len(self.faces) * len(EXPRESSIONS)

    def row(self, index: int) -> Row:
        if self._interleave:
            label, face = self._interleave.locate(index)[0], int(self._order[index])
        else:
            face, label = divmod(index, len(EXPRESSIONS))
        seed = seed_of(self._seed, index)
        code = self._codes[EXPRESSIONS[label]]
        return Row(
            index=index,
            label=label,
            seed=seed,
            operation=code.operation,
            code=code.draw(seed_of(seed, "code")),
            faces=(face,),
            **self.faces.lineage(face),
        )

    def counts(self) -> dict[str, int]:
        return dict(self._counts or dict.fromkeys(EXPRESSIONS, len(self.faces)))

    def spec(self) -> dict[str, Any]:
        return {
            "kind": "edits",
            "method": self.method,
            "seed": self._seed,
            "faces": {"sha256": self.faces.sha256, "rows": len(self.faces)},
            "counts": self._counts,
            "codes": {
                name: {"operation": code.operation, "ranges": [list(bounds) for bounds in code.ranges]}
                for name, code in self._codes.items()
            },
        }

    def summary(self, limit: int = 7000) -> dict[str, Any]:
        counts = self.counts()
        times = 1 if self._counts else len(EXPRESSIONS)
        return {
            "rows": len(self),
            "expressions": {name: {"rows": rows} for name, rows in counts.items()},
            **self.attribute_counts(limit),
            "faces": self.faces.usage({"all": (len(self.faces), times, times)}),
            "codes": {name: f"{code.operation} {_ranges_text(code)}" for name, code in self._codes.items()},
        }


def _ranges_text(code: Code) -> str:
    return ", ".join(f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}" for low, high in code.ranges)


def from_spec(spec: Mapping[str, Any], faces: FaceTable) -> EditPlan:
    """The plan that wrote this spec, of the same faces."""
    codes = {
        name: Code(code["operation"], tuple((low, high) for low, high in code["ranges"]))
        for name, code in spec["codes"].items()
    }
    plan = EditPlan(faces, spec["counts"], codes, spec["seed"])
    plan.check_method(spec)
    return plan


def build(config: Config) -> EditPlan:
    """The plan that a config asks for; `ConfigError` says which key to change, and how."""
    faces = open_faces("plan.faces", config.faces, config.splits, config.labels)
    chosen = seeded_order(faces.rows["sample_id"].to_pylist(), config.seed, "face")
    if config.by == "identity":
        _, first = np.unique(faces.identities()[chosen], return_index=True)
        chosen = chosen[np.sort(first)]
    counts = _counts(config, len(chosen))
    most = min(len(chosen), config.limit or len(chosen))
    if counts and sum(counts.values()) > most:
        what = "identities" if config.by == "identity" else "faces"
        more = " (plan.by=face uses every face of an identity)" if len(faces) > len(chosen) else ""
        raise ConfigError(
            f"plan.faces: {sum(counts.values()):,} rows need as many {what}, and there are {most:,}{more}; ask for "
            "fewer, give more faces, or leave the counts out, which gives each face all seven expressions"
        )
    used = np.sort(chosen[: sum(counts.values()) if counts else most])
    return EditPlan(faces.subset(used), counts, codes_of(config), config.seed)


def _counts(config: Config, faces: int) -> dict[str, int] | None:
    """Rows of each expression; None for all seven expressions of each face."""
    if config.like is not None:
        if config.any_count:
            raise ConfigError("plan.like and plan.total, per_expression or balance contradict one another: give one")
        return dict(labelled_counts(config.like, "plan.like"))
    if config.per_face == "seven" and not config.any_count:
        return None
    return config.counts(total=min(faces, config.limit or faces))


def codes_of(config: Config) -> dict[str, Code]:
    """The code of each expression; `ConfigError` names a wrong one."""
    codes_given = _given_codes(config)
    if config.code == "expression":
        return dict.fromkeys(EXPRESSIONS, Code("expression", (config.intensity,)))
    if config.code == "syntfer-f":
        return {name: _point(point) for name, point in _POINTS.items()}
    if config.code == "syntfer-v":
        codes = {name: Code("polar", (_single(math.atan2(y, x)), _V_RHO)) for name, (x, y) in _AXES.items()}
        return codes | {"neutral": Code("polar", ((-math.pi, math.pi), _V_NEUTRAL_RHO))}
    if config.code == "point":
        return {name: _point((values[0], values[1])) for name, values in codes_given.items()}
    return {name: Code("polar", (_single(values[0]), config.intensity)) for name, values in codes_given.items()}


def _given_codes(config: Config) -> dict[str, list[float]]:
    """The user's codes by expression, checked."""
    length = {"point": 2, "polar": 1}.get(config.code, 0)
    if config.codes and not length:
        raise ConfigError(f"plan.codes goes with plan.code=point or polar, not with {config.code}")
    codes = {}
    for word, values in config.codes.items():
        try:
            name = EXPRESSIONS[index_of(word)]
        except ValueError as error:
            raise ConfigError(f"plan.codes.{word}: {error}") from None
        most = MOST_RHO if config.code == "point" else math.pi
        if len(values) != length or any(abs(value) > most for value in values):
            raise ConfigError(
                f"plan.codes.{word}: a {config.code} code has {length} number(s) from {-most:.4g} to {most:.4g}, "
                f"not {values}"
            )
        codes[name] = values
    if length and (missing := [name for name in EXPRESSIONS if name not in codes]):
        raise ConfigError(f"plan.codes: {', '.join(missing)} is missing; plan.code={config.code} needs one for each")
    return codes


def _point(point: tuple[float, float]) -> Code:
    return Code("point", (_single(point[0]), _single(point[1])))


def _single(value: float) -> tuple[float, float]:
    """The range of a number that is not drawn."""
    return value, value
