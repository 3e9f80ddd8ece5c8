"""How the query's user shops."""

import numpy as np

from recsys.component import State, component
from recsys.features.base import FeatureFamily, spread
from recsys.features.history import Float64, Int64, Rows, ages, count_distinct, largest, sessions, smallest
from recsys.shop.events import MILLISECONDS_PER_DAY
from recsys.shop.kinds import Kinds
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool, Float32
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop

COLUMNS = (
    *("items", "repeat", "active_days", "events_a_day"),
    *("days_since_last", "days_since_first", "days_since_purchase"),
    *("sessions", "events_a_session", "last_session_events"),
    *("cart_rate", "conversion", "events_7d_share"),
    *("purchase_days", "purchase_gap", "due", "items_a_purchase_day", "repurchase_share"),
    *("item_entropy", "category_entropy", "candidates"),
)


@component
class User(FeatureFamily):
    """Activity of a user, equal for all of a query's candidates: it tells a ranker which of the other columns to trust.

    - `views`, `carts`, `purchases`: events of each role; `<kind>s`: of each kind without one
    - `items`: distinct items; `repeat`: events per item
    - `active_days`: distinct days with an event; `events_a_day`: events an active day; `events_7d_share`: part of the events
      that are of the last 7 days
    - `days_since_last`, `days_since_first`, `days_since_purchase`: ages at the query's time (NaN: never)
    - `sessions`, `events_a_session`, `last_session_events`: sessions end after half an hour without an event
    - `cart_rate`, `conversion`: cart events and purchases per event
    - `purchase_days`: distinct days with a purchase; `purchase_gap`: mean days between them; `due`: `days_since_purchase` /
      `purchase_gap`; `items_a_purchase_day`: distinct (item, day) purchases a purchase day
    - `repurchase_share`: part of the distinct (item, day) purchases whose item was bought on an earlier day
    - `item_entropy`, `category_entropy`: −Σ p ln p over the user's events by item, and by category where it is known
    - `candidates`: how many the query has
    """

    def __post_init__(self) -> None:
        self.category = np.full(1, -1, dtype=np.int32)

    def columns(self, sources: tuple[str, ...], kinds: Kinds) -> tuple[str, ...]:
        """See the class."""
        return (*(f"{kind}s" for kind in kinds.columns), *COLUMNS)

    def fit(self, past: Shop) -> None:
        """Take the categories of items."""
        catalogue = past.catalogue
        self.category = np.append(catalogue.category, np.int32(-1))

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """One value a query, repeated over its candidates."""
        values = self._of_queries(queries) | {"candidates": np.diff(pool.indptr)}
        for column, name in enumerate(self.columns(pool.sources, queries.kinds)):
            spread(values[name], pool, out[:, column])

    def _of_queries(self, queries: Queries) -> dict[str, Float64 | Int64]:
        n, row, age, session = len(queries), queries.row, ages(queries), sessions(queries)
        events = np.diff(queries.indptr)
        counted, kinds = queries.kinds.column[queries.kind], enumerate(queries.kinds.columns)
        count = {kind: np.bincount(row[counted == place], minlength=n) for place, kind in kinds}
        items = count_distinct(row, queries.item, n)
        active = count_distinct(row, queries.event_time // MILLISECONDS_PER_DAY, n)
        n_sessions = count_distinct(row, session, n)
        last_session = largest(row, session.astype(np.float64), n)
        category = self.category.take(queries.item, mode="clip")
        known = category >= 0
        counts: dict[str, Float64 | Int64] = {f"{kind}s": of_kind for kind, of_kind in count.items()}
        with np.errstate(invalid="ignore", divide="ignore"):
            return counts | {
                "items": items,
                "repeat": events / items,
                "active_days": active,
                "events_a_day": events / active,
                "days_since_last": smallest(row, age, n),
                "days_since_first": largest(row, age, n),
                "sessions": n_sessions,
                "events_a_session": events / n_sessions,
                "last_session_events": np.bincount(row[last_session[row] == session], minlength=n),
                "cart_rate": count["cart"] / events,
                "conversion": count["purchase"] / events,
                "events_7d_share": np.bincount(row[age <= 7], minlength=n) / events,
                "item_entropy": _entropy(row, queries.item, n),
                "category_entropy": _entropy(row[known], category[known], n),
                **_purchases(queries, age),
            }

    def state(self) -> State:
        """Category of each item."""
        return {"category": self.category}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.category = state["category"]


def _purchases(queries: Queries, age: Float64) -> dict[str, Float64 | Int64]:
    """The rhythm of a user's purchase days. NaN where there is none."""
    n, buys = len(queries), queries.has_role("purchase")
    row, day = queries.row[buys], queries.event_time[buys] // MILLISECONDS_PER_DAY
    since = smallest(row, age[buys], n)
    purchase_days = count_distinct(row, day, n)
    span = largest(row, day.astype(np.float64), n) - smallest(row, day.astype(np.float64), n)
    pair = pair_key(row, queries.item[buys])
    bought_items = np.bincount(np.unique(pair) >> 32, minlength=n)
    of_pair = np.unique(pair, return_inverse=True)[1]
    baskets = np.bincount(row[np.unique(pair_key(of_pair, day), return_index=True)[1]], minlength=n)
    gap = np.divide(span, purchase_days - 1, out=np.full(n, np.nan), where=purchase_days > 1)
    return {
        "days_since_purchase": since,
        "purchase_days": purchase_days,
        "purchase_gap": gap,
        "due": since / gap,
        "items_a_purchase_day": baskets / purchase_days,
        "repurchase_share": (baskets - bought_items) / baskets,
    }


def _entropy(row: Rows, value: Rows, n: int) -> Float64:
    """−Σ p ln p of the values of each row, in nats; NaN without a value."""
    keys, count = np.unique(pair_key(row, value), return_counts=True)
    of_key = keys >> 32
    p = count / np.bincount(row, minlength=n)[of_key]
    entropy = np.bincount(of_key, weights=-p * np.log(p), minlength=n)
    return np.where(np.bincount(row, minlength=n) > 0, entropy, np.nan)
