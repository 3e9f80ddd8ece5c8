"""A linear model of what follows: the items of the weeks after a cutoff from the items of the history before it."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt
from scipy import linalg, sparse
from threadpoolctl import threadpool_limits

from recsys.component import State, component
from recsys.retrieval._dense import most_used, strongest
from recsys.retrieval.base import Retriever
from recsys.retrieval.factors import summed_pairs
from recsys.retrieval.item_to_item import banned
from recsys.retrieval.sparse import SparseRows
from recsys.shop.events import MILLISECONDS_PER_DAY, EventLog, Int64, days
from recsys.shop.kinds import KindWeights
from recsys.shop.pairs import pair_key
from recsys.shop.pools import Float32, Float64, Ranking
from recsys.shop.queries import Queries
from recsys.shop.reasons import TASTE, Codes
from recsys.shop.shop import Shop


@component
class SLIT(Retriever):
    """The ridge regression of what users did in the `horizon_days` after a cutoff on what they had done before it.

    The rows are the (user, cutoff) pairs at cutoffs `step_days` apart, the newest one horizon before the end of the log, with
    events on both sides. For each, with weights as of the cutoff,

        x(a) = √s(a) / (Σ over the history of √s)^normalisation
        s(a) = Σ over the events with a of weight(kind) · 2^(−age / half-life)
        y(b) = [b has an event of `target_weights` in the horizon] − p(b)
        p(b) = part of the users active in the horizon before the cutoff that had b

    and B and c minimise Σ over the rows of |y − xB − c|² / √(items in the horizon) + λ|B − βI|². A query scores xB + c + p at
    its own time. An item's weight for itself is how far people come back to it, β where little is known of it; the others are
    what it leads to. All are learned from what followed, where EASE learns what goes together. SLIT of Choi et al. (WWW 2021)
    regresses the rest of a session on its beginning in this way; here it is the next weeks on a user's whole history. β is the
    least squares fit with one weight for all, Σ x(a) y(a) / Σ x(a)².

    The model covers the `max_items` items with most users; fitting it takes up to 32 · max_items² bytes (500 MB by default).
    Of each row the `neighbours` weights of greatest magnitude are kept, of c + p all.
    """

    name: ClassVar[str] = "slit"
    speaks_for: ClassVar[Codes] = TASTE
    horizon_days: PositiveFloat = 28.0
    """Length of the weeks after; at most a third of the log's."""
    step_days: Annotated[float, Field(ge=1)] = 14.0
    """Distance between the cutoffs learned from."""
    regularization: PositiveFloat = 40.0
    """λ: the higher, the more only frequent transitions count."""
    weights: KindWeights = Field(default={"view": 0.2, "cart": 0.6, "purchase": 1.0})
    """Weight of an event of each kind in the history."""
    target_weights: KindWeights = Field(default={"cart": 1.0, "purchase": 1.0})
    """Kinds of event to be foreseen, by a weight above 0."""
    half_life_days: PositiveFloat = 365.0
    """Days after which an event of the history counts half."""
    normalisation: Annotated[float, Field(ge=0, le=1)] = 0.3
    """How far a long history's items count less: 0 not at all, 1 so that all histories weigh the same."""
    max_items: Annotated[int, Field(gt=0, le=30_000)] = 4_000
    """Most items in the model: time grows with its third power, memory with its second."""
    min_users: PositiveInt = 2
    """Items with fewer users stay out."""
    neighbours: PositiveInt = 500
    """Most weights that an item keeps."""

    def __post_init__(self) -> None:
        self.matrix = SparseRows.empty(1)

    def fit(self, past: Shop) -> None:
        """Solve for the most used items; the last row of the matrix is what every query begins with."""
        log = past.log
        n_items, self.matrix = log.n_items, SparseRows.empty(log.n_items + 1)
        touched = summed_pairs(log.user, log.item, log.weigh(self.weights))[1]
        chosen, column = most_used(np.bincount(touched, minlength=n_items), self.max_items, self.min_users)
        n = len(chosen)
        if not n:
            return
        now = int(log.time[-1]) + 1
        horizon = max(min(days(self.horizon_days), (now - int(log.time[0])) // 3), 1)
        gram, cross = np.zeros((n + 1, n + 1), dtype=np.float32, order="F"), np.zeros((n + 1, n), dtype=np.float32, order="F")
        for x, y, known in self._transitions(past, column, n, now, horizon):
            weighed = sparse.diags_array(1 / np.sqrt(np.diff(y.indptr))) @ x
            gram += (weighed.T @ x).toarray()
            cross += (weighed.T @ y).toarray()
            cross -= np.outer(weighed.sum(axis=0), known).astype(np.float32)
        model = solve(gram, cross, self.regularization)
        links = strongest(model[:-1], self.neighbours, chosen, n_items)
        start = model[-1] + self._popularity(log, column, n, now, horizon)
        self.matrix = SparseRows(
            np.append(links.indptr, links.indptr[-1] + n),
            np.append(links.item, chosen.astype(np.int32)),
            np.append(links.weight, start.astype(np.float32)),
        )

    def _transitions(
        self, past: Shop, column: Int64, n: int, now: int, horizon: int
    ) -> Iterator[tuple[sparse.csr_array, sparse.csr_array, Float64]]:
        """Of each cutoff, newest first: x with a 1 behind it, y before the popularity is taken off, and that popularity."""
        log, cutoff = past.log, now - horizon
        while cutoff - horizon >= int(log.time[0]):
            before, after = past.before(cutoff).log, self._targets(log, column, cutoff, cutoff + horizon)
            known, asked = np.zeros((2, log.n_users), dtype=bool)
            known[before.user] = True
            after = after.where(known[after.user])
            asked[after.user] = True
            users = np.flatnonzero(asked).astype(np.int32)
            if len(users):
                queries = Queries.at(before.where(asked[before.user]), users, cutoff)
                row, item, value = self._profile(queries)
                covered = column[item] >= 0
                shape = len(users), n + 1
                x = sparse.csr_array((value[covered], (row[covered], column[item[covered]])), shape=shape)
                x += sparse.csr_array((np.ones(len(users)), (np.arange(len(users)), np.full(len(users), n))), shape=shape)
                pairs = np.unique(pair_key(np.searchsorted(users, after.user), column[after.item]))
                y = sparse.csr_array((np.ones(len(pairs)), (pairs >> 32, pairs & 0xFFFFFFFF)), shape=(len(users), n))
                yield x, y, self._popularity(log, column, n, cutoff, horizon)
            cutoff -= days(self.step_days)

    def _targets(self, log: EventLog, column: Int64, start: int, end: int) -> EventLog:
        """The events from `start` to `end` that are to be foreseen."""
        span = log.between(start, end)
        return span.where((span.weigh(self.target_weights) > 0) & (column[span.item] >= 0))

    def _popularity(self, log: EventLog, column: Int64, n: int, until: int, horizon: int) -> Float64:
        """Part of the users of the horizon before `until` that had each item: `float64[n]`."""
        late = self._targets(log, column, until - horizon, until)
        pairs = np.unique(pair_key(late.user, column[late.item]))
        return np.bincount(pairs & 0xFFFFFFFF, minlength=n) / max(len(np.unique(late.user)), 1)

    def _profile(self, queries: Queries) -> tuple[Int64, Int64, Float64]:
        """x of each query: row, item and value, ascending."""
        age = (queries.time - queries.event_time) / MILLISECONDS_PER_DAY
        weight = queries.weigh(self.weights) * np.exp2(-age / self.half_life_days)
        row, item, total = summed_pairs(queries.row, queries.item, weight)
        value = np.sqrt(total)
        whole = np.bincount(row, weights=value, minlength=len(queries))
        return row, item, value / whole[row] ** self.normalisation

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        """The items that are most likely to follow; what is popular for a query without a known item."""
        first = len(self.matrix) - 1
        row, item, value = self._profile(queries)
        known = item < first
        row, item, value = row[known], item[known], value[known]
        order = np.argsort(np.concatenate([row, np.arange(len(queries))]), kind="stable")
        asked = SparseRows.from_sorted(
            np.concatenate([row, np.arange(len(queries))])[order],
            np.concatenate([item, np.full(len(queries), first)])[order],
            np.concatenate([value, np.ones(len(queries))])[order],
            len(queries),
        )
        return asked.times_top(self.matrix, k, banned=banned(self, queries))

    def state(self) -> State:
        """The weights of each item, and what every query begins with."""
        return self.matrix.state()

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.matrix = SparseRows(**state)


def solve(gram: Float32, cross: Float32, regularization: float) -> Float32:
    """B with c below it, from XᵀWX and XᵀWY, which are overwritten; 0 where there was nothing to learn from."""
    n = len(gram) - 1
    if not gram[n, n]:
        return cross
    itself = np.trace(cross, dtype=np.float64) / (np.trace(gram[:n, :n], dtype=np.float64) or 1.0)
    cross -= np.float32(itself) * gram[:, :n]
    diagonal = np.arange(n), np.arange(n)
    gram[diagonal] += regularization
    with threadpool_limits(1, user_api="blas"):
        _, model, failed = linalg.lapack.sposv(gram, cross, overwrite_a=True, overwrite_b=True)
    if failed:
        raise np.linalg.LinAlgError("SLIT: XᵀWX + λI is not positive definite in float32; raise regularization")
    model[diagonal] += itself
    return np.asarray(model)
