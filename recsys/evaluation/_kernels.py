"""Compiled inner loops over candidates."""

import numpy as np
import numpy.typing as npt
from numba import njit

from recsys.shop.events import Int64
from recsys.shop.identity import Int32

Floats = npt.NDArray[np.floating]


@njit(cache=True, nogil=True)
def places(indptr: Int64, row: Int32, at: Int64, score: Floats, fusion: Floats, place: Int64) -> None:
    """Fill `place` with 1 plus the number of candidates of the same query that precede candidate `at` (of query `row`).

    Equal scores go by `fusion`, and where that is equal too by item number: items ascend inside a query.
    """
    for n in range(len(at)):
        own, ahead = at[n], 1
        for rival in range(indptr[row[n]], indptr[row[n] + 1]):
            if score[rival] > score[own]:
                ahead += 1
            elif score[rival] == score[own]:
                ahead += fusion[rival] > fusion[own] or (fusion[rival] == fusion[own] and rival < own)
        place[n] = ahead
