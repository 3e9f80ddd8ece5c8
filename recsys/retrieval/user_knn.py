"""What customers with a like history buy, together with the customer's own habits."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from recsys.component import State, component
from recsys.retrieval.base import Retriever
from recsys.retrieval.item_to_item import banned
from recsys.retrieval.sparse import SparseRows
from recsys.shop import ragged
from recsys.shop.events import MILLISECONDS_PER_DAY, Int64
from recsys.shop.identity import Int32
from recsys.shop.kinds import SIGNAL_WEIGHTS, KindWeights
from recsys.shop.pairs import pair_key
from recsys.shop.pools import Float32, Ranking
from recsys.shop.queries import Queries
from recsys.shop.reasons import TASTE, Codes
from recsys.shop.shop import Shop

FEWEST_ITEMS = 2
"""A user with fewer distinct items is nobody's neighbour: the query already has the one that they share."""


@component
class UserKNN(Retriever):
    """Nearest users by decayed item frequency (TIFU-KNN: Hu, He, Gao and Zhang, SIGIR 2020).

    A user's weight of an item is v(u, i) = Σ over the days with both of weight(strongest kind that day) · 2^(−age / half-life),
    where the paper decays by baskets and groups of baskets. Likeness is the cosine of v · idf, and

        score(i) = own · v(q, i) / |v(q)| + (1 − own) · Σ over the k nearest n of cos(q, n) · v(n, i) / |the same over all i|

    Only the `sample_size` newest users of each item are looked at.
    """

    name: ClassVar[str] = "user_knn"
    speaks_for: ClassVar[Codes] = TASTE
    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """Weight of a day with an item, by its strongest event; an event of weight 0 is ignored."""
    half_life_days: PositiveFloat = 120.0
    """Days after which a day counts half."""
    k: PositiveInt = 300
    """How many neighbours vote."""
    own: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Part of the score that the query's own history has."""
    sample_size: PositiveInt = 1000
    """How many of the newest users of an item are looked at."""
    user_items: PositiveInt = 500
    """Only so many of a user's heaviest items count."""

    def __post_init__(self) -> None:
        self.taste, self.holders = SparseRows.empty(), SparseRows.empty()
        self.user: Int64 = np.empty(0, dtype=np.int64)
        self.idf: Float32 = np.empty(0, dtype=np.float32)

    def fit(self, past: Shop) -> None:
        """Weigh every user's items, and note which users hold each item."""
        log = past.log
        now = int(log.time[-1]) + 1 if len(log) else 0
        taste, newest = self._taste(log.user, log.item, log.weigh(self.weights), log.time, log.n_users, now)
        holders = np.bincount(taste.item, minlength=log.n_items)
        self.idf = np.log((log.n_users + 1) / np.maximum(holders, 1)).astype(np.float32)
        self.user = np.flatnonzero(np.diff(taste.indptr) >= FEWEST_ITEMS)
        indptr, kept = ragged.take(taste.indptr, self.user)
        self.taste = SparseRows(indptr, taste.item[kept], taste.weight[kept])
        self._hold(newest[kept])

    def _hold(self, newest: Int64) -> None:
        """The newest users of each item, each with the item's part in their likeness."""
        row = ragged.row_numbers(self.taste.indptr)
        part = self._parts(self.taste, row)
        by_item = np.argsort(self.taste.item, kind="stable")
        indptr = ragged.from_counts(np.bincount(self.taste.item, minlength=len(self.idf)))
        order = by_item[ragged.descending(indptr, newest[by_item])]
        order = order[ragged.within_row(indptr) < self.sample_size]
        self.holders = SparseRows.from_sorted(self.taste.item[order], row[order], part[order], len(self.idf))

    def _taste(
        self, row: Int32 | Int64, item: Int32 | Int64, weight: Float32, time: Int64, n_rows: int, now: int
    ) -> tuple[SparseRows, Int64]:
        """The weights of each row's heaviest items, and when each of them was last met; a row's events are oldest first."""
        met = weight > 0
        row, item, time, weight = row[met], item[met], time[met], weight[met]
        day = time // MILLISECONDS_PER_DAY
        pair = pair_key(row, item)
        order = np.argsort(pair, kind="stable")
        row, item, day, time, weight, pair = row[order], item[order], day[order], time[order], weight[order], pair[order]
        opens_pair = np.flatnonzero(np.diff(pair, prepend=-1))
        opens_day = np.flatnonzero((np.diff(pair, prepend=-1) != 0) | (np.diff(day, prepend=-1) != 0))
        if not len(pair):
            return SparseRows.empty(n_rows), np.empty(0, dtype=np.int64)
        age = (now - np.maximum.reduceat(time, opens_day)) / MILLISECONDS_PER_DAY
        a_day = np.maximum.reduceat(weight, opens_day) * np.exp2(-age / self.half_life_days)
        total = np.add.reduceat(a_day, np.searchsorted(opens_day, opens_pair)).astype(np.float32)
        newest = np.maximum.reduceat(time, opens_pair)
        row, item = row[opens_pair], item[opens_pair]
        indptr = ragged.from_sorted(row, n_rows)
        order = np.sort(ragged.descending(indptr, total)[ragged.within_row(indptr) < self.user_items])
        return SparseRows.from_sorted(row[order], item[order], total[order], n_rows), newest[order]

    def _parts(self, taste: SparseRows, row: Int32 | Int64) -> Float32:
        """Entries of the rows of `taste` · idf, scaled to length 1."""
        weighed = taste.weight.astype(np.float64) * self.idf[taste.item]
        length = np.sqrt(np.bincount(row, weights=weighed**2, minlength=len(taste)))
        return (weighed / np.where(length > 0, length, 1)[row]).astype(np.float32)

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        """The heaviest items of the neighbours and of the query itself."""
        known = queries.item < len(self.idf)
        row = queries.row[known]
        own, _ = self._taste(
            row, queries.item[known], queries.weigh(self.weights)[known], queries.event_time[known], len(queries), queries.time
        )
        own_row = ragged.row_numbers(own.indptr)
        asked = SparseRows(own.indptr, own.item, self._parts(own, own_row))
        nearest = asked.times_top(self.holders, self.k, banned=self._self(queries))

        found = nearest.item >= 0
        neighbours = np.unique(nearest.item[found])
        indptr, entry = ragged.take(self.taste.indptr, neighbours)
        size = np.add.reduceat(self.taste.weight[entry], indptr[:-1]) if len(neighbours) else np.empty(0, dtype=np.float32)
        place = np.searchsorted(neighbours, nearest.item)
        vote = np.where(found, nearest.score, 0)
        whole = (vote * size[np.where(found, place, 0)]).sum(axis=1) if len(neighbours) else np.zeros(len(queries))
        vote *= ((1 - self.own) / np.where(whole > 0, whole, 1))[:, None]
        habit = np.bincount(own_row, weights=own.weight, minlength=len(queries))

        rows = np.concatenate([np.nonzero(found)[0], np.flatnonzero(habit)])
        votes = np.concatenate([vote[found], self.own / habit[habit > 0]])
        voters = np.concatenate([place[found], len(neighbours) + np.flatnonzero(habit)])
        order = np.argsort(rows, kind="stable")
        voting = SparseRows.from_sorted(rows[order], voters[order], votes[order], len(queries))
        tastes = SparseRows(
            np.concatenate([indptr, indptr[-1] + own.indptr[1:]]),
            np.concatenate([self.taste.item[entry], own.item]),
            np.concatenate([self.taste.weight[entry], own.weight]),
        )
        return voting.times_top(tastes, k, banned=banned(self, queries))

    def _self(self, queries: Queries) -> SparseRows:
        """The query's user among the neighbours."""
        place = np.minimum(np.searchsorted(self.user, queries.user), max(len(self.user) - 1, 0))
        rows = np.flatnonzero(self.user[place] == queries.user) if len(self.user) else np.empty(0, dtype=np.int64)
        return SparseRows.from_sorted(rows, place[rows], np.zeros(len(rows)), len(queries))

    def state(self) -> State:
        """The users' weights and who holds what."""
        holders = {f"holders_{name}": array for name, array in self.holders.state().items()}
        return {**self.taste.state(), **holders, "user": self.user, "idf": self.idf}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.taste = SparseRows(state["indptr"], state["item"], state["weight"])
        self.holders = SparseRows(state["holders_indptr"], state["holders_item"], state["holders_weight"])
        self.user, self.idf = state["user"], state["idf"]
