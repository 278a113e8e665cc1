"""Which rows make the batch of a step: a function of the step alone, so that a resume needs no state.

Sources stand in every batch in fixed numbers, the shares of a mix by largest remainder, so that mixes are compared at
equal steps. Each source is a stream of passes over its rows, each pass in an order of its own; passes follow each other
without a gap, within a batch, too. The batch is that of all ranks together: rank r of w takes `at(step)[r::w]`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from synthfer.sample import seed_of
from synthfer.training.balance import draw_weights


def quotas(shares: Sequence[float], batch: int) -> np.ndarray:
    """Rows of each source in a batch, int64 (k,), of sum `batch`: shares in proportion, by largest remainder.

    `shares` are relative numbers >= 0; of equal remainders the first source gets the row. `ValueError`: they are
    negative, not finite or all zero, or a share above zero gets no row.
    """
    wanted = np.asarray(shares, np.float64)
    if not (np.isfinite(wanted).all() and (wanted >= 0).all() and wanted.any()):
        raise ValueError(f"shares {list(shares)}: numbers of at least 0 are needed, one of them above 0.")
    wanted = wanted / wanted.sum() * batch
    rows = np.floor(wanted + 1e-9).astype(np.int64)
    short = np.argsort(-np.round(wanted - rows, 9), kind="stable")
    rows[short[: batch - rows.sum()]] += 1
    if (starved := (rows == 0) & (wanted > 0)).any():
        share = wanted[starved][0] / batch
        raise ValueError(
            f"a share of {share:.2g} is less than one row in a batch of {batch}: raise the share or the batch."
        )
    return rows


class BatchSampler:
    """The batches of one run.

    `labels` int64 (n,), `names` int64 (n,) the number of each row's source, `synthetic` bool (n,): the training rows.
    `shares`: a share by number of source, as of `quotas`, or None for one stream over all rows. With `power` q = 0
    every row comes once per pass; with q in (0, 1] rows are drawn with replacement, within each stream a class of m
    rows in proportion to m^(1 - q). `ValueError`: as of `quotas`, or a source with a share has no row. Not for several
    threads at once.
    """

    def __init__(
        self,
        labels: np.ndarray,
        names: np.ndarray,
        synthetic: np.ndarray,
        shares: Mapping[int, float] | None,
        batch: int,
        seed: int,
        power: float = 0.0,
    ) -> None:
        names = np.zeros(len(labels), np.int64) if shares is None else np.asarray(names)
        parts = {0: 1.0} if shares is None else dict(sorted(shares.items()))
        self._synthetic = np.asarray(synthetic, bool)
        self._streams = []
        for number, quota in zip(parts, quotas(list(parts.values()), batch).tolist(), strict=True):
            rows = np.flatnonzero(names == number)
            if quota and not len(rows):
                raise ValueError(f"source {number} has a share of each batch and no row: leave it out of the shares.")
            if quota:
                weights = draw_weights(np.asarray(labels)[rows], power) if power else None
                self._streams.append(_Stream(rows, quota, seed_of(seed, "batches", number), weights))

    def at(self, step: int) -> np.ndarray:
        """The rows of a step (0, 1, ...), int64 (batch,), places in the arrays given: real ones first."""
        rows = np.concatenate([stream.at(step) for stream in self._streams])
        return rows[np.argsort(self._synthetic[rows], kind="stable")]


class _Stream:
    """Passes over the rows of one source, `quota` rows a step; holds the last pass that was read."""

    def __init__(self, rows: np.ndarray, quota: int, seed: int, weights: np.ndarray | None) -> None:
        self.rows, self.quota, self.seed = rows, quota, seed
        self.bounds = None if weights is None else np.cumsum(weights) / weights.sum()
        self.number, self.order = -1, rows

    def at(self, step: int) -> np.ndarray:
        """The rows of a step, in the order of the stream."""
        start, end, parts = step * self.quota, (step + 1) * self.quota, []
        while start < end:
            number, offset = divmod(start, len(self.rows))
            part = self._pass(number)[offset : offset + end - start]
            parts.append(part)
            start += len(part)
        return np.concatenate(parts)

    def _pass(self, number: int) -> np.ndarray:
        """All rows in the order of a pass, or as many drawn with replacement."""
        if number != self.number:
            rng = np.random.default_rng(seed_of(self.seed, number))
            if self.bounds is None:
                order = rng.permutation(len(self.rows))
            else:
                places = np.searchsorted(self.bounds, rng.random(len(self.rows)), side="right")
                order = np.minimum(places, len(self.rows) - 1)
            self.number, self.order = number, self.rows[order]
        return self.order
