"""Items that follow one another in users' histories."""

from typing import ClassVar

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from recsys.component import component
from recsys.errors import ConfigError
from recsys.retrieval.item_to_item import ItemToItem, banned
from recsys.retrieval.sparse import SparseRows
from recsys.shop import ragged
from recsys.shop.events import MILLISECONDS_PER_DAY, EventLog, days
from recsys.shop.kinds import SIGNAL_WEIGHTS, KindWeights
from recsys.shop.pools import Ranking
from recsys.shop.queries import Queries

BLOCK_PAIRS = 1 << 22
"""Pairs of events in memory at once, at about 32 bytes each."""
MOST_HALF_LIVES = 1000
"""Weights double with every half-life of the log's span; a float64 holds so many doublings."""


@component
class Covisitation(ItemToItem):
    """Directed, typed, decaying counts of item pairs in users' histories, the strongest single source of OTTO's winners.

    For every two events of a user, an earlier one with a and a later one with b ≠ a,

        n[a, b] += from(kind a) · to(kind b) · steps^−step_power · 2^(−gap / gap half-life) · 2^(−age / age half-life)

    and n[b, a] += backward · from(kind b) · to(kind a) · the same decays. A step is a change of time; what happened at one
    instant, a basket, has no order and pairs both ways as at one step. Gap is the time between the two, age that from the later
    one to the cutoff. Then M[a, b] is n[a, b] · popularity(b)^−popularity_power scaled to a sum of 1 a row, where popularity(b)
    is Σ_a n[a, b].

    A pair of an item with itself is not counted: how much a query's own item is worth against all of its neighbours together is
    `revisit`. With `hop2` the neighbours' neighbours count too: the `beam` best items of the first hop join the query with
    `hop2` times their score (mrkmakr, OTTO 1st, chains up to five hops so).

    Fitted again on a log that continues the last one, only the new events are counted; sums run in the order of events, so the
    result is that of a fresh fit to the last digit.
    """

    name: ClassVar[str] = "covisitation"
    from_weights: KindWeights = Field(default={"view": 1.0, "cart": 1.0, "purchase": 1.0})
    """Weight of a pair by the kind of the event that leads."""
    to_weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """Weight of a pair by the kind of the event that it leads to."""
    backward: NonNegativeFloat = 0.7
    """Weight of a pair read against time; 0: forward only (0.7: item CF of AutoX, H&M)."""
    max_steps: PositiveInt = 30
    """Farthest pair, in steps."""
    max_gap_days: PositiveFloat = 90.0
    """Farthest pair, in days."""
    max_events: PositiveInt = 100
    """Most earlier events that one event is paired with: bounds the time of a fit."""
    step_power: NonNegativeFloat = 1.0
    """How fast a pair loses weight with its steps; 0: not at all."""
    gap_half_life_days: PositiveFloat | None = None
    """Days between the two events that halve a pair's weight; none: the gap does not matter."""
    age_half_life_days: PositiveFloat | None = 30.0
    """Days before the cutoff that halve a pair's weight; none: age does not matter."""
    popularity_power: NonNegativeFloat = 0.4
    """Discount of popular targets; 0: none, 1: lift."""
    revisit: NonNegativeFloat = 1.0
    """How much an item of the query points to itself; all of its neighbours together have 1."""
    hop2: NonNegativeFloat = 0.3
    """Weight of the first hop's items as sources of a second; 0: one hop."""
    beam: PositiveInt = 20
    """How many items of the first hop are taken to the second."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counted: EventLog | None = None
        self._forget()

    def learn(self, log: EventLog) -> SparseRows:
        """Count the log's pairs, or those that are new since the last fit, and keep the strongest."""
        self._count(log)
        row = ragged.row_numbers(self._indptr)
        popularity = np.bincount(self._item, weights=self._weight, minlength=log.n_items)
        weight = self._weight * (popularity[self._item] / popularity.max(initial=0.0)) ** -self.popularity_power
        total = np.bincount(row, weights=weight, minlength=log.n_items)
        weight /= total[row]
        return SparseRows(self._indptr, self._item, weight.astype(np.float32)).pruned(self.neighbours)

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        """The items that the query's items lead to, in one hop or two."""
        interest = self.interest(queries)
        if self.hop2:
            first = interest.times_top(self.matrix, self.beam)
            interest = interest.plus(SparseRows.from_ranking(first), self.hop2)
        return interest.times_top(self.matrix, k, self.revisit, banned(self, queries))

    def _forget(self) -> None:
        self._indptr, self._item = np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int32)
        self._weight = np.empty(0, dtype=np.float64)

    def _count(self, log: EventLog) -> None:
        """Bring the counts from the events of the last fit to those of `log`."""
        from recsys.retrieval import _pairs

        age_weight = np.ones(len(log))
        if self.age_half_life_days is not None:
            half_lives = (log.time - log.time[0]) / (MILLISECONDS_PER_DAY * self.age_half_life_days)
            if half_lives[-1] > MOST_HALF_LIVES:
                span = half_lives[-1] * self.age_half_life_days
                raise ConfigError(
                    f"age_half_life_days: wanted at least {span / MOST_HALF_LIVES:.3g} for a log of {span:.0f} days,"
                    f" found {self.age_half_life_days:g}"
                )
            age_weight = np.exp2(half_lives)
        if self._counted is None or not log.continues(self._counted):
            self._counted = None
            self._forget()
        first = 0 if self._counted is None else len(self._counted)
        previous = _pairs.previous_events(log.user, log.n_users)
        back = _pairs.pairs_back(first, previous, log.time, self.max_steps, self.max_events, days(self.max_gap_days))
        of_kinds = np.outer(log.kinds.weights(self.from_weights), log.kinds.weights(self.to_weights)).astype(np.float64)
        of_steps = np.maximum(np.arange(self.max_steps + 1.0), 1.0) ** -self.step_power
        rate = 0.0 if self.gap_half_life_days is None else 1 / (MILLISECONDS_PER_DAY * self.gap_half_life_days)
        ends = ragged.from_counts(back)
        start = 0
        while start < len(back):
            stop = max(int(np.searchsorted(ends, ends[start] + BLOCK_PAIRS, side="right")) - 1, start + 1)
            room = 2 * int(ends[stop] - ends[start])
            source, target, weight = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.float64)
            size = _pairs.write_pairs(
                first + start, back[start:stop], previous, log.item, log.kind, log.time, age_weight[first + start :],
                of_kinds, of_steps, rate, self.backward, source, target, weight,
            )  # fmt: skip
            self._indptr, self._item, self._weight = _pairs.add_pairs(
                self._indptr, self._item, self._weight, source[:size], target[:size], weight[:size], log.n_items
            )
            start = stop
        self._counted = log
