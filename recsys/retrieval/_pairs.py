"""Compiled counting of the pairs of events in each user's history."""

import numpy as np
from numba import njit

from recsys.retrieval._kernels import Float64
from recsys.shop.events import Int8, Int64
from recsys.shop.identity import Int32


@njit(cache=True, nogil=True)
def previous_events(user: Int32, n_users: int) -> Int64:
    """The event before each one of the same user, −1 for the first."""
    last = np.full(n_users, -1, dtype=np.int64)
    previous = np.empty(len(user), dtype=np.int64)
    for event in range(len(user)):
        previous[event] = last[user[event]]
        last[user[event]] = event
    return previous


@njit(cache=True, nogil=True)
def pairs_back(first: int, previous: Int64, time: Int64, max_steps: int, max_events: int, max_gap: int) -> Int64:
    """How many earlier events each event from `first` on is paired with.

    A step is a change of time: what happened at one instant, a basket, has no order, and all of it is as far.
    """
    count = np.zeros(len(time) - first, dtype=np.int64)
    for event in range(first, len(time)):
        steps, now, before = 0, time[event], previous[event]
        while before >= 0 and count[event - first] < max_events and time[event] - time[before] <= max_gap:
            if time[before] < now:
                steps, now = steps + 1, time[before]
                if steps > max_steps:
                    break
            count[event - first] += 1
            before = previous[before]
    return count


@njit(cache=True, nogil=True)
def write_pairs(
    first: int,
    back: Int64,
    previous: Int64,
    item: Int32,
    kind: Int8,
    time: Int64,
    age_weight: Float64,
    kind_weight: Float64,
    step_weight: Float64,
    gap_rate: float,
    backward: float,
    source: Int32,
    target: Int32,
    weight: Float64,
) -> int:
    """Write the pairs of the events from `first` on with the `back[n]` events before each; gives how many.

    `kind_weight[k, l]` is for kind `k` followed by kind `l`, `step_weight[d]` for `d` steps, `2^(−gap_rate · ms)` for the time
    between, `backward` for the same pair read backwards (1 in a basket). A pair of one item with itself is left out.
    """
    size = 0
    for n in range(len(back)):
        event = first + n
        steps, now, before = 0, time[event], previous[event]
        for _ in range(back[n]):
            if time[before] < now:
                steps, now = steps + 1, time[before]
            if item[before] != item[event]:
                shared = age_weight[n] * step_weight[steps] * np.exp2(-gap_rate * (time[event] - time[before]))
                forward = shared * kind_weight[kind[before], kind[event]]
                if forward > 0:
                    source[size], target[size], weight[size] = item[before], item[event], forward
                    size += 1
                reverse = shared * (backward if steps else 1.0) * kind_weight[kind[event], kind[before]]
                if reverse > 0:
                    source[size], target[size], weight[size] = item[event], item[before], reverse
                    size += 1
            before = previous[before]
    return size


@njit(cache=True, nogil=True)
def add_pairs(
    indptr: Int64, item: Int32, weight: Float64, source: Int32, target: Int32, pair_weight: Float64, n_rows: int
) -> tuple[Int64, Int32, Float64]:
    """The sparse rows with the pairs added.

    Sums run in the order of the pairs, and a row's items stand in order of first appearance: adding in parts changes no digit.
    """
    start = np.zeros(n_rows + 1, dtype=np.int64)
    for n in range(len(source)):
        start[source[n] + 1] += 1
    for row in range(n_rows):
        start[row + 1] += start[row]
    place, by_source = start[:-1].copy(), np.empty(len(source), dtype=np.int64)
    for n in range(len(source)):
        by_source[place[source[n]]] = n
        place[source[n]] += 1
    new_indptr = np.zeros(n_rows + 1, dtype=np.int64)
    new_item = np.empty(len(item) + len(source), dtype=np.int32)
    new_weight = np.empty(len(item) + len(source), dtype=np.float64)
    at = np.full(n_rows, -1, dtype=np.int64)
    size = 0
    for row in range(n_rows):
        begin = size
        if row < len(indptr) - 1:
            for n in range(indptr[row], indptr[row + 1]):
                new_item[size], new_weight[size] = item[n], weight[n]
                at[item[n]] = size
                size += 1
        for m in range(start[row], start[row + 1]):
            column = target[by_source[m]]
            if at[column] < begin:
                at[column] = size
                new_item[size], new_weight[size] = column, 0.0
                size += 1
            new_weight[at[column]] += pair_weight[by_source[m]]
        new_indptr[row + 1] = size
    return new_indptr, new_item[:size].copy(), new_weight[:size].copy()
