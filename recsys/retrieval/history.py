"""The user's own items: the strongest simple source of next purchases, and the baseline to beat."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, PositiveFloat

from recsys.component import component
from recsys.retrieval.base import Retriever
from recsys.shop.events import MILLISECONDS_PER_DAY
from recsys.shop.kinds import SIGNAL_WEIGHTS, KindWeights
from recsys.shop.pairs import is_member, pair_key
from recsys.shop.pools import Ranking
from recsys.shop.queries import Queries
from recsys.shop.reasons import OWN, Codes
from recsys.shop.shop import Shop


@component
class History(Retriever):
    """Items of the query's history, newest and strongest first.

    score(i) = Σ over the events with i of weight(kind) · 2^(−age / half-life).

    Every winner of OTTO and H&M has this source; formulas differ in the decay only.
    """

    name: ClassVar[str] = "history"
    speaks_for: ClassVar[Codes] = OWN
    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """Weight of an event of each kind."""
    half_life_days: PositiveFloat = 30.0
    """Days after which an event counts half."""
    max_items: Annotated[int, Field(gt=0)] | None = None
    """Most items to propose; none: as many as asked for."""

    def fit(self, past: Shop) -> None:
        """Nothing to learn: the query brings its history."""

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        """The query's own items; shorter than `k` for most."""
        age = (queries.time - queries.event_time) / MILLISECONDS_PER_DAY
        weight = queries.weigh(self.weights) * np.exp2(-age / self.half_life_days)
        keys, of_event = np.unique(pair_key(queries.row, queries.item), return_inverse=True)
        score = np.bincount(of_event, weights=weight, minlength=len(keys))
        allowed = (score > 0) & ~is_member(keys, self.excluded(queries))
        keys, score = keys[allowed], score[allowed]
        best = Ranking.from_rows(keys >> 32, (keys & 0xFFFFFFFF).astype(np.int32), score.astype(np.float32), len(queries), k)
        if self.max_items is not None and self.max_items < k:
            best.item[:, self.max_items :] = -1
            best.score[:, self.max_items :] = -np.inf
        return best
