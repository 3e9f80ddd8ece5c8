"""How the query's user shops."""

import numpy as np

from recsys.component import component
from recsys.events import KINDS, MILLISECONDS_PER_DAY, EventKind
from recsys.features.base import FeatureFamily
from recsys.pools import CandidatePool, Float32
from recsys.queries import Queries, pair_key


@component
class User(FeatureFamily):
    """Activity of a user, equal for all of a query's candidates: it tells a ranker which of the other columns to trust.

    - `<kind>s`: events of each kind; `items`: distinct items; `repeat`: events an item
    - `active_days`: distinct days with an event; `events_a_day`: events an active day
    - `days_since_last`, `days_since_first`, `days_since_purchase`: ages at the query's time (NaN: never)
    """

    def columns(self, sources: tuple[str, ...]) -> tuple[str, ...]:
        """See the class."""
        ages = ("days_since_last", "days_since_first", "days_since_purchase")
        return (*(f"{kind}s" for kind in KINDS), "items", "repeat", "active_days", "events_a_day", *ages)

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """One value a query, repeated over its candidates."""
        n = len(queries)
        row = queries.row
        age = (queries.time - queries.event_time) / MILLISECONDS_PER_DAY
        counts = [np.bincount(row[queries.kind == kind], minlength=n) for kind in EventKind]
        events = np.diff(queries.indptr)
        items = np.bincount(np.unique(pair_key(row, queries.item)) >> 32, minlength=n)
        active = np.bincount(np.unique(pair_key(row, queries.event_time // MILLISECONDS_PER_DAY)) >> 32, minlength=n)
        newest, oldest, purchase = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
        newest[row] = age
        oldest[row[::-1]] = age[::-1]
        bought = queries.kind == EventKind.transaction
        purchase[row[bought]] = age[bought]
        with np.errstate(invalid="ignore", divide="ignore"):
            per_query = [*counts, items, events / items, active, events / active, newest, oldest, purchase]
        for column, values in enumerate(per_query):
            out[:, column] = values[pool.row]
