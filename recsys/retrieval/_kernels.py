"""Compiled inner loops over sparse rows. Those given `first` and `stop` work on these rows and write nowhere else, so that
threads can share the rows.

A sparse matrix is `indptr: int64[rows + 1]`, `item: int32[n]` and `weight`, its entries of one row being distinct.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from recsys.shop.events import Int64
from recsys.shop.identity import Int32
from recsys.shop.pools import Float32

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]


@njit(cache=True, nogil=True)
def _worse(score_a: float, item_a: int, score_b: float, item_b: int) -> bool:
    return score_a < score_b or (score_a == score_b and item_a > item_b)


@njit(cache=True, nogil=True)
def _sink(item: Int32, score: Float32, place: int, size: int) -> None:
    """Restore the heap (worst on top) below `place`."""
    while True:
        child = 2 * place + 1
        if child >= size:
            return
        if child + 1 < size and _worse(score[child + 1], item[child + 1], score[child], item[child]):
            child += 1
        if _worse(score[place], item[place], score[child], item[child]):
            return
        score[place], score[child] = score[child], score[place]
        item[place], item[child] = item[child], item[place]
        place = child


@njit(cache=True, nogil=True)
def select(item: Int32, score: Float32, best_item: Int32, best_score: Float32) -> int:
    """Fill `best_item` with the best of `item`, best score first, ties by ascending item; gives how many there are."""
    k, size = len(best_item), min(len(best_item), len(item))
    best_item[:size], best_score[:size] = item[:size], score[:size]
    for place in range(size // 2 - 1, -1, -1):
        _sink(best_item, best_score, place, size)
    if k:
        for n in range(size, len(item)):
            if _worse(best_score[0], best_item[0], score[n], item[n]):
                best_item[0], best_score[0] = item[n], score[n]
                _sink(best_item, best_score, 0, k)
    for last in range(size - 1, 0, -1):
        best_score[0], best_score[last] = best_score[last], best_score[0]
        best_item[0], best_item[last] = best_item[last], best_item[0]
        _sink(best_item, best_score, 0, last)
    return size


@njit(cache=True, nogil=True)
def inner_products(left: Float32, right: Float32, place: Int32, total: Float32) -> None:
    """Fill `total` (`float32[q, k]`) with the products of row `r` of `left` and the rows `place[r]` of `right`, in float64."""
    for row in range(len(place)):
        for column in range(place.shape[1]):
            other = place[row, column]
            added = 0.0
            for n in range(left.shape[1]):
                added += np.float64(left[row, n]) * np.float64(right[other, n])
            total[row, column] = added


@njit(cache=True, nogil=True)
def order_lists(item: Int32, score: Float32) -> None:
    """Sort each row of both (`[q, k]`) by descending score, ties by item, in place: quick where they are nearly in order."""
    for row in range(len(item)):
        for n in range(1, item.shape[1]):
            this, value = item[row, n], score[row, n]
            place = n
            while place and _worse(score[row, place - 1], item[row, place - 1], value, this):
                item[row, place], score[row, place] = item[row, place - 1], score[row, place - 1]
                place -= 1
            item[row, place], score[row, place] = this, value


@njit(cache=True, nogil=True)
def prune(
    first: int,
    stop: int,
    indptr: Int64,
    item: Int32,
    weight: Float32,
    best_indptr: Int64,
    best_item: Int32,
    best_weight: Float32,
) -> None:
    """The heaviest entries of each row, as many as `best_indptr` has room for."""
    for row in range(first, stop):
        a, b, c, d = indptr[row], indptr[row + 1], best_indptr[row], best_indptr[row + 1]
        select(item[a:b], weight[a:b], best_item[c:d], best_weight[c:d])


@njit(cache=True, nogil=True)
def rank_reached(
    total: Float64,
    reached: Bool,
    columns: Int32,
    size: int,
    scores: Float32,
    banned: Int32,
    best_item: Int32,
    best_score: Float32,
) -> None:
    """Select among the `size` reached columns with a positive total those that are not banned, and clear what was reached."""
    for column in banned:
        if column < len(total):
            total[column] = 0.0
    kept = 0
    for n in range(size):
        column = columns[n]
        score = np.float32(total[column])
        total[column], reached[column] = 0.0, False
        if score > 0:
            columns[kept], scores[kept] = column, score
            kept += 1
    select(columns[:kept], scores[:kept], best_item, best_score)


@njit(cache=True, nogil=True)
def product_top(
    first: int,
    stop: int,
    query_indptr: Int64,
    query_item: Int32,
    query_weight: Float32,
    indptr: Int64,
    item: Int32,
    weight: Float32,
    own: float,
    n_columns: int,
    banned_indptr: Int64,
    banned: Int32,
    best_item: Int32,
    best_score: Float32,
) -> None:
    """The best columns of `query row · (matrix + own · identity)`; only positive sums count.

    `best_item` (`int32[q, k]`) comes filled with −1, `best_score` (`float32[q, k]`) with −inf.
    """
    total = np.zeros(n_columns, dtype=np.float64)
    reached = np.zeros(n_columns, dtype=np.bool_)
    columns = np.empty(n_columns, dtype=np.int32)
    scores = np.empty(n_columns, dtype=np.float32)
    for row in range(first, stop):
        size = 0
        for place in range(query_indptr[row], query_indptr[row + 1]):
            source, factor = query_item[place], query_weight[place]
            if source >= len(indptr) - 1:
                continue
            if own != 0:
                if not reached[source]:
                    reached[source] = True
                    columns[size] = source
                    size += 1
                total[source] += own * factor
            for n in range(indptr[source], indptr[source + 1]):
                column = item[n]
                if not reached[column]:
                    reached[column] = True
                    columns[size] = column
                    size += 1
                total[column] += factor * weight[n]
        gone = banned[banned_indptr[row] : banned_indptr[row + 1]]
        rank_reached(total, reached, columns, size, scores, gone, best_item[row], best_score[row])


@njit(cache=True, nogil=True)
def sessions_top(
    first: int,
    stop: int,
    query_indptr: Int64,
    query_item: Int32,
    query_weight: Float32,
    query_match: Float32,
    query_user: Int32,
    own_indptr: Int64,
    own_item: Int32,
    own_weight: Float32,
    indptr: Int64,
    item: Int32,
    place: Int32,
    weight: Float32,
    scale: Float32,
    user: Int32,
    held_indptr: Int64,
    held_by: Int32,
    held_place: Int32,
    sample_size: int,
    k: int,
    boost: float,
    distance_weight: Float32,
    item_gain: Float32,
    banned_indptr: Int64,
    banned: Int32,
    best_item: Int32,
    best_score: Float32,
) -> None:
    """The best items of the sessions nearest to each query, see `SessionKNN`.

    Query items stand newest first. Session `n` has `item`, `place`, `weight` at `indptr[n]:indptr[n + 1]`, a `scale` of its
    similarity and a `user`; item `i` is held by the sessions `held_by`, at `held_place`, newest session first.
    """
    n_sessions, n_columns = len(indptr) - 1, len(item_gain)
    likeness = np.zeros(n_sessions, dtype=np.float64)
    met = np.zeros(n_sessions, dtype=np.bool_)
    match, match_place = np.empty(n_sessions, dtype=np.float32), np.empty(n_sessions, dtype=np.int32)
    sessions, likenesses = np.empty(n_sessions, dtype=np.int32), np.empty(n_sessions, dtype=np.float32)
    nearest, nearness = np.empty(k, dtype=np.int32), np.empty(k, dtype=np.float32)
    total = np.zeros(n_columns, dtype=np.float64)
    reached = np.zeros(n_columns, dtype=np.bool_)
    columns, scores = np.empty(n_columns, dtype=np.int32), np.empty(n_columns, dtype=np.float32)
    for row in range(first, stop):
        n_met = 0
        for q in range(query_indptr[row], query_indptr[row + 1]):
            source = query_item[q]
            if source >= len(held_indptr) - 1:
                continue
            for h in range(held_indptr[source], min(held_indptr[source + 1], held_indptr[source] + sample_size)):
                session = held_by[h]
                if not met[session]:
                    met[session], match[session], match_place[session] = True, query_match[q], held_place[h]
                    sessions[n_met] = session
                    n_met += 1
                likeness[session] += query_weight[q]
        for n in range(n_met):
            session = sessions[n]
            own = 1 + boost if user[session] == query_user[row] else 1.0
            likenesses[n] = likeness[session] * scale[session] * own
            likeness[session], met[session] = 0.0, False
        size, best = 0, 0.0
        for n in range(select(sessions[:n_met], likenesses[:n_met], nearest, nearness)):
            session = nearest[n]
            for e in range(indptr[session], indptr[session + 1]):
                column = item[e]
                if not reached[column]:
                    reached[column] = True
                    columns[size] = column
                    size += 1
                distance = distance_weight[min(abs(place[e] - match_place[session]), len(distance_weight) - 1)]
                total[column] += nearness[n] * match[session] * distance * weight[e] * item_gain[column]
                best = max(best, total[column])
        for o in range(own_indptr[row], own_indptr[row + 1]):
            column = own_item[o]
            if not reached[column]:
                reached[column] = True
                columns[size] = column
                size += 1
            total[column] += own_weight[o] * (best if best > 0 else 1.0)
        gone = banned[banned_indptr[row] : banned_indptr[row + 1]]
        rank_reached(total, reached, columns, size, scores, gone, best_item[row], best_score[row])
