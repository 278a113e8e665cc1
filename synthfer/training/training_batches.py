"""What the steps of a run read: its training rows in batches, their targets, and the pictures of any row."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from synthfer.expressions import EXPRESSIONS
from synthfer.training.batch_sampler import BatchSampler
from synthfer.training.data import Data
from synthfer.training.runs import Run


@dataclass(frozen=True, kw_only=True)
class TrainingBatches:
    """Rows of the experiment as arrays, `train` and `validation` naming those of this run, int64.

    `counts` float64 (K,): training rows of each class, weighted where a mix shows some sources more often than others.

    `pixels` uint8 (n, 3, size, size); `targets` float32 (n, K), each of sum one; `labels` int64 (n,); `weights`
    float32 (n,) or None where all are one; `synthetic` bool (n,); `ids` texts (n,).
    """

    pixels: np.ndarray
    targets: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None
    synthetic: np.ndarray
    ids: pa.ChunkedArray
    train: np.ndarray
    validation: np.ndarray
    counts: np.ndarray
    sampler: BatchSampler

    @classmethod
    def of(cls, data: Data, pixels: np.ndarray, run: Run, batch: int, soft: bool) -> "TrainingBatches":
        """What `run` reads of the opened data; with `soft`, targets are `label_probs` where a row has them."""
        weights = data.rows["weight"].to_numpy().astype(np.float32)
        validation = [] if data.validation is None else [data.validation.synthetic]
        kinds = np.array([*(source.synthetic for source in data.sources), *validation])  # -1 is that of validation
        train = training_rows(data, run)
        numbers = {source.name: number for number, source in enumerate(data.sources)}
        sampler = BatchSampler(
            data.labels[train],
            data.names[train],
            kinds[data.names[train]],
            shares={numbers[name]: share for name, share in run.shares.items()} if run.shares else None,
            batch=batch,
            seed=run.seed,
            power=run.power,
        )
        return cls(
            pixels=pixels,
            targets=_targets(data, soft),
            labels=data.labels,
            weights=None if (weights == 1).all() else weights,
            synthetic=kinds[data.names],
            ids=data.rows["sample_id"],
            train=train,
            validation=data.numbers("val"),
            counts=_counts(data, train, run),
            sampler=sampler,
        )

    @classmethod
    def of_arrays(
        cls,
        pixels: np.ndarray,
        labels: np.ndarray,
        train: np.ndarray,
        validation: np.ndarray,
        batch: int,
        seed: int = 0,
    ) -> "TrainingBatches":
        """Pictures in memory, all real, without a dataset; an id is the number of its row."""
        classes = np.eye(len(EXPRESSIONS), dtype=np.float32)
        zeros = np.zeros(len(train), bool)
        return cls(
            pixels=pixels,
            targets=classes[labels],
            labels=labels,
            weights=None,
            synthetic=np.zeros(len(labels), bool),
            ids=pa.chunked_array([pa.array(range(len(labels))).cast(pa.string())]),
            train=train,
            validation=validation,
            counts=np.bincount(labels[train], minlength=len(EXPRESSIONS)).astype(np.float64),
            sampler=BatchSampler(labels[train], zeros, zeros, shares=None, batch=batch, seed=seed),
        )

    def at(self, step: int) -> np.ndarray:
        """The rows of the global batch of a step, int64 (batch,), real ones first."""
        return self.train[self.sampler.at(step)]

    def images(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """The pictures of some rows, uint8 (k, 3, size, size)."""
        return torch.from_numpy(self.pixels[rows]).to(device, non_blocking=True)


def training_rows(data: Data, run: Run) -> np.ndarray:
    """The rows that a run is trained on, int64 (k,)."""
    sources = [number for number, source in enumerate(data.sources) if source.name in run.sources]
    rows = data.numbers("train")
    chosen: np.ndarray = rows[np.isin(data.names[rows], sources)]
    return chosen


def _counts(data: Data, train: np.ndarray, run: Run) -> np.ndarray:
    names = data.names[train]
    weights = np.ones(len(train))
    if run.shares:
        shares = np.array([run.shares.get(source.name, 0.0) for source in data.sources])
        rows = np.bincount(names, minlength=len(shares))
        weights = (shares / shares.sum() * len(train) / np.maximum(rows, 1))[names]
    return np.bincount(data.labels[train], weights, minlength=len(EXPRESSIONS))


def _targets(data: Data, soft: bool) -> np.ndarray:
    targets = np.eye(len(EXPRESSIONS), dtype=np.float32)[data.labels]
    if soft:
        column = data.rows["label_probs"].combine_chunks()
        given = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        probs = np.array(column.take(given).to_pylist(), np.float64).reshape(-1, len(EXPRESSIONS))
        targets[given] = (probs / probs.sum(1, keepdims=True)).astype(np.float32)
    return targets
