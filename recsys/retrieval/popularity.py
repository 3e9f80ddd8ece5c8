"""What everybody wants just now."""

from typing import ClassVar

import numpy as np
from pydantic import Field, PositiveFloat

from recsys.component import State, component
from recsys.retrieval.base import Retriever
from recsys.shop import ragged
from recsys.shop.events import EventLog, days
from recsys.shop.kinds import SIGNAL_WEIGHTS, KindWeights
from recsys.shop.pools import Float32, Ranking
from recsys.shop.queries import Queries
from recsys.shop.reasons import SHOP, Codes
from recsys.shop.shop import Shop

BLOCK = 1024
"""Queries worked on at once."""


@component
class Popularity(Retriever):
    """Items by weighted number of events in the last days before the cutoff, the same for every query but for seen items."""

    name: ClassVar[str] = "popularity"
    speaks_for: ClassVar[Codes] = SHOP
    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """Weight of an event of each kind."""
    window_days: PositiveFloat | None = 7.0
    """Days before the last event that count; none: all."""

    def __post_init__(self) -> None:
        self.item = np.empty(0, dtype=np.int32)
        self.score = np.empty(0, dtype=np.float32)

    def fit(self, past: Shop) -> None:
        """Score the items by the log."""
        log = past.log
        score = self.scores(log)
        order = np.lexsort((np.arange(len(score)), -score))
        self.item = order[score[order] > 0].astype(np.int32)
        self.score = score[self.item]

    def scores(self, log: EventLog) -> Float32:
        """The score of each item, 0 for one that is not proposed: `float32[n_items]`."""
        end = int(log.time[-1]) + 1 if len(log) else 0
        start = 0 if self.window_days is None else end - days(self.window_days)
        return summed_weights(log, self.weights, start, end)

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        """The most popular items that `seen` allows."""
        items = np.full((len(queries), k), -1, dtype=np.int32)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        excluded = self.excluded(queries)
        row, place = excluded >> 32, np.empty(0, dtype=np.int64)
        if len(excluded):
            place_of = np.full(int(max(queries.item.max(), self.item.max(initial=-1))) + 1, -1, dtype=np.int64)
            place_of[self.item] = np.arange(len(self.item))
            place = place_of[excluded & 0xFFFFFFFF]
            row, place = row[place >= 0], place[place >= 0]
        indptr = ragged.from_sorted(row, len(queries))
        for start in range(0, len(queries), BLOCK):
            stop = min(start + BLOCK, len(queries))
            depth = min(k + int(np.diff(indptr[start : stop + 1]).max(initial=0)), len(self.item))
            allowed = np.ones((stop - start, depth), dtype=bool)
            gone = slice(indptr[start], indptr[stop])
            shallow = place[gone] < depth
            allowed[row[gone][shallow] - start, place[gone][shallow]] = False
            rank = np.cumsum(allowed, axis=1) - 1
            r, p = np.nonzero(allowed & (rank < k))
            items[start + r, rank[r, p]] = self.item[p]
            scores[start + r, rank[r, p]] = self.score[p]
        return Ranking(items, scores)

    def state(self) -> State:
        """Items in order, with their scores."""
        return {"item": self.item, "score": self.score}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.item, self.score = state["item"], state["score"]


def summed_weights(log: EventLog, weights: KindWeights, start: int, end: int) -> Float32:
    """Weight of the events with `start <= time < end`, summed over each item: `float32[n_items]`."""
    first, last = np.searchsorted(log.time, [start, end])
    weight = log.kinds.weights(weights)[log.kind[first:last]]
    return np.bincount(log.item[first:last], weights=weight, minlength=log.n_items).astype(np.float32)
