"""The best matches between the rows of two matrices of unit vectors, exactly, block by block.

At the sizes of face collections an exact search by matrix products is quicker than building an index. A block of
products stays in the processor's cache and only its few best entries leave it, so that memory is bounded by the block
and not by the data. Parts from several machines are joined with `Matches.moved` and `merge`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

ROWS, COLUMNS = 512, 7040
"""Products per block: 14 MB. 7040 is 32 rows with 220 views, and maxima are quickest in groups of 16 or 32."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Pairs of a left and a right row, ordered by right row, then by falling score.

    All of shape (k,): `left` and `right` int64 row numbers, `score` float32 in [-1, 1], and `view` int64, the view of
    the right row that gave the score; 0 where rows have one.
    """

    left: np.ndarray
    right: np.ndarray
    score: np.ndarray
    view: np.ndarray

    def __len__(self) -> int:
        return len(self.left)

    def __getitem__(self, chosen: np.ndarray) -> Matches:
        """The pairs of a mask or of positions."""
        return Matches(self.left[chosen], self.right[chosen], self.score[chosen], self.view[chosen])

    def moved(self, left: int = 0, right: int = 0) -> Matches:
        """The same pairs where the blocks' first rows are numbers `left` and `right` of the whole."""
        return Matches(self.left + left, self.right + right, self.score, self.view)


def merge(*parts: Matches, keep: int) -> Matches:
    """The `keep` best of several parts for each right row; of equal scores those of lower left rows."""
    if not parts:
        return Matches(*(np.empty(0, kind) for kind in (np.int64, np.int64, np.float32, np.int64)))
    joined = Matches(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("left", "right", "score", "view"))
    )
    ordered = joined[np.lexsort((joined.left, -joined.score, joined.right))]
    starts = np.searchsorted(ordered.right, ordered.right)
    return ordered[np.arange(len(ordered)) - starts < keep]


def top_matches(
    left: np.ndarray,
    right: np.ndarray,
    threshold: float,
    keep: int,
    block: tuple[int, int] = (ROWS, COLUMNS),
) -> Matches:
    """The `keep` left rows most alike to each right row, of those with a product of at least `threshold`.

    Args:
        left: float32 (n, d), unit vectors; a row of zeros or NaN matches nothing above 0.
        right: float32 (m, d), or (m, views, d): then the score of a pair is the best over the views.
        block: left rows and right rows times views whose products are held at once.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}; at least one match per row is kept.")
    views = right[:, None] if right.ndim == 2 else right
    if left.ndim != 2 or views.ndim != 3 or left.shape[1] != views.shape[2]:
        raise ValueError(f"vectors of shapes {left.shape} and {right.shape} cannot be compared; give (n, d), (m, d).")
    step = max(1, block[1] // max(1, views.shape[1]))
    parts = []
    for low in range(0, len(views), step):
        group = torch.from_numpy(np.ascontiguousarray(views[low : low + step], np.float32)).nan_to_num()
        parts.append(_against(left, group, threshold, keep, block[0]).moved(right=low))
    return merge(*parts, keep=keep)


def _against(left: np.ndarray, group: torch.Tensor, threshold: float, keep: int, rows: int) -> Matches:
    """The best left rows for a few right ones, (g, views, d)."""
    # Views outermost: the maximum over them then runs along contiguous memory.
    turned = group.transpose(0, 1).reshape(-1, group.shape[2]).T.contiguous()
    products = torch.empty(min(rows, len(left)), turned.shape[1])
    floor = torch.full((len(group),), threshold, dtype=torch.float32)
    best = merge(keep=keep)
    for low in range(0, len(left), rows):
        some = torch.from_numpy(np.ascontiguousarray(left[low : low + rows], np.float32)).nan_to_num()
        scores = torch.mm(some, turned, out=products[: len(some)])
        if group.shape[1] > 1:
            scores = scores.view(len(some), -1, len(group)).amax(1)
        # One pass for the columns' maxima; only columns that may change are looked at again.
        changed = torch.nonzero(scores.amax(0) >= floor)[:, 0]
        if len(changed):
            best = merge(best, _chosen(scores, changed, threshold, keep).moved(left=low), keep=keep)
            full = best.right[keep - 1 :] == best.right[: max(0, len(best) - keep + 1)]
            floor[best.right[keep - 1 :][full]] = torch.from_numpy(best.score[keep - 1 :][full])
    return _with_views(best, left, group)


def _chosen(scores: torch.Tensor, columns: torch.Tensor, threshold: float, keep: int) -> Matches:
    """The best pairs of some columns of a matrix of scores."""
    top, where = scores[:, columns].T.topk(min(keep, len(scores)))
    column, rank = torch.nonzero(top >= threshold, as_tuple=True)
    left, right, score = where[column, rank], columns[column], top[column, rank]
    return Matches(left.numpy(), right.numpy(), score.numpy(), np.zeros(len(left), np.int64))


def _with_views(matches: Matches, left: np.ndarray, group: torch.Tensor) -> Matches:
    """The view that gave each score: computed again for the few best, since keeping it for all pairs costs more."""
    if group.shape[1] == 1:
        return matches
    view = np.zeros(len(matches), np.int64)
    for right in np.unique(matches.right):
        own = matches.right == right
        rows = torch.from_numpy(np.asarray(left[matches.left[own]], np.float32)).nan_to_num()
        view[own] = (group[right] @ rows.T).argmax(0).numpy()
    return Matches(matches.left, matches.right, matches.score, view)


def nearest(left: np.ndarray, right: np.ndarray, block: tuple[int, int] = (ROWS, COLUMNS)) -> Matches:
    """The one left row most alike to each right row; `merge(a, b, keep=1)` joins those of several left blocks."""
    return top_matches(left, right, -np.inf, 1, block)
