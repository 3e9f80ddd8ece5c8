"""Sparse rows of weights over items, and the best items of their products: the hot path of the item-to-item sources."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys.component import State
from recsys.shop import ragged
from recsys.shop.events import Int64
from recsys.shop.identity import Int32
from recsys.shop.pools import Float32, Ranking

THREAD_ROWS = 256
"""Fewer rows than this are not worth another thread."""
RESULT_ROWS = 32_768
"""Rows of a product that are held as a dense ranking at once."""


@dataclass(frozen=True, eq=False)
class SparseRows:
    """A sparse matrix by rows: row `r` has `item` (`int32`) and `weight` (`float32`) at `indptr[r]:indptr[r + 1]`.

    As a query it says how much each of its items counts; as a matrix, how strongly the row's item points to others. The items
    of a row are distinct.
    """

    indptr: Int64
    item: Int32
    weight: Float32

    @classmethod
    def empty(cls, n_rows: int = 0) -> "SparseRows":
        """Rows without an entry."""
        return cls(np.zeros(n_rows + 1, dtype=np.int64), np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))

    @classmethod
    def from_sorted(
        cls, row: npt.NDArray[np.integer], item: npt.NDArray[np.integer], weight: npt.NDArray[np.number], n_rows: int
    ) -> "SparseRows":
        """From entries in ascending order of `row`."""
        return cls(ragged.from_sorted(row, n_rows), item.astype(np.int32), weight.astype(np.float32))

    @classmethod
    def from_matrix(cls, matrix: sparse.csr_matrix) -> "SparseRows":
        """The entries of a scipy CSR matrix."""
        return cls(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data.astype(np.float32))

    @classmethod
    def from_ranking(cls, ranking: Ranking) -> "SparseRows":
        """Each list as a row, its scores as weights."""
        filled = ranking.item >= 0
        return cls(ragged.from_counts(ranking.length), ranking.item[filled], ranking.score[filled])

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @cached_property
    def width(self) -> int:
        """One more than the highest item number."""
        return int(self.item.max(initial=-1)) + 1

    def matrix(self, width: int) -> sparse.csr_matrix:
        """As a scipy matrix of so many columns."""
        return sparse.csr_matrix((self.weight, self.item, self.indptr), shape=(len(self), width))

    def plus(self, other: "SparseRows", factor: float) -> "SparseRows":
        """`self + factor · other`."""
        width = max(self.width, other.width)
        return SparseRows.from_matrix(self.matrix(width) + factor * other.matrix(width))

    def pruned(self, k: int) -> "SparseRows":
        """The `k` heaviest entries of each row, heaviest first, ties by ascending item."""
        from recsys.retrieval import _kernels

        indptr = ragged.from_counts(np.minimum(np.diff(self.indptr), k))
        kept = SparseRows(indptr, np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1], dtype=np.float32))

        def work(first: int, stop: int) -> None:
            _kernels.prune(first, stop, self.indptr, self.item, self.weight, kept.indptr, kept.item, kept.weight)

        over_rows(work, len(self))
        return kept

    def times_top(self, matrix: "SparseRows", k: int, own: float = 0.0, banned: "SparseRows | None" = None) -> Ranking:
        """The `k` best items of each row of `self · (matrix + own · identity)`, without those in its row of `banned`.

        Exact; only positive sums count, ties by ascending item. An item that `matrix` has no row for is ignored. Memory
        beside the result: 17 bytes a column and thread.
        """
        from recsys.retrieval import _kernels

        items = np.full((len(self), k), -1, dtype=np.int32)
        scores = np.full((len(self), k), -np.inf, dtype=np.float32)
        gone = banned or SparseRows.empty(len(self))
        width = max(matrix.width, len(matrix) if own else 0)
        query, target = (self.indptr, self.item, self.weight), (matrix.indptr, matrix.item, matrix.weight)

        def work(first: int, stop: int) -> None:
            _kernels.product_top(first, stop, *query, *target, own, width, gone.indptr, gone.item, items, scores)

        over_rows(work, len(self))
        return Ranking(items, scores)

    def times_pruned(self, matrix: "SparseRows", k: int) -> "SparseRows":
        """`times_top` as sparse rows, for many rows: the whole product is never held."""
        parts = []
        for start in range(0, len(self), RESULT_ROWS):
            indptr = self.indptr[start : start + RESULT_ROWS + 1]
            span = slice(indptr[0], indptr[-1])
            rows = SparseRows(indptr - indptr[0], self.item[span], self.weight[span])
            parts.append(SparseRows.from_ranking(rows.times_top(matrix, k)))
        if not parts:
            return SparseRows.empty()
        counts = np.concatenate([np.diff(part.indptr) for part in parts])
        item, weight = (np.concatenate([getattr(part, name) for part in parts]) for name in ("item", "weight"))
        return SparseRows(ragged.from_counts(counts), item, weight)

    def state(self) -> State:
        """The three arrays."""
        return {"indptr": self.indptr, "item": self.item, "weight": self.weight}


def over_rows(work: Callable[[int, int], None], n_rows: int) -> None:
    """Call `work(first, stop)` on spans of the rows, on all cores; `work` has to release the GIL and keep to its rows."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_spans = max(min(4 * threads, n_rows // THREAD_ROWS), 1)
    ends = np.linspace(0, n_rows, n_spans + 1).astype(np.int64).tolist()
    if n_spans == 1:
        work(0, n_rows)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, first, stop) for first, stop in pairwise(ends)]:
            done.result()
