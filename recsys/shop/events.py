"""The event log on one global timeline, and the vocabularies that give users and items their numbers.

Numbers are given in order of first appearance. The log before `t` therefore uses a prefix of the numbers: they stay the same
from cutoff to cutoff, and nothing of the future shows, not even how many items it brings.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.shop import ragged
from recsys.shop.identity import Ids, Int32, Vocabulary, encoded, joined
from recsys.shop.kinds import RETAIL, Kinds, KindWeights, Role
from recsys.shop.pairs import pair_key

Int64 = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]

MILLISECONDS_PER_DAY = 86_400_000
NEVER = np.iinfo(np.int64).max
"""The time of what does not happen."""


@dataclass(frozen=True, eq=False)
class EventLog:
    """Events sorted by time, as parallel arrays.

    `user`, `item`: `int32[n]` numbers into `users` and `items`; `kind`: `int8[n]` numbers into `kinds`; `time`: `int64[n]`,
    epoch milliseconds. `user_born` and `item_born` give the time of first appearance of each number, ascending; an item may be
    born in the catalogue before its first event. `undone` (`int64[n]`) is the time at which an event is taken back by another,
    `NEVER` for all others; None where nothing is taken back. A cut leaves out what was taken back before it, and does not tell
    what will be.
    """

    user: Int32
    item: Int32
    kind: Int8
    time: Int64
    users: Vocabulary
    items: Vocabulary
    user_born: Int64
    item_born: Int64
    kinds: Kinds
    undone: Int64 | None = None

    @classmethod
    def build(
        cls,
        user_ids: Ids,
        item_ids: Ids,
        kind: Int8 | Sequence[str],
        time: Int64,
        catalogue_ids: Ids | None = None,
        catalogue_time: Int64 | None = None,
        kinds: Kinds = RETAIL,
    ) -> "EventLog":
        """Number and sort raw events given in any row order. `kind`: names of `kinds`, or their numbers.

        `catalogue_ids` with `catalogue_time` name items and when each entered the catalogue (any number of rows an item).
        Equal times are ordered by user, item and kind, so that the order of rows in the file does not matter.

        Raises `ValueError` for a value that is no id.
        """
        user_code, user_values = encoded(user_ids)
        item_code, item_values = encoded(item_ids if catalogue_ids is None else joined(item_ids, catalogue_ids))
        n = len(time)
        number = np.asarray(kind)
        number = number if np.issubdtype(number.dtype, np.integer) else kinds.numbers(number)
        order = np.lexsort((number, item_code[:n], user_code, time))
        born_times = time if catalogue_time is None else np.concatenate([time, catalogue_time])
        user_number, user_order, user_born = number_by_first_time(user_code, time, len(user_values))
        item_number, item_order, item_born = number_by_first_time(item_code, born_times, len(item_values))
        user, item = user_number[user_code[order]], item_number[item_code[:n][order]]
        kind, time = number[order].astype(np.int8), np.asarray(time, dtype=np.int64)[order]
        return cls(
            user=user,
            item=item,
            kind=kind,
            time=time,
            users=Vocabulary(user_values[user_order]),
            items=Vocabulary(item_values[item_order]),
            user_born=user_born,
            item_born=item_born,
            kinds=kinds,
            undone=taken_back(kinds, user, item, kind, time) if kinds.undo else None,
        )

    def __len__(self) -> int:
        return len(self.time)

    @property
    def n_users(self) -> int:
        """Number of users that have appeared."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Number of items that have appeared, in an event or in the catalogue."""
        return len(self.items)

    def _before(self, t: int) -> "EventLog":
        """Of `Shop.before`: events with `time < t`, as a view, O(log n)."""
        return self._slice(0, int(np.searchsorted(self.time, t)), t)

    def between(self, start: int, end: int) -> "EventLog":
        """Events with `start <= time < end`, as a view; vocabularies as of `end`."""
        first, last = np.searchsorted(self.time, [start, end])
        return self._slice(int(first), int(max(first, last)), end)

    def _slice(self, first: int, last: int, t: int) -> "EventLog":
        n_users = int(np.searchsorted(self.user_born, t))
        n_items = int(np.searchsorted(self.item_born, t))
        part = self._rows(slice(first, last))
        part = part if part.undone is None else part.where(part.undone >= t)
        return replace(
            part,
            users=self.users.prefix(n_users),
            items=self.items.prefix(n_items),
            user_born=self.user_born[:n_users],
            item_born=self.item_born[:n_items],
            undone=None,
        )

    def where(self, keep: npt.NDArray[np.bool_]) -> "EventLog":
        """The events marked in `keep`, with unchanged numbers."""
        return self._rows(keep)

    def _rows(self, rows: slice | npt.NDArray[np.bool_]) -> "EventLog":
        undone = None if self.undone is None else self.undone[rows]
        columns = {name: getattr(self, name)[rows] for name in ("user", "item", "kind", "time")}
        return replace(self, **columns, undone=undone)

    def has_role(self, role: Role) -> npt.NDArray[np.bool_]:
        """Which events are of a kind with the role: `bool[n]`."""
        return self.kinds.with_role(role)[self.kind]

    def weigh(self, weights: KindWeights) -> npt.NDArray[np.float32]:
        """The weight of each event, see `Kinds.weights`: `float32[n]`."""
        return self.kinds.weights(weights)[self.kind]

    def continues(self, past: "EventLog") -> bool:
        """Whether the log begins with the events of `past`."""
        n = len(past)
        return len(self) >= n and all(
            np.array_equal(getattr(self, name)[:n], getattr(past, name)) for name in ("time", "user", "item", "kind")
        )

    @cached_property
    def by_user(self) -> tuple[Int64, Int64]:
        """Row pointers per user and event positions, each user's events oldest first."""
        order = np.argsort(self.user, kind="stable").astype(np.int64)
        return ragged.from_counts(np.bincount(self.user, minlength=self.n_users)), order

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the events under their own ids; the same for any row order of the same events."""
        digest = hashlib.blake2b(digest_size=16)
        for ids in (self.users.ids, self.items.ids):
            digest.update(pd.util.hash_array(np.asarray(ids)).tobytes())
        for array in (self.user, self.item, self.kind, self.time, self.user_born, self.item_born):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(repr(self.kinds).encode())
        return digest.hexdigest()


def number_by_first_time(code: Int64, time: Int64, n: int) -> tuple[Int32, Int64, Int64]:
    """Number codes by (first time, code): the number of each code, the codes in that order, their first times."""
    born = np.full(n, np.iinfo(np.int64).max)
    np.minimum.at(born, code, time)
    order = np.lexsort((np.arange(n), born))
    number = np.empty(n, dtype=np.int32)
    number[order] = np.arange(n, dtype=np.int32)
    return number, order, born[order]


def taken_back(
    kinds: Kinds, owner: Int32 | Int64, item: Int32, kind: Int8, time: Int64, counted: npt.NDArray[np.bool_] | None = None
) -> Int64:
    """The time at which each event is taken back, `NEVER` for one that is not: `int64[n]`.

    An event of a kind that undoes another takes back the newest one of that kind by the same `owner` with the same item that is
    left, at its own time or earlier. Of these events only the `counted` ones (`bool[n]`) take anything back.
    """
    from recsys.shop import _kernels

    undone, waiting = np.full(len(time), NEVER), np.empty(len(time), dtype=np.int64)
    pair = pair_key(owner, item)
    for taken in np.unique(kinds.undone_by[kinds.undone_by >= 0]):
        undoes = (kinds.undone_by == taken)[kind]
        rows = np.flatnonzero((undoes if counted is None else undoes & counted) | (kind == taken))
        rows = rows[np.isin(pair[rows], pair[undoes])]
        order = rows[np.lexsort((undoes[rows], time[rows], pair[rows]))]
        _kernels.match_undoing(order, pair, time, undoes, undone, waiting)
    return undone


def days(n: float) -> int:
    """`n` days in milliseconds."""
    return round(n * MILLISECONDS_PER_DAY)
