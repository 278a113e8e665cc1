"""The names of checkpoints and test sets in a matrix: as short as they can be and still differ."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from synthfer.classifiers.checkpoints import ClassifierCheckpoint
from synthfer.documents import parse
from synthfer.evaluation.inputs import Candidate
from synthfer.schema import REQUIRED, ConfigError, option

LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a card says of the run that made its weights, under `training.run`."""

    name: str = option(REQUIRED, "its strategy, the same for all seeds")
    seed: int = option(REQUIRED, "its seed", low=0)

    def __post_init__(self) -> None:
        if not (0 < len(self.name) <= LONGEST_NAME and self.name.isprintable()):
            raise ValueError(f"name: {self.name[:40]!r} is not a name of 1 to {LONGEST_NAME} printable characters")


@dataclass(frozen=True)
class NamedCheckpoint:
    """A checkpoint with its name in the matrix."""

    candidate: Candidate
    checkpoint: ClassifierCheckpoint


def name_checkpoints(checkpoints: Sequence[ClassifierCheckpoint]) -> list[NamedCheckpoint]:
    """Checkpoints as candidates: those of one experiment and run share a recipe and differ in their seed.

    `ConfigError` where two have one name.
    """
    runs = [_run_of(one) for one in checkpoints]
    named = []
    for checkpoint, run, recipe in zip(checkpoints, runs, _recipes(checkpoints, runs), strict=True):
        try:
            candidate = _candidate(checkpoint, run, recipe)
        except ValueError as error:
            raise ConfigError(f"{checkpoint.uri}: {error}") from error
        named.append(NamedCheckpoint(candidate, checkpoint))
    _check_unique(named)
    return named


def _candidate(checkpoint: ClassifierCheckpoint, run: RunFacts | None, recipe: str) -> Candidate:
    return Candidate(
        name=f"{recipe}/seed-{run.seed}" if run else recipe,
        recipe=recipe,
        seed=run.seed if run else None,
        classes=checkpoint.outputs,
        trained_on=tuple(checkpoint.card.trained_on),
        selection=checkpoint.card.selection,
        seen=checkpoint.fingerprint,
        ancestors=tuple(checkpoint.card.ancestors) if checkpoint.fingerprint else None,
    )


def _run_of(checkpoint: ClassifierCheckpoint) -> RunFacts | None:
    """The run that a card says its weights are of; None where it says none."""
    run = checkpoint.card.training.get("run")
    if not run and isinstance(run, (dict, type(None))):
        return None
    known = {field.name for field in fields(RunFacts)}
    facts = {key: value for key, value in run.items() if key in known} if isinstance(run, Mapping) else run
    return parse(facts, f"{checkpoint.uri}: its card's training.run", RunFacts)


def _recipes(checkpoints: Sequence[ClassifierCheckpoint], runs: Sequence[RunFacts | None]) -> list[str]:
    """A run's name, after its experiment's where there are runs of several; else the shortest name of the file.

    An experiment is a folder that has its runs below it by name and seed: EXPERIMENT/NAME/SEED/model.safetensors.
    """
    ours = [one.uri.rsplit("/", 3)[0] for one, run in zip(checkpoints, runs, strict=True) if run]
    others = [one.uri.rpartition(".")[0] for one, run in zip(checkpoints, runs, strict=True) if not run]
    experiments, files = iter(shortest_names(ours, unique=False)), iter(shortest_names(others, unique=False))
    if len(set(ours)) > 1:
        return [f"{next(experiments)}/{run.name}" if run else next(files) for run in runs]
    return [run.name if run else next(files) for run in runs]


def _check_unique(checkpoints: Sequence[NamedCheckpoint]) -> None:
    """`ConfigError` where two checkpoints have one name, or a file has the name of a run's recipe."""
    for one, other in itertools.combinations(checkpoints, 2):
        first, second = one.candidate, other.candidate
        runs = first.name != first.recipe and second.name != second.recipe
        if first.name == second.name or (first.recipe == second.recipe and not runs):
            shared = first.name if first.name == second.name else first.recipe
            what = (
                "name and seed are those in their cards, and the experiment is the third folder above the file: leave "
                "one out, or copy its run to another experiment's folder, as EXPERIMENT/NAME/SEED/model.safetensors"
                if runs
                else "leave one out, or rename the file and its card"
            )
            raise ConfigError(f"checkpoints: {one.checkpoint.uri} and {other.checkpoint.uri} are both {shared} in the "
                              f"matrix; {what}")  # fmt: skip


def shortest_names(uris: Sequence[str], unique: bool = True) -> list[str]:
    """The shortest ends of URIs that differ where the URIs differ; `ConfigError` where one occurs twice and may not."""
    different = list(dict.fromkeys(uris))
    if unique and len(different) < len(uris):
        raise ConfigError(f"datasets: {next(uri for uri in uris if uris.count(uri) > 1)} is named twice")
    split, length = [uri.rstrip("/").split("/") for uri in different], 1
    while len({tuple(part[-length:]) for part in split}) < len(different):
        length += 1
    short = {uri: "/".join(part[-length:]) for uri, part in zip(different, split, strict=True)}
    return [short[uri] for uri in uris]
