"""Matrix factorisation of weighted implicit feedback."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from scipy import sparse

from recsys.component import State, component
from recsys.retrieval.factors import Factors, decayed, one_blas_thread, summed_pairs
from recsys.shop.events import EventLog, Int64
from recsys.shop.identity import Int32
from recsys.shop.kinds import SIGNAL_WEIGHTS, KindWeights
from recsys.shop.pools import Float32
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop


@dataclass(frozen=True, eq=False)
class Factorisation:
    """Item factors of a log, `float32[items, d]`, with the item numbers, ascending, and their weights, 1 on average."""

    log: EventLog
    item: Int32
    length: Float32
    item_factors: Float32


@component
class ALS(Factors):
    """Alternating least squares on confidences (Hu, Koren and Volinsky, ICDM 2008), by `implicit`.

    A query's vector is the exact least-squares solution for its own history.
    """

    name: ClassVar[str] = "als"
    factors: PositiveInt = 128
    regularization: NonNegativeFloat = 0.05
    iterations: PositiveInt = 20
    shared: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """This part of the iterations sees the oldest events only, the largest power of two of them: fits at cutoffs near one
    another have it in common, and one that follows another makes only the rest. The result is that of a fresh fit."""
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
        self._shared: Factorisation | None = None
        self._solver: Any = None

    def fit(self, past: Shop) -> None:
        """Factorise the (user, item) confidences of the log."""
        log = past.log
        start, iterations = None, self.iterations
        if (shared := round(self.shared * iterations)) and len(log):
            oldest = past.before(int(log.time[(1 << len(log).bit_length() - 1) - 1]) + 1).log
            if self._shared is None or not (len(oldest) == len(self._shared.log) and oldest.continues(self._shared.log)):
                self._shared = self._factorise(oldest, shared, None)
            if len(self._shared.item):
                start, iterations = self._shared, max(iterations - shared, 1)
        made = self._factorise(log, iterations, start)
        self.item, self.item_factors, self.length = made.item, made.item_factors, made.length

    def _factorise(self, log: EventLog, iterations: int, start: Factorisation | None) -> Factorisation:
        until = int(log.time[-1]) if len(log) else 0
        row, item, weight = summed_pairs(log.user, log.item, self._weight(log, until))
        kept = (np.bincount(row, minlength=log.n_users) >= self.min_user_items)[row]
        users, row = np.unique(row[kept], return_inverse=True)
        items, column = np.unique(item[kept], return_inverse=True)
        total = np.bincount(column, weights=weight[kept], minlength=len(items))
        length = (total / total.mean() if len(total) else total).astype(np.float32)
        factors = np.empty((0, self.factors), dtype=np.float32)
        if len(users):
            confidence = self._confidence(row, column, weight[kept], length)
            matrix = sparse.csr_matrix((confidence, (row, column)), shape=(len(users), len(items)), dtype=np.float32)
            with one_blas_thread():
                model = self._model(iterations)
                model.item_factors = None if start is None else self._begun(items, start)
                model.fit(matrix, show_progress=False)
            factors = model.item_factors
        return Factorisation(log, items.astype(np.int32), length, factors)

    def query_vectors(self, queries: Queries) -> Float32:
        """The least-squares vector of each query's history."""
        row, item, weight = summed_pairs(queries.row, queries.item, self._weight(queries, queries.time))
        column = self.column(item)
        known = column >= 0
        row, column = row[known], column[known]
        confidence = self._confidence(row, column, weight[known], self.length)
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
        return decayed(events.weigh(self.weights), now - time, self.half_life_days)

    def _confidence(
        self, row: Int64, column: Int64, weight: npt.NDArray[np.float64], length: Float32
    ) -> npt.NDArray[np.float64]:
        if self.confidence == "linear":
            return self.alpha * weight
        if self.confidence == "log":
            return self.alpha * np.log1p(weight)
        busy = np.bincount(row)[row]
        rarity = np.maximum(np.log(len(length)) - np.log1p(busy), 0.01)
        saturation = self.k1 * (1 - self.b + self.b * length[column]) + weight
        return self.alpha * weight * (self.k1 + 1) / saturation * rarity

    def _begun(self, items: Int64, start: Factorisation) -> Float32:
        """The factors of `items` to go on from: small random ones for items that are new."""
        factors = np.random.default_rng(self.seed).random((len(items), self.factors), dtype=np.float32) * np.float32(0.01)
        _, place, of_start = np.intersect1d(items, start.item, assume_unique=True, return_indices=True)
        factors[place] = start.item_factors[of_start]
        return factors

    def _model(self, iterations: int):  # type: ignore[no-untyped-def]
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
        """Item numbers, their factors and relative weights."""
        return {**super().state(), "length": self.length}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        super().restore(state)
        self.length = state["length"]
