"""The distinct items of each query's history, and how recent they are."""

from dataclasses import dataclass

import numpy as np

from recsys.shop import ragged
from recsys.shop.events import Int64
from recsys.shop.identity import Int32
from recsys.shop.pairs import pair_key
from recsys.shop.queries import Queries


@dataclass(frozen=True, eq=False)
class RecentItems:
    """Parallel arrays, an entry a (query, item), ascending by both.

    `row`, `item`; `newest`: time of the last event with it; `rank`: its number in the query from the newest, 0, ties by item;
    `place`: the number of distinct times that are newer, so that a basket shares its place. `of_event` gives the entry of each
    event of the queries.
    """

    row: Int64
    item: Int32
    newest: Int64
    rank: Int64
    place: Int64
    of_event: Int64

    @classmethod
    def of(cls, queries: Queries) -> "RecentItems":
        """The distinct items of the queries."""
        keys, of_event = np.unique(pair_key(queries.row, queries.item), return_inverse=True)
        newest = np.full(len(keys), np.iinfo(np.int64).min)
        np.maximum.at(newest, of_event, queries.event_time)
        rank, place = rank_by_time(keys >> 32, newest, len(queries))
        return cls(keys >> 32, (keys & 0xFFFFFFFF).astype(np.int32), newest, rank, place, of_event)


def rank_by_time(row: Int64, time: Int64, n_rows: int) -> tuple[Int64, Int64]:
    """Of entries ascending by `row`: the rank of each in its row from the newest, 0, and its place, the rank of its time."""
    indptr = ragged.from_sorted(row, n_rows)
    order = ragged.descending(indptr, time)
    within = ragged.within_row(indptr)
    older = np.diff(time[order], prepend=0) != 0
    older[within == 0] = False
    instants = np.cumsum(older)
    counts = np.diff(indptr)
    rank, place = np.empty((2, len(row)), dtype=np.int64)
    rank[order] = within
    place[order] = instants - np.repeat(instants[indptr[:-1][counts > 0]], counts[counts > 0])
    return rank, place
