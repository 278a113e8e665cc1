"""The runs of an experiment: the strategy asked for and its controls, all of the same number of steps.

Mixed and fine-tuned strategies and the ratio sweep as in "Mind the gap" (arXiv 2506.24093). A strategy says something
about synthetic data only beside its controls: real data alone, synthetic data alone, real data re-weighted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from synthfer.schema import ConfigError
from synthfer.training.settings import TaskConfig, TrainConfig

REWEIGHTED_POWER = 0.5
"""Sampler power of the re-weighted control: a class of n rows is drawn in proportion to the root of n."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One network trained from its first step to its last.

    `name` is that of its strategy, the same for all seeds. `epoch` counts the steps in which as many rows pass as all
    training data has; it is the same for all runs, so that none is validated more often than its controls. `shares` are
    those of the sources in each batch, or None for one stream over `sources`. With `begins_with` it starts from the
    best weights of the run of that name and the same seed.
    """

    name: str
    seed: int
    steps: int
    epoch: int
    sources: tuple[str, ...]
    shares: Mapping[str, float] | None = None
    power: float = 0.0
    begins_with: str | None = None

    @property
    def key(self) -> str:
        """Its folder below the experiment."""
        return folder(self.name, self.seed)

    def validation_steps(self, every: int) -> list[int]:
        """The steps after which it is validated, about `every` steps, evenly spread, the last one among them."""
        count = max(1, round(self.steps / every))
        return [round(self.steps * (number + 1) / count) for number in range(count)]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"sources": list(self.sources)}


def folder(name: str, seed: int) -> str:
    """The folder of the run of a name and seed below its experiment."""
    return f"{name}/seed-{seed}"


def plan(config: TrainConfig, real: Sequence[str], synthetic: Sequence[str], rows: int) -> list[Run]:
    """Every run in order, those that others start from first.

    `real` and `synthetic` name the sources of either kind, `rows` counts the training rows of all. `ConfigError`
    where the strategy needs real and synthetic data and one is missing, and where there are no seeds, too few steps or
    no sweep.
    """
    if not config.seeds:
        raise ConfigError("seeds is empty: name at least one, as seeds=[0]")
    shares = {name: share for name, share in config.mix.items() if share}
    real, synthetic = ([name for name in names if not shares or name in shares] for names in (real, synthetic))
    if config.strategy != "mixed" and not (real and synthetic):
        raise ConfigError(
            f"strategy={config.strategy} needs real and synthetic data; {', '.join([*real, *synthetic])} "
            f"{'are all' if len([*real, *synthetic]) > 1 else 'is'} {'real' if real else 'synthetic'}: "
            "add data, or say which is synthetic by synthetic=[…]"
        )
    steps = config.steps or max(1, round(config.epochs * rows / config.batch))
    first = Run(
        name="",
        seed=config.seeds[0],
        steps=steps,
        epoch=max(1, round(rows / config.batch)),
        sources=(*real, *synthetic),
        shares=shares or None,
        power=config.sampler_power,
    )
    runs = list(_strategy(config, first, tuple(real), tuple(synthetic)))
    if config.controls and real and synthetic:
        known = {run.name for run in runs}
        runs += [run for run in _controls(first, tuple(real), tuple(synthetic)) if run.name not in known]
    return [replace(run, seed=seed) for seed in dict.fromkeys(config.seeds) for run in runs]


def plan_task(config: TaskConfig, sources: Sequence[str], rows: int) -> list[Run]:
    """A run of a task for each seed, over all sources or those that the mix gives a share.

    `rows` counts the training rows of all sources.
    """
    shares = {name: share for name, share in config.mix.items() if share}
    return [
        Run(
            name=config.task.name.rpartition(".")[2],
            seed=seed,
            steps=config.steps,
            epoch=max(1, round(rows / config.batch)),
            sources=tuple(name for name in sources if not shares or name in shares),
            shares=shares or None,
            power=config.sampler_power,
        )
        for seed in dict.fromkeys(config.seeds)
    ]


def _strategy(config: TrainConfig, first: Run, real: tuple[str, ...], synthetic: tuple[str, ...]) -> Iterator[Run]:
    if config.strategy == "mixed":
        yield replace(first, name="mixed" if real and synthetic else "real_only" if real else "synthetic_only")
    elif config.strategy == "finetune":
        if first.steps < 2:
            raise ConfigError("strategy=finetune needs a step on either kind of data: raise steps or epochs")
        before = max(1, min(first.steps - 1, round(config.finetune_share * first.steps)))
        pretrained = replace(_only(first, synthetic), name="pretrained", steps=before)
        yield pretrained
        yield replace(_only(first, real), name="finetuned", steps=first.steps - before, begins_with=pretrained.name)
    else:
        for name, share in _swept(config.sweep).items():
            shares = _within(first, real, share) | _within(first, synthetic, 1 - share)
            kept = {source: part for source, part in shares.items() if part}
            yield replace(first, name=name, sources=tuple(kept), shares=kept)


def _swept(shares: Sequence[float]) -> dict[str, float]:
    """Real shares by the name of their run; `ConfigError` where there is none, or two would be of one name."""
    named = {f"real_{round(100 * share):03d}": share for share in shares}
    if not named or len(named) < len(shares):
        raise ConfigError(f"sweep={list(shares)}: name real shares that differ by a per cent at least, each once")
    return named


def _controls(first: Run, real: tuple[str, ...], synthetic: tuple[str, ...]) -> Iterator[Run]:
    yield replace(_only(first, real), name="real_only")
    yield replace(_only(first, synthetic), name="synthetic_only")
    yield replace(_only(first, real), name="real_reweighted", power=max(first.power, REWEIGHTED_POWER))


def _only(run: Run, names: tuple[str, ...]) -> Run:
    shares = {name: run.shares[name] for name in names if run.shares.get(name)} if run.shares else {}
    return replace(run, sources=tuple(shares) or names, shares=shares or None)


def _within(run: Run, names: tuple[str, ...], share: float) -> dict[str, float]:
    """`share` divided among `names` as the mix has it, evenly where the mix does not name them."""
    mix = {name: (run.shares or {}).get(name, 0.0) for name in names}
    if not sum(mix.values()):
        mix = dict.fromkeys(names, 1.0)
    return {name: share * part / sum(mix.values()) for name, part in mix.items()}
