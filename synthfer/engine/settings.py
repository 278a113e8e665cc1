"""The keys of the generation job, and what is left open in them filled in from the cluster."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from synthfer import generators, planning
from synthfer.config import REQUIRED, Choice, ConfigError, option, registry_section
from synthfer.engine.cluster import ClusterResources, GpuWorkerConfig, WorkerConfig
from synthfer.engine.generation_worker import FaceSource, WorkerSpec
from synthfer.gates.edits import EditConfig
from synthfer.images import ImageConfig
from synthfer.planning import Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PoolConfig(WorkerConfig):
    """How many workers a job may use, and what each of them needs; no sample depends on it."""

    min_workers: int = option(1, "workers kept while there is little work; all that fit start at once", low=1)
    max_workers: int | None = option(
        None, "most workers at once (null: as many as the GPUs and CPUs have room for)", low=1
    )
    max_unit_retries: int = option(10, "times a unit is tried again after its worker died", low=0)

    def settled(self, available: ClusterResources) -> Self:
        """The same with the number of workers filled in, as many as there is room for; `ConfigError` if too few."""
        room = self.worker_resources.resolved(available).capacity(available)
        most = self.max_workers or max(1, int(room))
        if self.min_workers > most:
            raise ConfigError(f"engine.min_workers: {self.min_workers} is more than the {most} that may run at once")
        if room < 1:
            log.warning("no node has room for a worker yet: waiting until one has (engine.nodes=%s)", self.nodes)
        return replace(self, max_workers=most)


@dataclass(frozen=True, kw_only=True)
class EngineConfig(PoolConfig, GpuWorkerConfig):
    """How the generation job uses the cluster; no picture depends on it."""

    encoder_threads: int = option(1, "threads of a worker that encode pictures beside the device", low=1)
    max_failed_share: float = option(0.05, "stop when more than this share of rows fails", low=0, high=1)
    probe: bool = option(False, "with --dry-run: start the generator and measure, to estimate time and cost")
    probe_seconds: float = option(3.0, "how long a probe measures", low=0.1)

    def settled(self, available: ClusterResources) -> Self:
        """The same with the number of workers and their GPUs filled in; `ConfigError` where it cannot be."""
        return replace(super().settled(available), gpus_per_worker=self.worker_resources.resolved(available).gpus)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """The generation job: what to make, by what, how to store it, on which machines."""

    out: str = option(REQUIRED, "the dataset: a folder or s3://bucket/prefix; the same one again resumes")
    plan: Any = registry_section(planning.names, planning.module, default="prompts", of="what rows are made from")
    generator: Any = registry_section(
        generators.names, generators.module, default="diffusion", of="what makes the pictures"
    )
    image: ImageConfig = field(default_factory=ImageConfig)
    gate: EditConfig = field(default_factory=EditConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        takes = generators.plan_of(self.generator.name)
        if self.plan.name != takes:
            raise ValueError(f"plan.name={self.plan.name}: generator {self.generator.name} makes rows of plan {takes}")

    @classmethod
    def preset_of(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The kind of plan that the generator takes, below what was given."""
        section = given.get("generator") or {}
        try:
            return {"plan": {"name": generators.plan_of(section.get("name") or "diffusion")}}
        except (ValueError, ImportError, AttributeError):
            return {}  # the error is told where the section is read

    def recipe(self, plan: Plan) -> WorkerSpec:
        """What a worker needs of it."""
        choice: Choice = self.generator
        return WorkerSpec(
            uri=self.out,
            generator=choice.name,
            options=choice.options,
            image=self.image,
            encoder_threads=self.engine.encoder_threads,
            faces=None if plan.faces is None else FaceSource.of(plan.faces),
            gate=None if plan.faces is None else self.gate,
        )

    def settled(self, available: ClusterResources) -> "GenerateConfig":
        """The same with the number of workers and their GPUs filled in; `ConfigError` where it cannot be."""
        return replace(self, engine=self.engine.settled(available))
