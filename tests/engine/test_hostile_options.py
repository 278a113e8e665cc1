"""Options of jobs that no machine holds: refused where the config is read, before anything is allocated or started."""

import dataclasses
import importlib
import pkgutil
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import synthfer
from synthfer import cli
from synthfer.__main__ import MODULES, commands
from synthfer.builtin_faces.evaluate import EvaluateConfig
from synthfer.builtin_faces.train import TrainConfig as BuiltinConfig
from synthfer.config import load
from synthfer.expressions import EXPRESSIONS
from synthfer.limits import check_memory
from synthfer.planning.quotas import quotas
from synthfer.schema import ConfigError
from tests.small_command import call

NEEDED = {
    "generate": ["out=x"],
    "ingest": ["out=x", "source=folder", "path=x"],
    "audit": ["out=x", "train=a", "test=b"],
    "train": ["out=x", "data.a=a"],
    "evaluate": ["out=x", "checkpoints=[a]", "datasets=[b]"],
}


CASES: dict[str, list[str]] = {
    "generate": [
        f"plan.total={10**12}",
        f"plan.total={10**15}",
        f"plan.per_cell={10**12}",
        f"plan.per_expression={10**12}",
        f"plan.per_expression.fear={10**12}",
        f"plan.unit_size={10**9}",
        f"engine.encoder_threads={10**6}",
        f"engine.min_workers={10**6}",
        f"engine.max_workers={10**9}",
        f"engine.max_unit_retries={10**12}",
        f"engine.cpus_per_worker={10**6}",
        f"engine.gpus_per_worker={10**6}",
        f"engine.probe_seconds={10**9}",
        f"generator.batch_size={10**9}",
        f"generator.vae_batch={10**9}",
        f"generator.threads={10**6}",
        f"generator.steps={10**9}",
        f"generator.text_cache_mb={10**12}",
        f"generator.height={10**6}",
        f"generator.width={10**6}",
        "generator.height=8192 generator.width=8192",
        "generator.height=4096 generator.width=4096 generator.batch_size=1000",
        f"generator=simulated generator.batch_size={10**9}",
        f"generator=simulated generator.width={10**6}",
        f"generator=simulated generator.height={10**6}",
        "generator=simulated generator.height=8192 generator.width=8192 generator.batch_size=1000",
        f"generator=simulated generator.seconds_per_batch={10**9}",
        f"generator=gan generator.weights=x generator.batch_size={10**9}",
        f"generator=gan generator.weights=x generator.threads={10**6}",
        f"generator=vae_gan generator.weights=x generator.batch_size={10**9}",
        f"generator=vae_gan generator.weights=x generator.threads={10**6}",
        f"generator=expression_editor generator.weights=x plan.faces=a generator.batch_size={10**9}",
        f"generator=expression_editor generator.weights=x plan.faces=a generator.threads={10**6}",
        f"generator=expression_editor generator.weights=x plan.faces=a generator.margin={10**9}",
        f"generator=expression_editor generator.weights=x plan.faces=a generator.restore.batch_size={10**9}",
        f"generator=expression_editor generator.weights=x plan.faces=a plan.limit={10**12}",
        "image.quality=101",
    ],
    "ingest": [
        f"unit_size={10**9}",
        f"engine.max_workers={10**9}",
        f"engine.cpus_per_worker={10**6}",
        f"face.size={10**6}",
        f"face.margin={10**9}",
    ],
    "audit": [
        f"canaries={10**9}",
        f"train_block={10**9}",
        f"test_block={10**9}",
        f"copies.keep={10**9}",
        f"copies.finalists={10**9}",
        f"near.keep={10**9}",
        "embedder.cells=1000000",
    ],
    "train": [
        f"batch={10**9}",
        f"size={10**6}",
        "size=2048 batch=65536",
        f"steps={10**12}",
        f"epochs={10**12}",
        f"validate_every={10**12}",
        f"patience={10**12}",
        f"engine.workers={10**9}",
        f"engine.max_workers={10**9}",
        f"engine.cpus_per_worker={10**6}",
        f"engine.gpus_per_worker={10**6}",
        f"engine.max_failures={10**12}",
        f"augment.shift={10**6}",
        f"task=vae_gan steps={10**12}",
        f"task=vae_gan task.width={10**6}",
        f"task=vae_gan task.latent={10**9}",
        f"task=expression_editor task.width={10**6}",
        f"task=expression_editor task.blocks={10**6}",
        f"task=expression_editor task.kernel={10**6 + 1}",
        f"task=expression_editor task.size={10**6}",
        f"task=expression_editor task.critic_layers={10**6}",
        f"task=expression_editor task.n_critic={10**9}",
        "classifier=[1]",
        "preset=published classifier=[1]",
        "task=[1]",
    ],
    "evaluate": [
        f"replicates={10**9}",
        f"permutations={10**9}",
        f"batch={10**9}",
        f"block={10**9}",
        f"engine.max_workers={10**9}",
        f"engine.max_unit_retries={10**12}",
        f"engine.cpus_per_worker={10**6}",
    ],
}


@pytest.mark.parametrize(
    ("command", "words"),
    [(name, words) for name, cases in CASES.items() for words in cases],
    ids=lambda text: text[:70],
)
def test_what_no_machine_holds_is_exit_code_2(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    (job,) = commands(command)[0].values()
    error, written = run_dry(capsys, job, [*NEEDED[command], *words.split(" ")])
    key = words.split(" ")[-1].partition("=")[0]
    names = {key, key.rpartition(".")[0], key.rpartition(".")[2]}
    assert any(name and name in error for name in names), error
    assert "Traceback" not in written and len(error) < 600


def run_dry(capsys: pytest.CaptureFixture[str], job: cli.Command, words: list[str]) -> tuple[str, str]:
    code, error, written = call(capsys, *words, "--dry-run", job=job)
    assert code == cli.WRONG_INPUT, error
    return error, written


@pytest.mark.parametrize("schema", [EvaluateConfig, BuiltinConfig])
@pytest.mark.parametrize("name", ["pictures", "steps", "faces", "captions", "autoencoder_steps", "flow_steps"])
def test_the_built_in_pipeline_has_bounds(schema: type, name: str) -> None:
    if name not in {field.name for field in dataclasses.fields(schema)}:
        pytest.skip("not a key of this job")
    with pytest.raises(ConfigError, match=name):
        load(schema, ["model=x" if schema is EvaluateConfig else "out=x", f"{name}={10**12}"])


def test_the_sum_of_quotas_is_bounded() -> None:
    with pytest.raises(ConfigError, match="per_expression asks for"):
        quotas(dict.fromkeys(EXPRESSIONS, 1), per_expression=9 * 10**8)
    with pytest.raises(ConfigError, match=r"per_cell asks for 70,000,000,000 rows; a dataset has 1,000,000,000"):
        quotas(dict.fromkeys(EXPRESSIONS, 100), per_cell=10**8)


def test_memory_is_said_in_words() -> None:
    check_memory("pictures", 10**9, "lower size")
    with pytest.raises(ValueError, match=r"^pictures would need 1,000 GB, more than 275 GB: lower size$"):
        check_memory("pictures", 1e12, "lower size")


def options() -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Every option of every config that takes a whole number, with its full name."""
    for info in pkgutil.walk_packages(synthfer.__path__, "synthfer."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for schema in vars(module).values():
            if not (dataclasses.is_dataclass(schema) and isinstance(schema, type)) or schema.__module__ != info.name:
                continue
            hints = (
                typing.get_type_hints(schema) if any("low" in f.metadata for f in dataclasses.fields(schema)) else {}
            )
            for field in dataclasses.fields(schema):
                whole = {"int", "int | None", "tuple[int, ...]"} & {getattr(hints.get(field.name), "__name__", "")}
                if field.metadata.get("low") is not None and (whole or "int" in str(hints.get(field.name))):
                    yield f"{info.name}.{schema.__name__}.{field.name}", field


def test_every_whole_number_has_a_bound() -> None:
    """But seeds, which nothing is counted by; what datasets say of themselves is compared with their spec."""
    unbounded = {
        name for name, field in options() if field.metadata["high"] is None and "seed" not in name.rpartition(".")[2]
    }
    assert not {name for name in unbounded if not name.startswith("synthfer.store.")}


def test_every_command_has_its_cases() -> None:
    assert CASES.keys() == NEEDED.keys() <= MODULES.keys()
