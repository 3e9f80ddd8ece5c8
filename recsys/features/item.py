"""How the candidate does with everybody."""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveFloat

from recsys.catalogue import Catalogue
from recsys.component import State, component
from recsys.events import KINDS, MILLISECONDS_PER_DAY, EventKind, EventLog, days
from recsys.features.base import FeatureFamily, gather
from recsys.pools import CandidatePool, Float32
from recsys.queries import Queries


@component
class Item(FeatureFamily):
    """Activity, conversion and age of an item.

    - `<kind>s_<d>d`: log(1 + events of the kind in the last d days); `<kind>s`: the same over all time
    - `users`: log(1 + distinct users)
    - `trend`: (events of the shortest window + 1) / (of the longest + 1), per day
    - `conversion`: (transactions + m · p) / (events + m), p the shop's own rate, m = `smoothing`
    - `repeat`: events a distinct user
    - `days_since_last`, `age_days`: days since the newest event, and since the item appeared (log or catalogue)
    """

    windows_days: Annotated[list[PositiveFloat], Field(min_length=2)] = Field(default=[7.0, 28.0])
    """Windows before the cutoff, ascending."""
    smoothing: PositiveFloat = 20.0
    """Events' worth of the shop's own conversion rate."""

    def __post_init__(self) -> None:
        self.table = np.empty((0, len(self.columns(()))), dtype=np.float32)

    def columns(self, sources: tuple[str, ...]) -> tuple[str, ...]:
        """See the class."""
        counts = tuple(f"{kind}s_{window:g}d" for window in self.windows_days for kind in KINDS)
        return (
            *counts,
            *(f"{kind}s" for kind in KINDS),
            "users",
            "trend",
            "conversion",
            "repeat",
            "days_since_last",
            "age_days",
        )

    def fit(self, log: EventLog, catalogue: Catalogue) -> None:
        """One row of values an item; times are counted back from the newest event."""
        n = log.n_items
        end = int(log.time[-1]) + 1 if len(log) else 0
        counts = [_counts(log, end - days(window), n) for window in self.windows_days]
        total = _counts(log, None, n)
        events = total.sum(axis=1)
        users = np.bincount(np.unique(log.item.astype(np.int64) << 32 | log.user) >> 32, minlength=n)
        short, long = self.windows_days[0], self.windows_days[-1]
        trend = ((counts[0].sum(axis=1) + 1) / short) / ((counts[-1].sum(axis=1) + 1) / long)
        bought = total[:, EventKind.transaction]
        rate = bought.sum() / max(events.sum(), 1)
        newest = np.full(n, np.nan)
        newest[log.item] = log.time
        columns = [
            *np.log1p(np.hstack([*counts, total])).T,
            np.log1p(users),
            trend,
            (bought + self.smoothing * rate) / (events + self.smoothing),
            np.divide(events, users, out=np.full(n, np.nan), where=users > 0),
            (end - newest) / MILLISECONDS_PER_DAY,
            (end - log.item_born) / MILLISECONDS_PER_DAY,
        ]
        self.table = np.column_stack(columns).astype(np.float32)

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """Gather by item."""
        for column in range(self.table.shape[1]):
            out[:, column] = gather(self.table[:, column], pool.item, np.nan)

    def state(self) -> State:
        """The table of items."""
        return {"table": self.table}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.table = state["table"]


def _counts(log: EventLog, start: int | None, n: int) -> npt.NDArray[np.float64]:
    """Events of each item and kind since `start`: `float64[n, 3]`."""
    first = 0 if start is None else int(np.searchsorted(log.time, start))
    cell = log.item[first:].astype(np.int64) * len(KINDS) + log.kind[first:]
    return np.bincount(cell, minlength=n * len(KINDS)).reshape(n, len(KINDS)).astype(np.float64)
