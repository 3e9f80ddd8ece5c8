"""What the models share that are dense while they are fitted: which items they cover, and what is kept of them."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from recsys.retrieval.sparse import SparseRows
from recsys.shop import ragged
from recsys.shop.events import Int64
from recsys.shop.identity import Int32
from recsys.shop.pools import Float32

BLOCK = 256
"""Rows of a model that are pruned at once."""


def most_used(users: npt.NDArray[np.integer], most: int, least: int) -> tuple[Int64, Int64]:
    """The `most` items with most users (`users`: a number an item), of those with at least so many; ties by lower number.

    Gives them in ascending order, and the place of every item among them, −1 for one that is not covered.
    """
    ranked = np.lexsort((np.arange(len(users)), -users))[:most]
    chosen = np.sort(ranked[users[ranked] >= least])
    column = np.full(len(users), -1, dtype=np.int64)
    column[chosen] = np.arange(len(chosen))
    return chosen, column


def strongest(model: Float32, k: int, chosen: Int64, n_rows: int) -> SparseRows:
    """The `k` weights of greatest magnitude of each row of a square model, under the numbers of its `chosen` items."""
    parts = list(zip(*_strongest(model, k), strict=True))
    if not parts:
        return SparseRows.empty(n_rows)
    source, target = (np.concatenate(part) for part in parts)
    return SparseRows.from_sorted(chosen[source], chosen[target], model[source, target], n_rows)


def _strongest(model: Float32, k: int) -> Iterator[tuple[Int64, Int32]]:
    """Row and column of the entries of greatest magnitude in each row."""
    for start in range(0, len(model), BLOCK):
        part = np.abs(model[start : start + BLOCK])
        columns = np.tile(np.arange(part.shape[1], dtype=np.int32), len(part))
        heaviest = SparseRows(np.arange(len(part) + 1) * part.shape[1], columns, part.ravel()).pruned(k)
        found = heaviest.weight > 0
        yield start + ragged.row_numbers(heaviest.indptr)[found].astype(np.int64), heaviest.item[found]
