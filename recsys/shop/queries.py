"""What is asked (queries) and what turned out to be right (truth)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recsys.shop import ragged
from recsys.shop.events import EventLog, Int8, Int64
from recsys.shop.identity import Int32
from recsys.shop.kinds import Kinds, KindWeights, Role
from recsys.shop.pairs import pair_key


@dataclass(frozen=True, eq=False)
class Queries:
    """Users to recommend to at one time, each with all that it may see: the events before that time.

    `user`: `int32[q]` (−1: a visitor that the log does not know); `time`: epoch milliseconds, one for all. The history of query
    `r` is `item`, `kind` (a number into `kinds`), `event_time` at `indptr[r]:indptr[r + 1]`, oldest first.
    """

    user: Int32
    time: int
    indptr: Int64
    item: Int32
    kind: Int8
    event_time: Int64
    kinds: Kinds

    @classmethod
    def at(cls, history: EventLog, users: Int32, time: int) -> "Queries":
        """Queries of these users at `time`, with their events in `history`, which has to be `shop.before(time).log`.

        Raises `ValueError` when `history` holds events at or after `time`.
        """
        if len(history) and history.time[-1] >= time:
            raise ValueError("history reaches past the query time: pass shop.before(time).log")
        user_indptr, order = history.by_user
        indptr, positions = ragged.take(user_indptr, users)
        events = order[positions]
        return cls(
            np.asarray(users, dtype=np.int32),
            time,
            indptr,
            history.item[events],
            history.kind[events],
            history.time[events],
            history.kinds,
        )

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def row(self) -> Int32:
        """The query that each history event belongs to: `int32[m]`."""
        return ragged.row_numbers(self.indptr)

    def block(self, first: int, last: int) -> "Queries":
        """The queries `first` to `last` (exclusive), as a view."""
        events = slice(self.indptr[first], self.indptr[last])
        indptr = self.indptr[first : last + 1] - self.indptr[first]
        history = self.item[events], self.kind[events], self.event_time[events]
        return Queries(self.user[first:last], self.time, indptr, *history, self.kinds)

    def take(self, rows: Int64) -> "Queries":
        """Some of the queries, in the order given."""
        indptr, events = ragged.take(self.indptr, rows)
        history = self.item[events], self.kind[events], self.event_time[events]
        return Queries(self.user[rows], self.time, indptr, *history, self.kinds)

    def has_role(self, role: Role) -> npt.NDArray[np.bool_]:
        """Which history events are of a kind with the role: `bool[m]`."""
        return self.kinds.with_role(role)[self.kind]

    def weigh(self, weights: KindWeights) -> npt.NDArray[np.float32]:
        """The weight of each history event, see `Kinds.weights`: `float32[m]`."""
        return self.kinds.weights(weights)[self.kind]


@dataclass(frozen=True, eq=False)
class Truth:
    """The relevant items of each query with a grade each (> 0), items ascending inside a query.

    Query `r` has `item` (`int32`) and `grade` (`float32`) at `indptr[r]:indptr[r + 1]`; each item once.
    """

    indptr: Int64
    item: Int32
    grade: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @cached_property
    def key(self) -> Int64:
        """Ascending keys of the (query, item) pairs, see `pair_key`."""
        return pair_key(ragged.row_numbers(self.indptr), self.item)

    @property
    def count(self) -> Int64:
        """Number of relevant items of each query."""
        return np.diff(self.indptr)

    def grade_of(self, row: npt.NDArray[np.integer], item: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Grade of each (query, item) pair, 0 where the item is not relevant or is padding (−1)."""
        if not len(self.item):
            return np.zeros(np.broadcast(row, item).shape, dtype=np.float32)
        wanted = pair_key(row, item)
        place = np.minimum(np.searchsorted(self.key, wanted), len(self.key) - 1)
        return np.where((self.key[place] == wanted) & (item >= 0), self.grade[place], 0).astype(np.float32)

    def take(self, rows: Int64) -> "Truth":
        """The truth of some of the queries, in the order given."""
        indptr, positions = ragged.take(self.indptr, rows)
        return Truth(indptr, self.item[positions], self.grade[positions])
