"""Sources that know which items go with which: a query is answered by the neighbours of its own recent items."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from recsys.component import State, component
from recsys.retrieval._recent import RecentItems
from recsys.retrieval.base import Retriever
from recsys.retrieval.sparse import SparseRows
from recsys.shop.events import MILLISECONDS_PER_DAY, EventLog
from recsys.shop.kinds import SIGNAL_WEIGHTS, KindWeights
from recsys.shop.pairs import pair_key
from recsys.shop.pools import Ranking
from recsys.shop.queries import Queries
from recsys.shop.reasons import TASTE, Codes
from recsys.shop.shop import Shop


@component
class ItemToItem(Retriever):
    """score(b) = Σ over the query's items a of interest(a) · (M[a, b] + revisit · [a = b]); a subclass learns M.

    interest(a) = place(a)^−recency_power · Σ over the events with a of weight(kind) · 2^(−age / half-life). The place of an
    item counts the distinct instants of the query's items from the newest, 1 (the items of a basket share theirs). The winners
    of OTTO and H&M weigh a session by place, by age or by both.
    """

    speaks_for: ClassVar[Codes] = TASTE
    neighbours: PositiveInt = 200
    """Most neighbours that an item keeps."""
    revisit: NonNegativeFloat = 0.0
    """How much an item of the query points to itself, beside what M says."""
    query_weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """What an event of each kind in the query's history counts."""
    query_half_life_days: PositiveFloat | None = None
    """Days after which an event of the query counts half; none: age does not matter."""
    recency_power: NonNegativeFloat = 0.25
    """How fast interest falls with the place of an item in the history; 0: place does not matter."""
    query_items: PositiveInt = 200
    """So many of the query's newest items are asked for neighbours."""

    def __post_init__(self) -> None:
        self.matrix = SparseRows.empty()

    def fit(self, past: Shop) -> None:
        """Learn each item's neighbours."""
        log = past.log
        self.matrix = self.learn(log) if len(log) else SparseRows.empty()

    @abstractmethod
    def learn(self, log: EventLog) -> SparseRows:
        """The matrix M of a log with events: a row an item, at most `neighbours` entries each."""

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        """The items that the query's items point to most."""
        return self.interest(queries).times_top(self.matrix, k, self.revisit, banned(self, queries))

    def interest(self, queries: Queries) -> SparseRows:
        """How much each recent item of the query counts, items ascending in a row."""
        weight = queries.weigh(self.query_weights).astype(np.float64)
        if self.query_half_life_days is not None:
            age = (queries.time - queries.event_time) / MILLISECONDS_PER_DAY
            weight *= np.exp2(-age / self.query_half_life_days)
        recent = RecentItems.of(queries)
        total = np.bincount(recent.of_event, weights=weight, minlength=len(recent.item))
        total = total * (recent.place + 1.0) ** -self.recency_power
        kept = (recent.rank < self.query_items) & (total > 0)
        return SparseRows.from_sorted(recent.row[kept], recent.item[kept], total[kept], len(queries))

    def state(self) -> State:
        """The neighbours of each item."""
        return self.matrix.state()

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.matrix = SparseRows(**state)


def banned(retriever: Retriever, queries: Queries) -> SparseRows | None:
    """The items that `seen` forbids, a row a query; none where all may be proposed."""
    keys = retriever.excluded(queries)
    return SparseRows.from_sorted(keys >> 32, keys & 0xFFFFFFFF, np.ones(len(keys)), len(queries)) if len(keys) else None


def signals(log: EventLog, weights: KindWeights) -> tuple[SparseRows, int]:
    """The summed event weights of each (user, item) pair, a row a user, and the number of items."""
    weight = log.weigh(weights)
    keys, of_event = np.unique(pair_key(log.user, log.item)[weight > 0], return_inverse=True)
    total = np.bincount(of_event, weights=weight[weight > 0], minlength=len(keys))
    return SparseRows.from_sorted(keys >> 32, keys & 0xFFFFFFFF, total, log.n_users), log.n_items
