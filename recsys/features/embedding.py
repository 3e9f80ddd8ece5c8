"""Items as points: directions of a sparse matrix, and cosines to what a user did last."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from recsys.shop import ragged
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool, Float32
from recsys.shop.queries import Queries

Int64 = npt.NDArray[np.int64]


def unit_vectors(matrix: sparse.csr_matrix, dimensions: int, seed: int) -> Float32:
    """Each row of `matrix` in the space of its strongest singular directions, of length 1: `float32[n + 1, dimensions]`.

    Rows without a value are NaN, and so is the last one, which stands for rows that are not known. Truncated SVD by random
    projection (Halko, Martinsson and Tropp, SIAM Review 2011), on one thread, so that the same seed gives the same digits.
    """
    n, usable = matrix.shape[0], min(dimensions, *(size - 1 for size in matrix.shape))
    vectors = np.zeros((n + 1, dimensions), dtype=np.float32)
    if usable > 0 and matrix.nnz:
        with threadpool_limits(1, user_api="blas"):
            left, strength, _ = randomized_svd(matrix, usable, n_iter=3, random_state=seed)
        vectors[:-1, :usable] = left * strength
    return _normalised(vectors)


def newest_items(queries: Queries, k: int, chosen: npt.NDArray[np.bool_] | None = None) -> tuple[Int64, Int64, Int64]:
    """The last `k` distinct items of each query, of the `chosen` events if given, by query, newest first.

    Gives the query, the item and the place of each: the number of items that are newer. Items of one instant, a basket, share
    their place, so that all of it is last; where it begins within the last `k`, all of it is given.
    """
    events = np.arange(len(queries.item)) if chosen is None else np.flatnonzero(chosen)
    events = events[::-1]
    newest = events[np.unique(pair_key(queries.row[events], queries.item[events]), return_index=True)[1]]
    newest = newest[np.lexsort((-newest, queries.row[newest]))]
    row = queries.row[newest].astype(np.int64)
    within = ragged.within_row(ragged.from_sorted(row, len(queries)))
    position = np.arange(len(row))
    first = (within == 0) | (np.diff(queries.event_time[newest], prepend=0) != 0)
    place = within - (position - np.maximum.accumulate(np.where(first, position, 0)))
    keep = place < k
    return row[keep], queries.item[newest[keep]].astype(np.int64), place[keep]


def profiles(vectors: Float32, row: Int64, item: Int64, n: int) -> Float32:
    """Direction of the sum of each query's known item vectors: `float32[n, d]`, NaN without one."""
    of_item = vectors.take(item, axis=0, mode="clip")
    known = ~np.isnan(of_item[:, 0])
    places = np.flatnonzero(known)
    ones = np.ones(len(places), dtype=np.float32)
    sums = sparse.csr_matrix((ones, (row[known], np.arange(len(places)))), shape=(n, len(places)))
    return _normalised(np.asarray(sums @ of_item[known]))


def cosines(vectors: Float32, chosen: Sequence[Float32], pool: CandidatePool, out: Float32) -> None:
    """Fill each column of `out` with the candidates' cosines to one of the `chosen` profiles; NaN where either is unknown."""
    from recsys.features import _kernels

    _kernels.cosines(vectors, pool.item, pool.indptr, np.stack(chosen), out)


def _normalised(vectors: Float32) -> Float32:
    """Rows of length 1; a row that is (all but) 0 becomes NaN."""
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    return np.divide(vectors, length, out=np.full_like(vectors, np.nan), where=length > 1e-6)
