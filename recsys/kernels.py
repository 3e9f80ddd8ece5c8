"""Compiled inner loops over ragged rows. Imported when first needed: the compiler behind them takes long to load."""

import numpy as np
import numpy.typing as npt
from numba import njit

IntArray = npt.NDArray[np.int64]


@njit(cache=True, nogil=True)
def sort_rows(indptr: IntArray, values: npt.NDArray[np.floating], order: IntArray) -> None:
    """Fill `order` with the positions of each row, the largest value first, equal ones in the order they have."""
    for row in range(len(indptr) - 1):
        start, stop = indptr[row], indptr[row + 1]
        order[start:stop] = start + np.argsort(-values[start:stop], kind="mergesort")
