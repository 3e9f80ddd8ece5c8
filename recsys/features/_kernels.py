"""Compiled inner loops over the candidates of a block, query by query.

Query `r` owns the candidates `indptr[r]:indptr[r + 1]`.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from recsys.shop.events import Int64
from recsys.shop.identity import Int32
from recsys.shop.pools import RRF_CONSTANT, Float32, Int16

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

NAN = np.float32(np.nan)


@njit(cache=True, nogil=True)
def find(ascending: Int64, wanted: Int64, place: Int64, found: Bool) -> None:
    """Fill `place` with the position of each wanted `pair_key` and `found` with whether it is there (else `place` is any).

    Fast where keys of one row follow one another: the row's stretch is looked up once.
    """
    row, first, size = np.int64(-2), 0, 0
    for n in range(len(wanted)):
        key = wanted[n]
        if key >> 32 != row:
            row = key >> 32
            first = np.searchsorted(ascending, row << 32)
            size = np.searchsorted(ascending, (row + 1) << 32) - first
        low, left = first, size
        while left > 0:
            half = left >> 1
            if ascending[low + half] < key:
                low += half + 1
                left -= half + 1
            else:
                left = half
        found[n] = low < first + size and ascending[low] == key
        place[n] = min(low, len(ascending) - 1)


@njit(cache=True, nogil=True)
def gather(table: Float32, item: Int32, out: Float32) -> None:
    """Fill `out` with the row of each item, the last row for an item beyond it, which the fit did not know."""
    for n in range(len(item)):
        at = min(item[n], len(table) - 1)
        for column in range(table.shape[1]):
            out[n, column] = table[at, column]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def cosines(vectors: Float32, item: Int32, indptr: Int64, profiles: Float32, out: Float32) -> None:
    """Fill a column of `out` for each of the `profiles` (`float32[p, q, d]`) with its product with the candidates' vectors.

    The last vector is that of an item that the fit did not know.
    """
    for row in range(len(indptr) - 1):
        for n in range(indptr[row], indptr[row + 1]):
            at = min(item[n], len(vectors) - 1)
            for column in range(len(profiles)):
                total = np.float32(0)
                for k in range(vectors.shape[1]):
                    total += vectors[at, k] * profiles[column, row, k]
                out[n, column] = total


@njit(cache=True, nogil=True, error_model="numpy")
def evidence(rank: Int16, score: Float32, indptr: Int64, out: Float32) -> None:
    """Fill the columns of `Source` but for the last."""
    n_sources, several, best_rank, mean_rank = len(rank), 4 * len(rank), 4 * len(rank) + 1, 4 * len(rank) + 2
    out[:, several], out[:, best_rank], out[:, mean_rank] = 0, np.inf, 0
    for s in range(n_sources):
        for row in range(len(indptr) - 1):
            best = NAN
            for n in range(indptr[row], indptr[row + 1]):
                if rank[s, n] == 1 and score[s, n] != 0:
                    best = abs(score[s, n])
            for n in range(indptr[row], indptr[row + 1]):
                r = np.float32(rank[s, n])
                out[n, 4 * s] = r if r > 0 else NAN
                out[n, 4 * s + 1] = np.float32(1) / (np.float32(RRF_CONSTANT) + r) if r > 0 else np.float32(0)
                out[n, 4 * s + 2] = score[s, n]
                out[n, 4 * s + 3] = score[s, n] / best
                if r > 0:
                    out[n, several] += 1
                    out[n, best_rank] = min(out[n, best_rank], r)
                    out[n, mean_rank] += r
    for n in range(len(out)):
        out[n, mean_rank] /= out[n, several]
        if out[n, several] == 0:
            out[n, best_rank] = NAN


@njit(cache=True, nogil=True, error_model="numpy")
def share_above(price: Float32, indptr: Int64, seen: Float64, seen_indptr: Int64, out: Float32) -> None:
    """Fill `out` with the part of the query's `seen` prices (ascending in a query) that are above each candidate's price."""
    for row in range(len(indptr) - 1):
        of_query = seen[seen_indptr[row] : seen_indptr[row + 1]]
        for n in range(indptr[row], indptr[row + 1]):
            above = len(of_query) - np.searchsorted(of_query, np.float64(price[n]), side="right")
            out[n] = NAN if np.isnan(price[n]) else above / len(of_query)


@njit(cache=True, nogil=True, error_model="numpy")
def relative(x: Float32, indptr: Int64, z: Float32, to_max: Float32) -> None:
    """Fill `z` and `to_max` as `WithinQuery` defines them, NaN where `x` is."""
    for row in range(len(indptr) - 1):
        first, last = indptr[row], indptr[row + 1]
        known, total, greatest, square = 0, 0.0, np.float32(0), 0.0
        for n in range(first, last):
            if not np.isnan(x[n]):
                known += 1
                total += np.float64(x[n])
                greatest = max(greatest, abs(x[n]))
        mean = np.float32(total / max(known, 1))
        for n in range(first, last):
            if not np.isnan(x[n]):
                centred = x[n] - mean
                square += np.float64(centred * centred)
        deviation = np.sqrt(square / max(known, 1))
        by_deviation = np.float32(1 / deviation) if deviation > 1e-12 else np.float32(0)
        by_greatest = np.float32(1) / greatest if greatest > 1e-12 else np.float32(0)
        for n in range(first, last):
            z[n] = (x[n] - mean) * by_deviation
            to_max[n] = x[n] * by_greatest


@njit(cache=True, nogil=True)
def greatest_first(x: Float32, bits: Int32, indptr: Int64, key: Int64) -> None:
    """Fill `key` with integers that ascend by query, then from the greatest `x` to the least, then NaN; `bits` are its bits."""
    for row in range(len(indptr) - 1):
        for n in range(indptr[row], indptr[row + 1]):
            value = np.int64(bits[n])
            if np.isnan(x[n]):
                value = np.int64(-(1 << 31))
            elif value < 0:
                value = -(value & 0x7FFFFFFF)
            key[n] = (np.int64(row) << 32) - value


@njit(cache=True, nogil=True)
def ranks(x: Float32, indptr: Int64, key: Int64, place: Int64, out: Float32) -> None:
    """Fill `out` with each candidate's rank in its query by `x`, over their number: equal ones share the first, NaN stays.

    `key` are those of `greatest_first`, sorted, and `place` says where each stood.
    """
    for row in range(len(indptr) - 1):
        first, last = indptr[row], indptr[row + 1]
        rank, share = first, np.float64(np.float32(1) / np.float32(max(last - first, 1)))
        for n in range(first, last):
            if key[n] != key[rank]:
                rank = n
            out[place[n]] = NAN if np.isnan(x[place[n]]) else np.float32((rank - first + 1) * share)
