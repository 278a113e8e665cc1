"""Writes the numbers of a training to TensorBoard files and, where one is named, to an MLflow server."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from synthfer.addresses import redact
from synthfer.schema import ConfigError, option

_NOT_METRICS = ("kind", "run", "step", "steps", "grid")


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Where the numbers of a training are written."""

    tensorboard: str | None = option(None, "folder for TensorBoard (null: tensorboard below out, if that is a folder)")
    mlflow: str | None = option(None, "tracking URI of MLflow, as http://host:5000; its login is in its own variables")


class Tracker:
    """Writes progress messages (`synthfer.training.trainer.Report`) as scalars by run, each step once. Use `with`."""

    def __init__(self, config: LogConfig, out: str, experiment: str) -> None:
        folder = config.tensorboard or (None if "://" in out else f"{out}/tensorboard")
        self.folder = Path(folder) if folder else None
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)  # a place that cannot be written is said now
        self.writers: dict[str, SummaryWriter] = {}
        self.written: dict[tuple[str, str], int] = {}
        self.mlflow = _Mlflow(config.mlflow, experiment) if config.mlflow else None

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for writer in self.writers.values():
            writer.close()
        if self.mlflow:
            self.mlflow.close("FAILED" if kind else "FINISHED")

    def write(self, message: Mapping[str, Any]) -> None:
        """Writes the numbers of a message at its step."""
        series = message["run"], message["kind"]
        if message["step"] <= self.written.get(series, -1):
            return  # workers that go on from a checkpoint repeat the steps since then
        self.written[series] = message["step"]
        prefix = "validation/" if message["kind"] == "validation" else "training/"
        numbers = {prefix + name: value for name, value in message.items() if name not in _NOT_METRICS}
        if self.folder:
            for name, value in numbers.items():
                self._writer(message["run"], message["step"]).add_scalar(name, value, message["step"])
        if self.mlflow:
            self.mlflow.write(message["run"], numbers, message["step"])

    def wants_image(self, run: str, step: int) -> bool:
        """Whether a picture of this step would be written: there is a folder, and it is not there yet."""
        return self.folder is not None and step > self.written.get((run, "grid"), -1)

    def write_image(self, run: str, pixels: np.ndarray, step: int) -> None:
        """Writes a picture, uint8 (H, W, 3), as the run's grid of this step, once."""
        if self.wants_image(run, step):
            self.written[run, "grid"] = step
            self._writer(run, step).add_image("validation/grid", pixels, step, dataformats="HWC")

    def _writer(self, run: str, step: int) -> SummaryWriter:
        assert self.folder is not None
        if run not in self.writers:
            # Drops what an earlier driver wrote beyond its last checkpoint: these steps happen again.
            self.writers[run] = SummaryWriter(str(self.folder / run), purge_step=step)
        return self.writers[run]


class _Mlflow:
    """One MLflow run for each run of the experiment; a resumed run continues in its own."""

    def __init__(self, uri: str, experiment: str) -> None:
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise ConfigError("log.mlflow: MLflow is not installed; pip install mlflow-skinny") from error
        try:
            self.client = MlflowClient(uri)
            existing = self.client.get_experiment_by_name(experiment)
            self.experiment = existing.experiment_id if existing else self.client.create_experiment(experiment)
        except MlflowException as error:
            raise ConfigError(f"log.mlflow: {redact(uri)} cannot be used: {redact(str(error).strip())}") from error
        self.runs: dict[str, str] = {}
        self.last: dict[tuple[str, str], int] = {}

    def write(self, run: str, numbers: Mapping[str, float], step: int) -> None:
        """Writes scalars in one request, but for those that an earlier driver wrote at this step or beyond."""
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        new = [Metric(name, value, now, step) for name, value in numbers.items() if step > self._last(run, name)]
        if new:
            self.client.log_batch(self._id(run), new)

    def _last(self, run: str, name: str) -> int:
        """The last step that earlier drivers wrote, -1 where there is none."""
        if (run, name) not in self.last:
            history = self.client.get_metric_history(self._id(run), name)
            self.last[run, name] = max((metric.step for metric in history), default=-1)
        return self.last[run, name]

    def _id(self, run: str) -> str:
        if run not in self.runs:
            existing = self.client.search_runs([self.experiment], f"attributes.run_name = '{run}'", max_results=1)
            mlflow_run = existing[0] if existing else self.client.create_run(self.experiment, run_name=run)
            self.runs[run] = mlflow_run.info.run_id
        return self.runs[run]

    def close(self, status: str) -> None:
        """Ends all runs."""
        for run in self.runs.values():
            self.client.set_terminated(run, status)
