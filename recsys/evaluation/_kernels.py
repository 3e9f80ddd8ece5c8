"""Compiled inner loops over candidates."""

import numpy as np
import numpy.typing as npt
from numba import njit

from recsys.shop.events import Int64
from recsys.shop.identity import Int32


@njit(cache=True, nogil=True)
def places(indptr: Int64, row: Int32, at: Int64, score: npt.NDArray[np.floating], place: Int64) -> None:
    """Fill `place` with 1 and the candidates of the same query that come before candidate `at` (of query `row`)."""
    for n in range(len(at)):
        own, ahead = at[n], 1
        for rival in range(indptr[row[n]], indptr[row[n] + 1]):  # items ascend inside a query
            ahead += score[rival] > score[own] or (score[rival] == score[own] and rival < own)
        place[n] = ahead
