"""Compiled inner loops over ragged rows. Imported when first needed: the compiler behind them takes long to load."""

import numpy as np
import numpy.typing as npt
from numba import njit

IntArray = npt.NDArray[np.int64]

SHORT = 24
"""A row of so many is sorted by insertion, which needs no memory of its own."""


@njit(cache=True, nogil=True)
def sort_rows(indptr: IntArray, values: npt.NDArray[np.floating | np.signedinteger], order: IntArray) -> None:
    """Fill `order` with the positions of each row, the largest value first, equal ones in the order they have."""
    for row in range(len(indptr) - 1):
        start, stop = indptr[row], indptr[row + 1]
        if stop - start > SHORT:
            order[start:stop] = start + np.argsort(-values[start:stop], kind="mergesort")
            continue
        for n in range(start, stop):
            place = n
            while place > start and _before(values[n], values[order[place - 1]]):
                order[place] = order[place - 1]
                place -= 1
            order[place] = n


@njit(cache=True, nogil=True, inline="always")
def _before(a: float, b: float) -> bool:
    return a > b or (a == a and b != b)


@njit(cache=True, nogil=True)
def match_undoing(
    order: IntArray, pair: IntArray, time: IntArray, undoes: npt.NDArray[np.bool_], undone: IntArray, waiting: IntArray
) -> None:
    """Fill `undone` with the time at which each event is taken back, where one is.

    `order` runs through the events by `pair`, then time; an event with `undoes` takes back the newest one of its pair that is
    left. `waiting` is work space as long as `order`.
    """
    size, current = 0, np.int64(-1)
    for event in order:
        if pair[event] != current:
            size, current = 0, pair[event]
        if not undoes[event]:
            waiting[size] = event
            size += 1
        elif size:
            size -= 1
            undone[waiting[size]] = time[event]
