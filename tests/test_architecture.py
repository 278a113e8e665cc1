"""The rules of the house that a machine can check: arrows point one way, Ray stays in engine, names are standard."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "synthfer").rglob("*.py"))
}
SCRIPTS = sorted((ROOT / "jobs").glob("*.py"))

# Keys of the state dicts of checkpoints that were written so far.
NAMES_IN_CHECKPOINTS = {("expression_editor", "told"), ("vae_gan", "told")}

LONGEST_FUNCTION = 45
LONGEST_MODULE = 400

# A package may import those of earlier lines and of its own line; modules that stand in no line are below all.
LAYERS = [
    ["store"],
    ["sources", "planning", "embedders", "checkpoints"],
    ["faces", "classifiers"],
    ["generators"],
    ["gates", "training", "guards"],
    ["audit", "evaluation", "builtin_faces"],
    ["report"],
    ["engine"],
    ["benchmarks", "k8s", "dataset_commands"],
]

# Names that once made good code slow to read, and what stands in their place.
UNUSUAL_NAMES = {
    "told": "summary, messages, report",
    "made": "images, generated, created",
    "found": "results, matches, records",
    "gang": "worker_group",
    "crew": "pool, workers",
    "tally": "stats, counts",
    "bill": "cost_meter",
    "board": "status_actor",
    "departure": "preemption",
    "lookout": "drain_watcher",
    "intake": "reader",
    "taken": "the thing that was read",
    "beginning": "initial_weights, start",
    "leave": "publish, write",
    "home": "original_collection",
    "kin": "related, shares_lineage",
    "hunts": "run_canaries",
    "in_turn": "ordered_map",
    "causes": "unwrap_errors",
    "but_for": "exclude",
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(node: ast.AST) -> Iterator[str]:
    """Every module that is imported, in functions too, but for annotations (`if TYPE_CHECKING`)."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            for alias in child.names:
                name = f"{child.module}.{alias.name}"
                yield name if name in MODULES else child.module
        yield from imports(child)


@cache
def edges() -> dict[str, set[str]]:
    return {
        module: {name for name in imports(tree(path)) if name in MODULES} - {module} for module, path in MODULES.items()
    }


def package(module: str) -> str:
    """The package or module below synthfer that a module belongs to."""
    return module.split(".")[1] if module.count(".") else ""


def test_every_package_has_its_layer():
    packages = {path.parent.name for path in (ROOT / "synthfer").glob("*/__init__.py")}
    assert packages <= {name for layer in LAYERS for name in layer}


def test_no_package_imports_one_of_a_later_layer():
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    upwards = {
        f"{module} -> {target}"
        for module, targets in edges().items()
        for target in targets
        if level.get(package(target), -1) > level.get(package(module), -1)
        if module != "synthfer.__main__"  # the command line names every job
    }
    assert not upwards


def test_audit_and_evaluation_do_not_import_each_other():
    pairs = {(package(module), package(target)) for module, targets in edges().items() for target in targets}
    assert not pairs & {("audit", "evaluation"), ("evaluation", "audit")}


def test_nothing_but_jobs_and_benchmarks_imports_the_engine():
    importers = {package(module) for module, targets in edges().items() if "engine" in map(package, targets)}
    assert importers - {""} <= {"engine", "benchmarks"}


def test_only_the_engine_imports_ray():
    outside = {
        module
        for module, path in MODULES.items()
        if package(module) != "engine" and any(name.split(".")[0] == "ray" for name in imports(tree(path)))
    }
    # The lint asks Ray whether a label selector is one; without Ray it says so and goes on.
    assert outside <= {"synthfer.k8s.lint.kuberay"}


def test_there_is_no_circle_of_imports():
    """A package and its face (`__init__`) count as one: a face names its modules, and they read its options."""
    left = {
        module: {target for target in targets if not module.startswith(f"{target}.")}
        for module, targets in edges().items()
    }
    while leaves := [module for module, targets in left.items() if not targets & left.keys()]:
        for module in leaves:
            del left[module]
    assert not left


def test_the_engine_names_no_gate_and_no_generator():
    members = {module for module in MODULES if re.fullmatch(r"synthfer\.(gates|generators)\..+", module)}
    named = {
        f"{module} -> {target}"
        for module, targets in edges().items()
        if package(module) == "engine"
        for target in targets & members
    }
    assert not named


@pytest.mark.parametrize("path", [*MODULES.values(), *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_for_and_is_no_heap(path):
    assert ast.get_docstring(tree(path)) or not path.read_text().strip()
    assert len(path.read_text().splitlines()) <= LONGEST_MODULE


def test_a_function_fits_a_screen():
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in [*MODULES.values(), *SCRIPTS]
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if node.end_lineno - node.lineno >= LONGEST_FUNCTION
    }
    assert not long


def names(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name that a module gives to something, with its line."""
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def test_names_are_standard_terms():
    unusual = {
        f"{path.relative_to(ROOT)}:{line} {name} (say {UNUSUAL_NAMES[name.strip('_').lower()]})"
        for path in [*MODULES.values(), *SCRIPTS]
        for name, line in names(tree(path))
        if name.strip("_").lower() in UNUSUAL_NAMES
        if (path.parent.name, name) not in NAMES_IN_CHECKPOINTS
    }
    assert not unusual
