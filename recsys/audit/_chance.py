"""What chance would give: for telling whether lists and features know more of the truth than they could."""

import numpy as np
import numpy.typing as npt

from recsys.shop import ragged
from recsys.shop.events import Int64
from recsys.shop.identity import Int32
from recsys.shop.pairs import pair_key
from recsys.shop.queries import Truth

Float64 = npt.NDArray[np.float64]

LEAST_EDGE = 0.03
"""A smaller edge over one half is no finding, however certain."""
NEAR = 25
"""Two items whose numbers are at most so far apart were born at nearly the same time."""
BLOCKS = 20
"""An item is exchanged with one of its own twentieth of the numbers, since ties go by number and old items have low ones."""
ENOUGH = 30
"""Draws that reach what was observed, after which chance explains it."""
MOST_PAIRS = 2000
FEW, MANY = 499, 49_999
"""Random truths to compare with: a few, and many more where the few did not settle it."""


def hits_beyond_chance(
    found: Int64, truth: Truth, n_items: int, seed: int = 0, near: bool = False
) -> tuple[float, float, float]:
    """How many truth items are among the `found` pairs (ascending `pair_key`s), how many by chance, and the p-value.

    Chance is the same truth with each item replaced, wherever it stands, by a random one: an exact test (Fisher's) that holds
    however much the lists of different queries are alike. `near` replaces it by one of its neighbours, as often an older as
    a newer one: for numbers that tell the age of an item. At most 2,000 truth pairs are looked at.
    """
    draw = np.random.default_rng(seed)
    row, item = ragged.row_numbers(truth.indptr), truth.item
    known = np.flatnonzero((item < n_items) & (~near | (_room(item, n_items) > 0)))
    if len(known) > MOST_PAIRS:
        known = np.sort(draw.choice(known, MOST_PAIRS, replace=False))
    row, item = row[known], item[known]
    if not len(item) or not len(found):
        return 0.0, 0.0, 1.0
    distinct, of_pair = np.unique(item, return_inverse=True)
    edges = np.linspace(0, n_items, BLOCKS + 1).astype(np.int64)
    block = np.searchsorted(edges, distinct, side="right") - 1
    low, size = edges[block], np.diff(edges)[block]

    def hits(items: Int64) -> Int64:
        keys = pair_key(np.broadcast_to(row, items.shape), items)
        at = np.minimum(np.searchsorted(found, keys), len(found) - 1)
        return (found[at] == keys).sum(axis=-1)

    observed = int(hits(item.astype(np.int64)))
    drawn: list[Int64] = []
    for n in (FEW, MANY):
        for start in range(0, n, 500):
            count = min(500, n - start)
            others = low + (draw.random((count, len(distinct))) * size).astype(np.int64)
            if near:
                others = _neighbours(np.broadcast_to(distinct, others.shape), n_items, draw)
            drawn.append(hits(others[:, of_pair]))
            if sum(int((each >= observed).sum()) for each in drawn) > ENOUGH:
                break
        by_chance = np.concatenate(drawn)
        p = (1 + int((by_chance >= observed).sum())) / (1 + len(by_chance))
        if p > 0.02:
            break
    return float(observed), float(by_chance.mean()), p


def among_random(truth: Truth, n_items: int, each: int = 30, seed: int = 0, near: bool = False) -> tuple[Int64, Int32, Int64]:
    """Each distinct truth item once, for one of its queries, among `each` random items: rows and items, ascending, and the
    places of the truth items. At most 2,000 of them, no two for the same query. `near`: among its neighbours, in pairs of an
    older and a newer one that are as far away.
    """
    draw = np.random.default_rng(seed)
    shuffled = draw.permutation(np.flatnonzero((truth.item < n_items) & (~near | (_room(truth.item, n_items) > 2))))
    rows = ragged.row_numbers(truth.indptr).astype(np.int64)
    for values in (rows, truth.item):
        shuffled = shuffled[np.sort(np.unique(values[shuffled], return_index=True)[1])]
    chosen = shuffled[:MOST_PAIRS]
    row, item = rows[chosen], truth.item[chosen]
    own = pair_key(row, item)
    if near:
        away = np.arange(1, each // 2 + 1)
        within = away <= _room(item, n_items)[:, None]
        sides = [pair_key(row[:, None], item[:, None] + side * away) for side in (-1, 1)]
        within &= ~np.isin(sides[0], truth.key) & ~np.isin(sides[1], truth.key)
        others = np.concatenate([side[within] for side in sides])
    else:
        others = pair_key(np.repeat(row, each), draw.integers(0, max(n_items, 1), len(row) * each))
        others = others[~np.isin(others, truth.key)]
    keys = np.union1d(own, others)
    return keys >> 32, (keys & 0xFFFFFFFF).astype(np.int32), np.searchsorted(keys, np.sort(own))


def _room(item: Int32 | Int64, n_items: int) -> Int64:
    """How far away a neighbour may be, so that there is one on both sides."""
    return np.minimum(np.minimum(item, n_items - 1 - item), NEAR).astype(np.int64)


def _neighbours(item: Int64, n_items: int, draw: np.random.Generator) -> Int64:
    away = 1 + (draw.random(item.shape) * _room(item, n_items)).astype(np.int64)
    return item + np.where(draw.random(item.shape) < 0.5, away, -away)


def luck(row: npt.NDArray[np.integer], value: npt.NDArray[np.floating], chosen: Int64, seed: int = 0) -> float:
    """The p-value of `edge` by drawing other members of the rows: exact where few values of a column differ."""
    draw, places = np.random.default_rng(seed), percentile(row, value) - 0.5
    first = np.searchsorted(row, row[chosen])
    size = np.searchsorted(row, row[chosen], side="right") - first
    observed, count, beyond = abs(float(places[chosen].sum())), 0, 0
    while count < MANY and beyond <= ENOUGH:
        others = first + (draw.random((500, len(chosen))) * size).astype(np.int64)
        beyond += int((np.abs(places[others].sum(axis=1)) >= observed - 1e-9).sum())
        count += 500
    return (1 + beyond) / (1 + count)


def percentile(row: npt.NDArray[np.integer], value: npt.NDArray[np.floating]) -> Float64:
    """Place of each value among those of its row, from 0 (lowest) to 1, ties in the middle, NaN below all: `float64[n]`.

    `row` ascends. The mean over a row is one half.
    """
    value = np.where(np.isnan(value), -np.inf, value)
    order = np.lexsort((value, row))
    r, v = row[order], value[order]
    new = np.ones(len(r), dtype=bool)
    new[1:] = (r[1:] != r[:-1]) | (v[1:] != v[:-1])
    tie = np.cumsum(new) - 1
    place = np.arange(len(r), dtype=np.float64)
    middle = np.bincount(tie, weights=place)[tie] / np.bincount(tie)[tie]
    first = np.searchsorted(r, r)
    size = np.searchsorted(r, r, side="right") - first
    result = np.empty(len(r))
    result[order] = np.where(size > 1, (middle - first) / np.maximum(size - 1, 1), 0.5)
    return result


def edge(row: npt.NDArray[np.integer], value: npt.NDArray[np.floating], chosen: Int64) -> tuple[float, float]:
    """Mean `percentile` of one chosen row member each, and how many standard errors that is from one half.

    The standard error is that of drawing any member instead, so it is exact for ties and rare values alike.
    """
    places = percentile(row, value)
    _, group = np.unique(row, return_inverse=True)
    variance = np.bincount(group, weights=(places - 0.5) ** 2) / np.bincount(group)
    error = float(np.sqrt(variance[group[chosen]].sum()))
    above = float((places[chosen] - 0.5).sum())
    return 0.5 + above / max(len(chosen), 1), above / error if error > 0 else 0.0
