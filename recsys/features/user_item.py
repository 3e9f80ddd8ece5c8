"""What the query's user did with the candidate before."""

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveFloat

from recsys.component import component
from recsys.events import KINDS, MILLISECONDS_PER_DAY, EventKind
from recsys.features.base import FeatureFamily
from recsys.pools import CandidatePool, Float32
from recsys.queries import Queries, pair_key
from recsys.retrieval.base import SIGNAL_WEIGHTS, KindWeights, kind_weights


@component
class UserItem(FeatureFamily):
    """User × item history, the family with the largest gains for orders in every winning solution that we read.

    - `views`, `addtocarts`, `transactions`: number of events of each kind with the candidate
    - `days_since_last`, `days_since_first`: age of the newest and oldest of them (NaN: none)
    - `recency_rank`: 1 for the item the user touched last, 2 for the one before, … (NaN: never touched)
    - `weight_hl_<d>`: Σ over the events of weight(kind) · 2^(−age / d days)
    - `share`: part of the user's events that are with the candidate
    - `in_cart`: 1 when the newest cart event is later than any purchase of it
    """

    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """Weight of an event of each kind."""
    half_lives_days: list[PositiveFloat] = Field(default=[1.0, 7.0, 30.0])

    def columns(self, sources: tuple[str, ...]) -> tuple[str, ...]:
        """See the class."""
        decayed = tuple(f"weight_hl_{half_life:g}d" for half_life in self.half_lives_days)
        counts = tuple(f"{kind}s" for kind in KINDS)
        return (*counts, "days_since_last", "days_since_first", "recency_rank", *decayed, "share", "in_cart")

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """Sum the events of each (query, item) pair, then place the pairs among the candidates."""
        keys, of_event = np.unique(pair_key(queries.row, queries.item), return_inverse=True)
        n = len(keys)
        age = (queries.time - queries.event_time) / MILLISECONDS_PER_DAY
        last = np.full(n, np.inf)
        first = np.full(n, -np.inf)
        np.minimum.at(last, of_event, age)
        np.maximum.at(first, of_event, age)
        counts = [np.bincount(of_event[queries.kind == kind], minlength=n) for kind in EventKind]
        weight = kind_weights(self.weights)[queries.kind]
        decayed = [
            np.bincount(of_event, weights=weight * np.exp2(-age / half_life), minlength=n) for half_life in self.half_lives_days
        ]
        events = np.diff(queries.indptr)[(keys >> 32).astype(np.int64)]
        newest = {kind: _newest(of_event, age, queries.kind == kind, n) for kind in EventKind}
        in_cart = newest[EventKind.addtocart] < newest[EventKind.transaction]
        per_pair = [
            *counts,
            last,
            first,
            _recency_rank(keys >> 32, last),
            *decayed,
            np.bincount(of_event, minlength=n) / np.maximum(events, 1),
            in_cart,
        ]
        never = [0.0] * len(counts) + [np.nan] * 3 + [0.0] * (len(decayed) + 2)
        place = np.minimum(np.searchsorted(pool.key, keys), max(len(pool) - 1, 0))
        met = pool.key[place] == keys if len(pool) else np.zeros(n, dtype=bool)
        for column, (values, missing) in enumerate(zip(per_pair, never, strict=True)):
            out[:, column] = missing
            out[place[met], column] = values[met]


def _newest(
    of_event: npt.NDArray[np.integer], age: npt.NDArray[np.float64], chosen: npt.NDArray[np.bool_], n: int
) -> npt.NDArray[np.float64]:
    """Age of each pair's newest chosen event, infinite without one."""
    newest = np.full(n, np.inf)
    np.minimum.at(newest, of_event[chosen], age[chosen])
    return newest


def _recency_rank(row: npt.NDArray[np.int64], last: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 for the smallest age of each row; equal ages share the better rank. `row` ascends."""
    order = np.lexsort((last, row))
    place = np.arange(len(row), dtype=np.int64)
    new_row = np.r_[True, np.diff(row[order]) != 0] if len(row) else np.empty(0, dtype=bool)
    new_value = new_row | np.r_[True, np.diff(last[order]) != 0] if len(row) else new_row
    start = np.maximum.accumulate(np.where(new_row, place, 0))
    rank = np.empty(len(row))
    rank[order] = np.maximum.accumulate(np.where(new_value, place, 0)) - start + 1
    return rank
