"""Event logs and queries made up by tests, with kinds written by name."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from hypothesis import strategies as st

from recsys.shop import ragged
from recsys.shop.events import EventLog
from recsys.shop.kinds import RETAIL, Kinds
from recsys.shop.queries import Queries

VIEW, CART, BUY = RETAIL.names
KIND = st.sampled_from(RETAIL.names)
Row = tuple[int, int, str, int]
"""User, item, kind, time."""


def log_of(rows: Sequence[tuple[object, object, str, float]], unit: int = 1, kinds: Kinds = RETAIL) -> EventLog:
    """From (user, item, kind, time in `unit` milliseconds)."""
    user, item, kind, time = zip(*rows, strict=True) if rows else ((),) * 4
    return EventLog.build(_ids(user), _ids(item), kind, (np.array(time) * unit).astype(np.int64), kinds=kinds)


def queries_of(histories: Sequence[Sequence[tuple[int, str, int]]], now: int, kinds: Kinds = RETAIL) -> Queries:
    """One visitor for each history of (item, kind, time)."""
    events = list(chain.from_iterable(histories))
    return Queries(
        np.full(len(histories), -1, dtype=np.int32),
        now,
        ragged.from_counts(np.array([len(history) for history in histories])),
        np.array([item for item, _, _ in events], dtype=np.int32),
        kinds.numbers([kind for _, kind, _ in events]),
        np.array([time for _, _, time in events], dtype=np.int64),
        kinds,
    )


def kinds_of(events: EventLog | Queries) -> list[str]:
    """The name of each event's kind."""
    return [events.kinds.names[kind] for kind in events.kind]


def _ids(values: Sequence[object]) -> np.ndarray:
    return np.array(values, dtype=object if any(isinstance(value, str) for value in values) else np.int64)
