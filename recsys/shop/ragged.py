"""Ragged rows (CSR without values): `indptr[r]:indptr[r + 1]` are the positions of row `r`."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def from_counts(counts: npt.NDArray[np.integer]) -> IntArray:
    """Row pointers of rows with these lengths: `int64[len(counts) + 1]`."""
    indptr = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=indptr[1:])
    return indptr


def from_sorted(rows: npt.NDArray[np.integer], n_rows: int) -> IntArray:
    """Row pointers where `rows` gives the row of each position, in ascending order."""
    return np.searchsorted(rows, np.arange(n_rows + 1)).astype(np.int64)


def row_numbers(indptr: IntArray) -> npt.NDArray[np.int32]:
    """The row of each position: `int32[indptr[-1]]`."""
    return np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))


def take(indptr: IntArray, rows: npt.NDArray[np.integer]) -> tuple[IntArray, IntArray]:
    """Pointers and old positions of the chosen rows, in the order given; a row of −1 is empty."""
    known = rows >= 0
    safe = np.where(known, rows, 0)
    starts = indptr[safe] if len(indptr) > 1 else np.zeros(len(rows), np.int64)
    ends = indptr[safe + 1] if len(indptr) > 1 else starts
    counts = np.where(known, ends - starts, 0)
    taken = from_counts(counts)
    positions = np.arange(taken[-1], dtype=np.int64) + np.repeat(starts - taken[:-1], counts)
    return taken, positions


def within_row(indptr: IntArray) -> IntArray:
    """Place of each position inside its row, from 0: `int64[indptr[-1]]`."""
    return np.arange(indptr[-1], dtype=np.int64) - np.repeat(indptr[:-1], np.diff(indptr))


def descending(indptr: IntArray, values: npt.NDArray[np.floating | np.signedinteger]) -> IntArray:
    """Positions by row, in a row the largest value first, equal ones in the order they have, NaN last: `int64[indptr[-1]]`."""
    from recsys.shop import _kernels

    order = np.empty(len(values), dtype=np.int64)
    _kernels.sort_rows(indptr, values, order)
    return order
