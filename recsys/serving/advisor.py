"""Answers for people: known customers, visitors with a few recent events, and those of whom nothing is known."""

import time as clock
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recsys.delivery.letter import Reason
from recsys.delivery.reasons import Explainer
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import Popularity
from recsys.shop import ragged
from recsys.shop.events import NEVER, Int8, Int64, taken_back
from recsys.shop.identity import Ids, Int32
from recsys.shop.pools import Float32
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop

Reasons = tuple[Reason, ...]


@dataclass(frozen=True, eq=False)
class RecentEvents:
    """What users did that the model has not seen: event `j` is by the `row[j]`-th user asked about.

    `item`: own ids of the shop; `kind`: `int8[m]`, numbers into the kinds of the model's log; `time`: `int64[m]`, epoch
    milliseconds.
    """

    row: Int64
    item: Sequence[object] | Ids
    kind: Int8
    time: Int64


@dataclass(frozen=True, eq=False)
class Answers:
    """A list a user, under own ids. `item`: `object[q, k]`, None pads a short list; `score`: `float32[q, k]`.

    `fallback` (`bool[q]`) marks lists of what is popular, for users of whom nothing is known or the model proposes nothing to.
    `reasons` holds those of each item of each list, in its order.
    """

    item: npt.NDArray[np.object_]
    score: Float32
    fallback: npt.NDArray[np.bool_]
    reasons: list[list[Reasons]]


class Advisor:
    """Gives a fitted model's lists, and the list of what is popular (in the last four weeks of the model's past) elsewhere.

    A user without recent events is asked about at the model's cutoff, as in a batch; one with them at the time of the request,
    with these events added to what the model knows. Raises `NotFittedError` for a model that was neither fitted nor loaded.
    """

    def __init__(self, model: TwoStageRecommender, language: str = "en") -> None:
        self.model, self.history, self._language = model, model.history, language
        popular = Popularity(window_days=28)  # type: ignore[call-arg]
        popular.fit(Shop.of(self.history))
        self._popular = popular.item, popular.score

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer.of(self.model, self._language)

    def warm_up(self) -> None:
        """Do what the first question would wait for: compile, and build the look-up tables."""
        if not len(self.history):
            return
        user, item = self.history.users.ids[self.history.user[-1:]], self.history.items.ids[self.history.item[-1:]]
        event = RecentEvents(np.zeros(1, dtype=np.int64), item, self.history.kind[-1:], self.history.time[-1:])
        self.advise(user, 1, event, self.model.cutoff, reasons=1)

    def advise(
        self,
        users: Sequence[object] | Ids,
        k: int,
        recent: RecentEvents | None = None,
        time: int | None = None,
        reasons: int = 0,
    ) -> Answers:
        """The `k` best items for each user, by own ids (None: a visitor without one), with up to `reasons` reasons an item.

        `time` (epoch milliseconds) is when users with recent events ask; none: now, or just after the newest event. Events with
        items that the model does not know are left out. Raises `ValueError` for a time before the cutoff or an event not before
        the time.
        """
        n = len(users)
        item, score = np.full((n, k), -1, dtype=np.int32), np.full((n, k), -np.inf, dtype=np.float32)
        fallback, why = np.zeros(n, dtype=bool), [list[Reasons]()] * n
        for rows, queries in self._asked(users, recent, time):
            pool = self.model.pool(queries)
            features = self.model.describe(pool, queries)
            ranking = pool.order(self.model.ranker.score(features), k)
            fallback[rows] = alone = (np.diff(queries.indptr) == 0) | (ranking.item[:, 0] < 0)
            ranking.item[alone], ranking.score[alone] = -1, -np.inf
            for mine, popular in zip((ranking.item, ranking.score), self._popular, strict=True):
                mine[alone, : len(popular)] = popular[:k]
            item[rows], score[rows] = ranking.item, ranking.score
            if reasons:
                for row, told in zip(rows, self._explainer.explain(queries, ranking, reasons, features), strict=True):
                    why[row] = told
        return Answers(self.history.items.own(item), score, fallback, why)

    def _asked(
        self, users: Sequence[object] | Ids, recent: RecentEvents | None, time: int | None
    ) -> Iterator[tuple[Int64, Queries]]:
        """The users without recent events as queries at the cutoff, then those with them as queries at their time."""
        number = self.history.users.numbers(users)
        stored = Queries.at(self.history, number, self.model.cutoff)
        rows = np.arange(len(stored))
        if recent is None or not len(recent.row):
            yield rows, stored
            return
        now = max(int(clock.time() * 1000), int(recent.time.max()) + 1) if time is None else time
        if now < self.model.cutoff or recent.time.max() >= now:
            raise ValueError(f"wanted a time not before the cutoff ({self.model.cutoff}) and after every event, found {now}")
        fresh, row = np.unique(recent.row, return_inverse=True)
        if len(fresh) < len(rows):
            others = np.setdiff1d(rows, fresh)
            yield others, stored.take(others)
        item = self.history.items.numbers(recent.item)
        known = item >= 0
        events = (row[known], item[known], recent.kind[known], recent.time[known])
        yield fresh, _extended(stored.take(fresh), now, *events)


def _extended(queries: Queries, now: int, row: Int64, item: Int32, kind: Int8, time: Int64) -> Queries:
    """The queries at `now` with more events; one that a history holds already counts once, one taken back not at all."""
    rows, items = np.concatenate([queries.row, row]), np.concatenate([queries.item, item])
    kinds, times = np.concatenate([queries.kind, kind]), np.concatenate([queries.event_time, time])
    given = np.arange(len(rows)) >= len(queries.row)
    alike = np.lexsort((given, kinds, items, times, rows))
    differs = np.logical_or.reduce([np.diff(values[alike], prepend=-1) != 0 for values in (rows, items, kinds, times)])
    kept = np.zeros(len(rows), dtype=bool)
    kept[alike[differs]] = True
    if queries.kinds.undo:
        # What an event of the history took back is no longer there: where the request holds both, it takes that back again.
        again = np.zeros(len(rows), dtype=bool)
        again[alike[differs]] = np.logical_or.reduceat(given[alike], np.flatnonzero(differs))
        undoing = queries.kinds.undone_by[kinds] >= 0
        for among, counted in ((again & (given | undoing), ~given), (kept, given)):
            at = np.flatnonzero(kept & among)
            undone = taken_back(queries.kinds, rows[at], items[at], kinds[at], times[at], counted[at])
            kept[at] = undone == NEVER
    order = np.lexsort((times, rows))
    order = order[kept[order]]
    indptr = ragged.from_counts(np.bincount(rows[order], minlength=len(queries)))
    return Queries(queries.user, now, indptr, items[order], kinds[order], times[order], queries.kinds)


def told(reason: Reason) -> dict[str, str]:
    """A reason as plain values: its code and its text."""
    return {"code": reason.code, "text": reason.text}
