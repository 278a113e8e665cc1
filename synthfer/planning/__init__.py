"""Plans: which rows a dataset is to have, and what each is made from. A plan is a pure function of its config.

There are four kinds, by what a row is made from: prompts; edits and variations of faces, whose table is stored in the
dataset; latents, from a seed alone. A generator says which it takes (`synthfer.generators.plan_of`).
"""

from dataclasses import fields
from types import ModuleType

from synthfer.planning import edits, latents, prompts, variations
from synthfer.planning.faces import read_faces
from synthfer.planning.plan import Plan, PlanConfig
from synthfer.schema import Choice, ConfigError
from synthfer.store.contract import CONTRACT
from synthfer.store.dataset import Dataset
from synthfer.suggest import nearest

__all__ = ["Plan", "PlanConfig", "build", "has_faces", "module", "names", "open_plan"]

_SPEC_ERRORS = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError)
"""What a plan's parser raises on a spec that no plan has written: values of other types, keys that are not there."""
_KINDS: dict[str, ModuleType] = {"prompts": prompts, "edits": edits, "variations": variations, "latents": latents}


def names() -> list[str]:
    """The kinds of plan."""
    return list(_KINDS)


def module(name: str) -> ModuleType:
    """The module of a kind, with its `Config`; `ValueError` names the nearest known one."""
    if name not in _KINDS:
        raise ValueError(f"unknown plan {name!r}{nearest(name, _KINDS) or '.'} Known: {', '.join(_KINDS)}.")
    return _KINDS[name]


def has_faces(name: str) -> bool:
    """Whether a kind of plan makes its rows from faces."""
    return any(field.name == "faces" for field in fields(module(name).Config))


def build(choice: Choice) -> Plan:
    """The plan that a config asks for; `ConfigError` says which key to change, and how."""
    plan: Plan = module(choice.name).build(choice.options)
    return plan


def open_plan(dataset: Dataset) -> Plan:
    """The plan of a generated dataset, from its spec and, where its rows are made from faces, their stored table.

    `ValueError`: the dataset was ingested, its plan is of another version or none at all, or its table of faces is
    damaged.
    """
    spec, where = dataset.spec.plan, f"{dataset.uri}/{CONTRACT}"
    name, faces = spec.get("kind", "prompts"), spec.get("faces")
    if name == "collection":
        raise ValueError(f"{dataset.uri} was ingested: it has an index and no plan")
    if not isinstance(name, str) or has_faces(name) != isinstance(faces, dict):
        raise ValueError(f"{where}: the plan is none that this version of synthfer reads")
    tables = [read_faces(dataset.store, str(faces.get("sha256")))] if isinstance(faces, dict) else []
    try:
        plan: Plan = module(name).from_spec(spec, *tables)
        ends = [plan.row(0), plan.row(len(plan) - 1)] if len(plan) else []
        rows = sum(plan.counts().values())
    except ConfigError:
        raise
    except _SPEC_ERRORS as error:
        problem = f"{type(error).__name__}: {error}"[:300]
        raise ValueError(f"{where}: the plan is none that this version of synthfer reads ({problem})") from error
    if len(plan) != dataset.spec.rows or len(plan) != rows or not ends:
        raise ValueError(f"{where}: the plan has {len(plan):,} rows, and the dataset {dataset.spec.rows:,}")
    return plan
