"""Matrix factorisation of weighted implicit feedback."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from scipy import sparse
from threadpoolctl import threadpool_limits

from recsys.catalogue import Catalogue
from recsys.component import State, component
from recsys.events import EventLog, Int32, Int64
from recsys.pools import Float32, Ranking
from recsys.queries import Queries, pair_key
from recsys.retrieval.base import SIGNAL_WEIGHTS, KindWeights, Retriever, kind_weights


@component
class ALS(Retriever):
    """Alternating least squares on confidences (Hu, Koren and Volinsky, ICDM 2008), by `implicit`.

    Only item factors are kept. A query's vector is the exact least-squares solution for its own history, so a user pruned from
    the fit, a new visitor and one with events since the fit are all answered alike.
    """

    name: ClassVar[str] = "als"
    factors: PositiveInt = 128
    regularization: NonNegativeFloat = 0.05
    iterations: PositiveInt = 20
    alpha: PositiveFloat = 1.0
    """Confidence of a signal: alpha · weight."""
    confidence: Literal["linear", "log"] = "linear"
    """`log` damps heavy repetition: alpha · log(1 + weight)."""
    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """Weight of an event of each kind, summed over a (user, item) pair."""
    min_user_items: PositiveInt = 2
    """Users with fewer distinct items say nothing of items' likeness and are left out of the fit."""
    threads: NonNegativeInt = 0
    """0: all cores. The result does not depend on it."""
    seed: int = 0

    def __post_init__(self) -> None:
        self.item = np.empty(0, dtype=np.int32)
        self.item_factors = np.empty((0, self.factors), dtype=np.float32)

    def fit(self, log: EventLog, catalogue: Catalogue) -> None:
        """Factorise the (user, item) confidences of the log."""
        row, item, weight = self._confidence(log.user, log.item, kind_weights(self.weights)[log.kind])
        enough = np.bincount(row, minlength=log.n_users) >= self.min_user_items
        kept = enough[row]
        users, row = np.unique(row[kept], return_inverse=True)
        self.item, column = np.unique(item[kept], return_inverse=True)
        matrix = sparse.csr_matrix((weight[kept], (row, column)), shape=(len(users), len(self.item)), dtype=np.float32)
        if not len(users):
            self.item_factors = np.empty((0, self.factors), dtype=np.float32)
            return
        with threadpool_limits(1, user_api="blas"):
            model = self._model()
            model.fit(matrix, show_progress=False)
        self.item_factors = model.item_factors

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        """Items by inner product with the query's vector; none for a query without a known item."""
        from implicit.cpu.topk import topk

        items = np.full((len(queries), k), -1, dtype=np.int32)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        if not len(self.item) or not len(queries):
            return Ranking(items, scores)
        vectors = self.query_vectors(queries)
        excluded = self.excluded(queries)
        column = self._column(excluded & 0xFFFFFFFF)
        seen = sparse.csr_matrix(
            (np.ones(int((column >= 0).sum()), np.float32), ((excluded >> 32)[column >= 0], column[column >= 0])),
            shape=(len(queries), len(self.item)),
        )
        depth = min(k, len(self.item))
        with threadpool_limits(1, user_api="blas"):
            best, score = topk(
                self.item_factors,
                vectors,
                depth,
                filter_query_items=seen if seen.nnz else None,
                num_threads=self.threads,
            )
        best = self.item[best].astype(np.int32)
        known = np.any(vectors != 0, axis=1)[:, None] & (score > np.finfo(np.float32).min)
        best, score = np.where(known, best, -1), np.where(known, score, -np.inf)
        order = np.lexsort((best, -score), axis=1)
        items[:, :depth] = np.take_along_axis(best, order, axis=1)
        scores[:, :depth] = np.take_along_axis(score, order, axis=1)
        return Ranking(items, scores)

    def query_vectors(self, queries: Queries) -> Float32:
        """The least-squares vector of each query's history: `float32[q, factors]`, 0 without a known item."""
        row, item, weight = self._confidence(queries.row, queries.item, kind_weights(self.weights)[queries.kind])
        column = self._column(item)
        known = column >= 0
        matrix = sparse.csr_matrix(
            (weight[known], (row[known], column[known])), shape=(len(queries), len(self.item)), dtype=np.float32
        )
        with threadpool_limits(1, user_api="blas"):
            model = self._model()
            model.item_factors = self.item_factors
            vectors: Float32 = model.recalculate_user(np.arange(len(queries)), matrix)
        return vectors

    def _confidence(self, row: Int32, item: Int32, weight: Float32) -> tuple[Int64, Int64, Float32]:
        """Summed confidence of each (row, item) pair."""
        signal = weight > 0
        keys, of_event = np.unique(pair_key(row[signal], item[signal]), return_inverse=True)
        total = np.bincount(of_event, weights=weight[signal], minlength=len(keys))
        confidence = self.alpha * (np.log1p(total) if self.confidence == "log" else total)
        return keys >> 32, keys & 0xFFFFFFFF, confidence.astype(np.float32)

    def _column(self, item: Int64) -> Int64:
        """The place of each item among the factors, −1 where it has none."""
        place = np.minimum(np.searchsorted(self.item, item), max(len(self.item) - 1, 0))
        return np.where(self.item[place] == item, place, -1) if len(self.item) else np.full(len(item), -1)

    def _model(self):  # type: ignore[no-untyped-def]
        from implicit.cpu.als import AlternatingLeastSquares

        return AlternatingLeastSquares(
            factors=self.factors,
            regularization=self.regularization,
            iterations=self.iterations,
            alpha=1.0,
            num_threads=self.threads,
            random_state=self.seed,
        )

    def state(self) -> State:
        """Item numbers and their factors."""
        return {"item": self.item, "item_factors": self.item_factors}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.item, self.item_factors = state["item"], state["item_factors"]
