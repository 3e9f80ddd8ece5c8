"""Matrix factorisation of weighted implicit feedback."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from scipy import sparse

from recsys.catalogue import Catalogue
from recsys.component import State, component
from recsys.events import EventLog, Int64
from recsys.pools import Float32
from recsys.queries import Queries
from recsys.retrieval.base import SIGNAL_WEIGHTS, KindWeights, kind_weights
from recsys.retrieval.factors import Factors, decayed, one_blas_thread, summed_pairs


@component
class ALS(Factors):
    """Alternating least squares on confidences (Hu, Koren and Volinsky, ICDM 2008), by `implicit`.

    A query's vector is the exact least-squares solution for its own history.
    """

    name: ClassVar[str] = "als"
    factors: PositiveInt = 128
    regularization: NonNegativeFloat = 0.05
    iterations: PositiveInt = 20
    warm_iterations: PositiveInt | None = None
    """Iterations of a fit that begins at the factors of an earlier cutoff, where this object was fitted to one; none: every fit
    begins anew, and its result depends on its own log alone."""
    alpha: PositiveFloat = 1.0
    """Confidence of a signal: alpha · weight."""
    confidence: Literal["linear", "log", "bm25"] = "linear"
    """`log` damps heavy repetition: alpha · log(1 + weight). `bm25` damps popular items and busy users as well, as implicit's
    `bm25_weight` does: alpha · w · (k1 + 1) / (k1 · (1 − b + b · weight(i) / mean weight) + w) · log(items / (1 + items(u))).
    """
    k1: PositiveFloat = 100.0
    """Of `bm25`: how soon repetition saturates."""
    b: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Of `bm25`: how much popular items are damped."""
    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """Weight of an event of each kind, summed over a (user, item) pair."""
    half_life_days: PositiveFloat | None = None
    """Days after which an event counts half, in the fit and in a query's history; none: age does not matter."""
    min_user_items: PositiveInt = 2
    """Users with fewer distinct items say nothing of items' likeness and are left out of the fit."""
    threads: NonNegativeInt = 0
    """0: all cores. The result does not depend on it."""
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.item_factors = np.empty((0, self.factors), dtype=np.float32)
        self.length = np.empty(0, dtype=np.float32)
        self.fitted_until = 0
        self._solver: Any = None

    def fit(self, log: EventLog, catalogue: Catalogue) -> None:
        """Factorise the (user, item) confidences of the log."""
        until = int(log.time[-1]) if len(log) else 0
        row, item, weight = summed_pairs(log.user, log.item, self._weight(log, until))
        kept = (np.bincount(row, minlength=log.n_users) >= self.min_user_items)[row]
        users, row = np.unique(row[kept], return_inverse=True)
        items, column = np.unique(item[kept], return_inverse=True)
        total = np.bincount(column, weights=weight[kept], minlength=len(items))
        start = self._start(items) if until >= self.fitted_until else None
        self.item, self.fitted_until = items.astype(np.int32), until
        self.length = (total / total.mean() if len(total) else total).astype(np.float32)
        self.item_factors = np.empty((0, self.factors), dtype=np.float32)
        if not len(users):
            return
        confidence = self._confidence(row, column, weight[kept])
        matrix = sparse.csr_matrix((confidence, (row, column)), shape=(len(users), len(items)), dtype=np.float32)
        with one_blas_thread():
            model = self._model(self.iterations if start is None else self.warm_iterations)
            model.item_factors = start
            model.fit(matrix, show_progress=False)
        self.item_factors = model.item_factors

    def query_vectors(self, queries: Queries) -> Float32:
        """The least-squares vector of each query's history."""
        row, item, weight = summed_pairs(queries.row, queries.item, self._weight(queries, queries.time))
        column = self.column(item)
        known = column >= 0
        row, column = row[known], column[known]
        confidence = self._confidence(row, column, weight[known])
        matrix = sparse.csr_matrix((confidence, (row, column)), shape=(len(queries), len(self.item)), dtype=np.float32)
        with one_blas_thread():
            if self._solver is None or self._solver.item_factors is not self.item_factors:
                # It keeps the factors' squares, which cost more than many queries.
                self._solver = self._model(self.iterations)
                self._solver.item_factors = self.item_factors
            vectors: Float32 = self._solver.recalculate_user(np.arange(len(queries)), matrix)
        return vectors

    @property
    def threads_used(self) -> int:
        """As configured."""
        return self.threads

    def _weight(self, events: EventLog | Queries, now: int) -> Float32:
        time = events.event_time if isinstance(events, Queries) else events.time
        return decayed(kind_weights(self.weights)[events.kind], now - time, self.half_life_days)

    def _confidence(self, row: Int64, column: Int64, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.confidence == "linear":
            return self.alpha * weight
        if self.confidence == "log":
            return self.alpha * np.log1p(weight)
        busy = np.bincount(row)[row]
        rarity = np.maximum(np.log(len(self.item)) - np.log1p(busy), 0.01)
        saturation = self.k1 * (1 - self.b + self.b * self.length[column]) + weight
        return self.alpha * weight * (self.k1 + 1) / saturation * rarity

    def _start(self, items: Int64) -> Float32 | None:
        """The factors to begin at: those of the earlier fit, small random ones for items that are new since."""
        if self.warm_iterations is None or not len(self.item):
            return None
        place = self.column(items)
        start = np.random.default_rng(self.seed).random((len(items), self.factors), dtype=np.float32) * np.float32(0.01)
        start[place >= 0] = self.item_factors[place[place >= 0]]
        return start

    def _model(self, iterations: int | None):  # type: ignore[no-untyped-def]
        from implicit.cpu.als import AlternatingLeastSquares

        return AlternatingLeastSquares(
            factors=self.factors,
            regularization=self.regularization,
            iterations=iterations,
            alpha=1.0,
            num_threads=self.threads,
            random_state=self.seed,
        )

    def state(self) -> State:
        """Item numbers, their factors and relative weights, and the time of the newest event."""
        return {**super().state(), "length": self.length, "fitted_until": np.array(self.fitted_until)}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        super().restore(state)
        self.length, self.fitted_until = state["length"], int(state["fitted_until"])
