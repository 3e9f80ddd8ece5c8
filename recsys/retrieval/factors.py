"""Retrieval by inner product with item vectors, however they were learned."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from functools import cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy import sparse
from threadpoolctl import ThreadpoolController

from recsys.component import State, component
from recsys.retrieval.base import Retriever
from recsys.retrieval.sparse import over_rows
from recsys.shop.events import MILLISECONDS_PER_DAY, Int64
from recsys.shop.identity import Int32
from recsys.shop.pairs import pair_key
from recsys.shop.pools import Float32, Ranking
from recsys.shop.queries import Queries
from recsys.shop.reasons import TASTE, Codes

SPARE = 32
"""Items beside those asked for that are scored again, so that the noise of a product can't decide which are the best."""


@component
class Factors(Retriever, ABC):
    """Keeps `item` (ascending item numbers) with `item_factors` (`float32[items, d]`); a query's vector is made of its history.

    No vector of a user is kept, so that a user pruned from the fit, a new visitor and one with events since the fit are all
    answered alike.
    """

    speaks_for: ClassVar[Codes] = TASTE

    def __post_init__(self) -> None:
        self.item = np.empty(0, dtype=np.int32)
        self.item_factors = np.empty((0, 1), dtype=np.float32)
        self._measured, self._length = self.item_factors, 0.0

    @abstractmethod
    def query_vectors(self, queries: Queries) -> Float32:
        """A vector for each query: `float32[q, d]`, 0 for one without a known item."""

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        """Items by inner product with the query's vector; none for a query without a known item."""
        items = np.full((len(queries), k), -1, dtype=np.int32)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        if not len(self.item) or not len(queries):
            return Ranking(items, scores)
        vectors = self.query_vectors(queries)
        excluded = self.excluded(queries)
        column = self.column(excluded & 0xFFFFFFFF)
        seen = sparse.csr_matrix(
            (np.ones(int((column >= 0).sum()), np.float32), ((excluded >> 32)[column >= 0], column[column >= 0])),
            shape=(len(queries), len(self.item)),
        )
        asked = np.flatnonzero(np.any(vectors != 0, axis=1))
        if len(asked):
            best, score = self._best(vectors[asked], seen[asked], min(k, len(self.item)), SPARE)
            items[asked, : best.shape[1]], scores[asked, : best.shape[1]] = best, score
        return Ranking(items, scores)

    def _best(self, vectors: Float32, seen: sparse.csr_matrix, depth: int, spare: int) -> tuple[Int32, Float32]:
        """The `depth` items with the largest inner products, exact, ties by item number; −1 and −inf pad.

        BLAS adds up a row in another order when it stands among more or fewer others, so that sums, and a few items at the end
        of a list, would depend on who else is asked about. So it only proposes: each pair is then added up alone, and where an
        item beyond the `spare` ones could still belong to the list, more are proposed.
        """
        from implicit.cpu.topk import topk

        from recsys.retrieval import _kernels

        width = min(depth + spare, len(self.item))
        gone = seen if seen.nnz else None
        with one_blas_thread():
            place, rough = topk(self.item_factors, vectors, width, filter_query_items=gone, num_threads=self.threads_used)
        score = np.empty(place.shape, dtype=np.float32)
        over_rows(lambda a, b: _kernels.inner_products(vectors[a:b], self.item_factors, place[a:b], score[a:b]), len(vectors))
        score[rough <= np.finfo(np.float32).min] = -np.inf
        item = np.where(np.isinf(score), -1, self.item[place]).astype(np.int32)
        over_rows(lambda a, b: _kernels.order_lists(item[a:b], score[a:b]), len(vectors))
        item, score = item[:, :depth], score[:, :depth]
        if width < len(self.item):
            noise = 4 * vectors.shape[1] * np.finfo(np.float32).eps * self._longest() * np.linalg.norm(vectors, axis=1)
            unsure = np.flatnonzero(score[:, -1] <= rough[:, -1] + noise)
            if len(unsure):
                item[unsure], score[unsure] = self._best(vectors[unsure], seen[unsure], depth, 8 * spare)
        return item, score

    def _longest(self) -> float:
        """Length of the longest item vector."""
        if self._measured is not self.item_factors:
            self._measured, self._length = self.item_factors, float(np.linalg.norm(self.item_factors, axis=1).max())
        return self._length

    @property
    def threads_used(self) -> int:
        """Threads of `retrieve`, 0 for all cores; the result does not depend on it."""
        return 0

    def column(self, item: npt.NDArray[np.integer]) -> Int64:
        """The place of each item among the factors, −1 where it has none."""
        place = np.minimum(np.searchsorted(self.item, item), max(len(self.item) - 1, 0))
        return np.where(self.item[place] == item, place, -1) if len(self.item) else np.full(len(item), -1)

    def mean_of_history(self, queries: Queries, weight: npt.NDArray[np.floating]) -> Float32:
        """Weighted mean of the factors of each query's items: `float32[q, d]`; `weight` has one value a history event."""
        column = self.column(queries.item)
        known = (column >= 0) & (weight > 0)
        shape = (len(queries), len(self.item))
        matrix = sparse.csr_matrix((weight[known], (queries.row[known], column[known])), shape=shape, dtype=np.float32)
        total = np.asarray(matrix.sum(axis=1))
        mean: Float32 = (matrix @ self.item_factors) / np.where(total > 0, total, 1).astype(np.float32)
        return mean

    def state(self) -> State:
        """Item numbers and their factors."""
        return {"item": self.item, "item_factors": self.item_factors}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.item, self.item_factors = state["item"], state["item_factors"]


def one_blas_thread() -> AbstractContextManager[object]:
    """Keep BLAS to one thread for a `with` block, once `implicit` is imported."""
    return _libraries().limit(limits=1, user_api="blas")


@cache
def _libraries() -> ThreadpoolController:
    """The libraries with threads in this process: to look for them takes longer than to answer a query."""
    return ThreadpoolController()


def decayed(weight: npt.NDArray[np.floating], age: npt.NDArray[np.integer], half_life_days: float | None) -> Float32:
    """`weight` · 2^(−age / half-life), `age` in milliseconds; unchanged without a half-life."""
    if half_life_days is None:
        return weight.astype(np.float32)
    return (weight * np.exp2(-age / (half_life_days * MILLISECONDS_PER_DAY))).astype(np.float32)


def summed_pairs(
    row: npt.NDArray[np.integer], item: npt.NDArray[np.integer], weight: npt.NDArray[np.floating]
) -> tuple[Int64, Int64, npt.NDArray[np.float64]]:
    """Row, item and summed weight of each distinct (row, item) pair with a positive weight, ascending."""
    signal = weight > 0
    keys, of_event = np.unique(pair_key(row[signal], item[signal]), return_inverse=True)
    total = np.bincount(of_event, weights=weight[signal], minlength=len(keys))
    return keys >> 32, keys & 0xFFFFFFFF, total.astype(np.float64)
