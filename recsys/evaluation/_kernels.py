"""Compiled inner loops over candidates."""

import numpy as np
import numpy.typing as npt
from numba import njit

from recsys.shop.events import Int64
from recsys.shop.identity import Int32
from recsys.shop.pools import MAX_RANK, Float64, Int16

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


@njit(cache=True, nogil=True)
def coalitions(
    first: int,
    last: int,
    indptr: Int64,
    rank: Int16,
    within: Float64,
    below: Float64,
    plan: Int64,
    bonus: float,
    fallback: Int64,
    target_indptr: Int64,
    at: Int64,
    budget: int,
    masks: Int64,
    found: npt.NDArray[np.bool_],
) -> None:
    """Fill `found[c, t]` for the targets of the queries `first` to `last`: does coalition `c` find candidate `at[t]`?

    Sums are exact, so that what a member adds can be taken back. `bonus` is more than any sum and lifts what the plan chooses.
    A member with `budget` candidates bars everything below its last one among these, which settles most cases at once.
    """
    n_sources, deep = len(rank), below.any()
    bars = np.zeros(n_sources)
    for q in range(first, last):
        start, n = indptr[q], indptr[q + 1] - indptr[q]
        targets = np.arange(target_indptr[q], target_indptr[q + 1])
        targets = targets[at[targets] >= 0]
        if not len(targets):
            continue
        ranks = rank[:, start : start + n]
        size, item = _lists(ranks)
        value = np.zeros(item.shape)
        for s in range(n_sources):
            for p in range(size[s]):
                value[s, p] = within[s, ranks[s, item[s, p]]]
            bars[s] = value[s, budget - 1] if size[s] >= budget else 0.0
        base, late, own_sum = np.zeros(n), np.zeros(n), np.zeros(len(targets))
        counted, summed = np.int64(0), np.int64(0)
        for c in range(len(masks)):
            mask, bar = masks[c], 0.0
            for s in range(n_sources):
                if mask >> s & 1:
                    bar = max(bar, bars[s])
                if (mask ^ counted) >> s & 1:
                    sign = 1.0 if mask >> s & 1 else -1.0
                    for t in range(len(targets)):
                        own_sum[t] += sign * within[s, rank[s, at[targets[t]]]]
            counted = mask
            if bar > 0 and (own_sum.max() < bar if len(plan) == 0 else own_sum.max() == 0):
                continue
            for s in range(n_sources):
                if (mask ^ summed) >> s & 1:
                    sign = 1.0 if mask >> s & 1 else -1.0
                    for p in range(size[s]):
                        base[item[s, p]] += sign * value[s, p]
                    if deep:
                        for p in range(size[s]):
                            late[item[s, p]] += sign * below[s, ranks[s, item[s, p]]]
            summed = mask
            key = _chosen(base, mask, plan, bonus, size, item) if len(plan) else base
            proposed, behind = np.int64(-1), np.zeros(0)
            for t in range(len(targets)):
                own = at[targets[t]] - start
                if own_sum[t] > 0:
                    if own_sum[t] >= bar or len(plan):
                        found[c, targets[t]] = _ahead(key, own) < budget
                elif bar == 0:
                    if proposed < 0:
                        proposed = (base > 0).sum()
                        behind = _behind(base, late, mask, fallback, ranks)
                    found[c, targets[t]] = behind[own] > -np.inf and proposed + _ahead(behind, own) < budget


@njit(cache=True, nogil=True)
def _lists(rank: Int16) -> tuple[Int64, Int64]:
    """How many candidates each source proposes, and which, by rank."""
    n_sources, n = rank.shape
    size, item = np.zeros(n_sources, np.int64), np.zeros((n_sources, n), np.int64)
    for s in range(n_sources):
        deepest = 0
        for i in range(n):
            deepest = max(deepest, rank[s, i])
        by_rank = np.full(deepest + 1, -1)
        for i in range(n):
            by_rank[rank[s, i]] = i
        for r in range(1, deepest + 1):
            if by_rank[r] >= 0:
                item[s, size[s]] = by_rank[r]
                size[s] += 1
    return size, item


@njit(cache=True, nogil=True)
def _chosen(base: Float64, mask: int, plan: Int64, bonus: float, size: Int64, item: Int64) -> Float64:
    """The sums, with the bonus for what the members' turns choose."""
    key, taken = base.copy(), np.zeros(len(base), np.bool_)
    reached = np.zeros(len(size), np.int64)
    for turn in range(len(plan)):
        s, places = plan[turn]
        if not mask >> s & 1:
            continue
        while places > 0 and reached[s] < size[s]:
            i = item[s, reached[s]]
            reached[s] += 1
            if not taken[i]:
                taken[i] = True
                places -= 1
                if base[i] > 0:
                    key[i] += bonus
    return key


@njit(cache=True, nogil=True)
def _behind(base: Float64, late: Float64, mask: int, fallback: Int64, rank: Int16) -> Float64:
    """The order of what has no sum: what lies below the depth, then what fallbacks propose; −∞ for what nobody does."""
    behind = np.full(len(base), -np.inf)
    for i in range(len(base)):
        if base[i] > 0:
            continue
        if late[i] > 0:
            behind[i] = late[i]
            continue
        for place in range(len(fallback)):
            s = fallback[place]
            if mask >> s & 1 and rank[s, i] > 0:
                behind[i] = -(place * float(MAX_RANK) + rank[s, i])
                break
    return behind


@njit(cache=True, nogil=True)
def _ahead(key: Float64, own: int) -> int:
    """How many come before one, ties by number."""
    ahead, value = 0, key[own]
    for i in range(own):
        ahead += key[i] >= value
    for i in range(own + 1, len(key)):
        ahead += key[i] > value
    return ahead
