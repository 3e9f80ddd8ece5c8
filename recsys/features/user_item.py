"""What the query's user did with the candidate before."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveFloat

from recsys.component import State, component
from recsys.features.base import FeatureFamily
from recsys.features.history import ages, count_distinct, dwell, find, largest, sessions, smallest
from recsys.shop.events import MILLISECONDS_PER_DAY
from recsys.shop.kinds import SIGNAL_WEIGHTS, Kinds, KindWeights
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool, Float32
from recsys.shop.queries import Queries
from recsys.shop.reasons import OWN, Codes
from recsys.shop.shop import Shop

Float64 = npt.NDArray[np.float64]

NEVER_NAN = (
    "days_since_last",
    "days_since_first",
    "recency_rank",
    "sessions_since",
    "days_since_purchase",
    "cycle_days",
    "due",
    "order_share",
)
"""Columns that say nothing of an item the user never touched (or bought); the others are 0 there."""


@component
class UserItem(FeatureFamily):
    """User × item history, the family with the largest gains for orders in every winning solution that we read.

    - `views`, `carts`, `purchases`: number of events of each role with the candidate; `<kind>s`: of each kind without a role
    - `weight_hl_<d>d`: Σ over the events of weight(kind) · 2^(−age / d days)
    - `harmonic`: Σ over the events of 1 / (1 + ln(1 + age in seconds)) (shimacos, OTTO)
    - `share`: part of the user's events that are with the candidate
    - `sessions`: distinct sessions with it; `in_last_session`: 1 when the last one is among them
    - `dwell`: log(1 + Σ seconds to the user's next event, at most half an hour each)
    - `in_cart`: 1 when the newest cart event is later than any purchase of it
    - `days_since_last`, `days_since_first`: age of the newest and oldest event (NaN: none)
    - `recency_rank`: 1 for the item the user touched last, 2 for the one before, … (NaN: never touched)
    - `sessions_since`: the user's sessions after the newest one with it (NaN: never touched)
    - `purchase_days`: distinct days with a purchase of it; `days_since_purchase`: age of the newest (NaN: never)
    - `order_share`: `purchase_days` / the user's distinct purchase days since the first with it (Instacart's "by chance")
    - `cycle_days`: expected days between purchases of it: (own span + m · c) / (own gaps + m), where c is the item's mean gap
      over all users, itself shrunk to the shop's in the same way, and m = `smoothing`
    - `due`: `days_since_purchase` / `cycle_days`, 1 when it is time for the next (Onodera, Instacart 2017)
    """

    speaks_for: ClassVar[Mapping[str, Codes]] = {
        r"weight_.*|harmonic|share|days_since_(first|last)|recency_rank|in_last_session|sessions|sessions_since": OWN,
        r"in_cart|carts": frozenset({"in_cart"}),
        r"due|cycle_days": frozenset({"due_again"}),
        r"purchases|purchase_days|days_since_purchase|order_share": frozenset({"due_again", "bought_before"}),
        r"views|dwell": frozenset({"viewed"}),
    }
    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """Weight of an event of each kind."""
    half_lives_days: list[PositiveFloat] = Field(default=[0.25, 1.0, 7.0, 30.0, 90.0])
    smoothing: PositiveFloat = 2.0
    """Purchase gaps' worth of the wider mean that a cycle starts from."""

    def __post_init__(self) -> None:
        self.cycle = np.full(1, np.nan, dtype=np.float32)

    def columns(self, sources: tuple[str, ...], kinds: Kinds) -> tuple[str, ...]:
        """See the class."""
        return (
            *(f"{kind}s" for kind in kinds.columns),
            *(f"weight_hl_{half_life:g}d" for half_life in self.half_lives_days),
            *("harmonic", "share", "sessions", "in_last_session", "dwell", "in_cart", "purchase_days"),
            *NEVER_NAN,
        )

    def fit(self, past: Shop) -> None:
        """Mean days between two purchase days of one item by one user, of each item and of the shop."""
        log = past.log
        bought = log.has_role("purchase")
        day = log.time[bought] // MILLISECONDS_PER_DAY
        pair = pair_key(log.item[bought], log.user[bought])
        order = np.lexsort((day, pair))
        pair, day = pair[order], day[order]
        repeat = (np.diff(pair) == 0) & (np.diff(day) > 0)
        gap = np.diff(day)[repeat].astype(np.float64)
        item = pair[1:][repeat] >> 32
        shop = gap.mean() if len(gap) else np.nan
        total = np.bincount(item, weights=gap, minlength=log.n_items)
        count = np.bincount(item, minlength=log.n_items)
        of_item = (total + self.smoothing * shop) / (count + self.smoothing)
        self.cycle = np.append(of_item, shop).astype(np.float32)

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """Sum the events of each (query, item) pair, then place the pairs among the candidates."""
        keys, pair = np.unique(pair_key(queries.row, queries.item), return_inverse=True)
        values = self._of_pairs(queries, keys, pair)
        place, met = find(pool.key, keys)
        for column, name in enumerate(self.columns(pool.sources, queries.kinds)):
            out[:, column] = np.nan if name in NEVER_NAN else 0
            out[place[met], column] = values[name][met]

    def _of_pairs(self, queries: Queries, keys: npt.NDArray[np.int64], pair: npt.NDArray[np.intp]) -> dict[str, Float64]:
        """Every column, a value a (query, item) pair of the histories."""
        n, row, age, session = len(keys), (keys >> 32), ages(queries), sessions(queries)
        weight = queries.weigh(self.weights).astype(np.float64)
        last_session = np.zeros(len(queries), dtype=np.int64)
        last_session[queries.row] = session
        in_last = last_session[queries.row] == session
        last = smallest(pair, age, n)
        has_carted, has_bought = queries.has_role("cart"), queries.has_role("purchase")
        carted, bought = smallest(pair[has_carted], age[has_carted], n), smallest(pair[has_bought], age[has_bought], n)
        counted = queries.kinds.column[queries.kind]
        names = enumerate(queries.kinds.columns)
        columns = {f"{name}s": np.bincount(pair[counted == place], minlength=n) for place, name in names}
        for half_life in self.half_lives_days:
            columns[f"weight_hl_{half_life:g}d"] = np.bincount(pair, weight * np.exp2(-age / half_life), minlength=n)
        seconds = age * (MILLISECONDS_PER_DAY / 1000)
        return columns | {
            "harmonic": np.bincount(pair, 1 / (1 + np.log1p(seconds)), minlength=n),
            "share": np.bincount(pair, minlength=n) / np.diff(queries.indptr)[row],
            "sessions": count_distinct(pair, session, n),
            "in_last_session": np.bincount(pair, in_last, minlength=n) > 0,
            "dwell": np.log1p(np.bincount(pair, dwell(queries), minlength=n)),
            "in_cart": (carted < bought) | (np.isnan(bought) & ~np.isnan(carted)),
            "days_since_last": last,
            "days_since_first": largest(pair, age, n),
            "recency_rank": _recency_rank(row, last),
            "sessions_since": last_session[row] - largest(pair, session.astype(np.float64), n),
            "days_since_purchase": bought,
            **self._cycles(queries, keys, pair, bought),
        }

    def _cycles(
        self, queries: Queries, keys: npt.NDArray[np.int64], pair: npt.NDArray[np.intp], since: Float64
    ) -> dict[str, Float64]:
        """Repurchase columns of the pairs; `since` is the age of the newest purchase."""
        n, of_query = len(keys), keys >> 32
        buys = queries.has_role("purchase")
        day = queries.event_time[buys] // MILLISECONDS_PER_DAY
        row, pair = queries.row[buys], pair[buys]
        times = count_distinct(pair, day, n)
        first = smallest(pair, day.astype(np.float64), n)
        span = largest(pair, day.astype(np.float64), n) - first
        order_day = np.unique(pair_key(row, day))
        ever = times > 0
        wanted = pair_key(of_query[ever], first[ever].astype(np.int64))
        end = np.searchsorted(order_day, (of_query[ever] + 1) << 32)
        orders_since = np.full(n, np.nan)
        orders_since[ever] = end - np.searchsorted(order_day, wanted)
        usual = self.cycle.take(keys & 0xFFFFFFFF, mode="clip").astype(np.float64)
        cycle = (span + self.smoothing * usual) / (np.maximum(times - 1, 0) + self.smoothing)
        return {
            "purchase_days": times,
            "order_share": times / orders_since,
            "cycle_days": cycle,
            "due": since / np.maximum(cycle, 1.0),
        }

    def state(self) -> State:
        """Purchase cycles of the items, then the shop's, in days."""
        return {"cycle": self.cycle}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.cycle = state["cycle"]


def _recency_rank(row: npt.NDArray[np.int64], last: Float64) -> Float64:
    """1 for the smallest age of each row; equal ages share the better rank. `row` ascends."""
    order = np.lexsort((last, row))
    place = np.arange(len(row), dtype=np.int64)
    new_row = np.r_[True, np.diff(row[order]) != 0] if len(row) else np.empty(0, dtype=bool)
    new_value = new_row | np.r_[True, np.diff(last[order]) != 0] if len(row) else new_row
    start = np.maximum.accumulate(np.where(new_row, place, 0))
    rank = np.empty(len(row))
    rank[order] = np.maximum.accumulate(np.where(new_value, place, 0)) - start + 1
    return rank
