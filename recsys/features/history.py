"""What the families read off the histories of a block of queries."""

import numpy as np
import numpy.typing as npt

from recsys.shop.events import MILLISECONDS_PER_DAY
from recsys.shop.pairs import pair_key
from recsys.shop.queries import Queries

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.integer]

SESSION_GAP = 30 * 60 * 1000
"""Milliseconds without an event that end a session; the usual half hour."""


def ages(queries: Queries) -> Float64:
    """Days from each history event to the query's time."""
    return (queries.time - queries.event_time) / MILLISECONDS_PER_DAY


def sessions(queries: Queries) -> Int64:
    """Number of the session of each history event, ascending from 0; no session reaches over two queries."""
    if not len(queries.item):
        return np.empty(0, dtype=np.int64)
    starts = (np.diff(queries.event_time) > SESSION_GAP) | (np.diff(queries.row) > 0)
    return np.r_[0, np.cumsum(starts)].astype(np.int64)


def dwell(queries: Queries) -> Float64:
    """Seconds from each history event to the user's next one, at most the gap that ends a session; 0 at the end."""
    seconds = np.zeros(len(queries.item))
    if len(seconds) > 1:
        gap = np.minimum(np.diff(queries.event_time), SESSION_GAP) / 1000
        seconds[:-1] = np.where(np.diff(queries.row) == 0, gap, 0.0)
    return seconds


def count_distinct(groups: npt.NDArray[np.integer], values: npt.NDArray[np.integer], n: int) -> Int64:
    """Number of distinct `values` (≥ 0, below 2³²) in each of `n` groups."""
    return np.bincount(np.unique(pair_key(groups, values)) >> 32, minlength=n)


def smallest(groups: npt.NDArray[np.integer], values: Float64, n: int) -> Float64:
    """Least of the `values` of each of `n` groups; NaN for an empty group."""
    least = np.full(n, np.inf)
    np.minimum.at(least, groups, values)
    return np.where(np.isinf(least), np.nan, least)


def largest(groups: npt.NDArray[np.integer], values: Float64, n: int) -> Float64:
    """Greatest of the `values` of each of `n` groups; NaN for an empty group."""
    return -smallest(groups, -values, n)


def find(ascending: Int64, wanted: Int64) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Position of each wanted `pair_key` among the `ascending` ones, and whether it is there (else the position is any)."""
    from recsys.features import _kernels

    place, found = np.empty(len(wanted), dtype=np.int64), np.empty(len(wanted), dtype=bool)
    _kernels.find(ascending, wanted, place, found)
    return place, found
