"""What the log bears out about a customer and a product: each fact with its evidence, computed for many pairs at once.

Days and weeks are UTC and end at the cutoff. Customers are distinct users; a customer is never counted among the "others".
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys.features.embedding import newest_items
from recsys.features.history import count_distinct, find
from recsys.shop import ragged
from recsys.shop.events import MILLISECONDS_PER_DAY, EventLog, Int64, days
from recsys.shop.identity import Int32
from recsys.shop.kinds import ROLES, Role
from recsys.shop.pairs import pair_key
from recsys.shop.queries import Queries

Bool = npt.NDArray[np.bool_]
Column = npt.NDArray[Any]

ANCHORS = 10
"""So many of the customer's newest distinct items are asked what goes with them."""
FEWEST_CUSTOMERS = 5
"""Fewer customers than this are no crowd, and could be guessed."""
FEWEST_IN_CATEGORY = 2
"""So many other products of a category are an interest in it."""
CATEGORY_PLACES, CATEGORY_SIZE = 10, 20
"""Popular in a category: among the first 10 of one with at least 20 products that anybody came to."""
SHOP_PLACES = 100
"""Popular in the shop: among so many first."""
RISE, FEWEST_RISING = 1.5, 10
"""Trending: at least 10 customers this week and half as many again as the week before."""
FEWEST_REPEATS = 3
"""Purchase days that make a cycle."""
WEEK, FOUR_WEEKS = 7, 28


@dataclass(frozen=True, eq=False)
class Pairs:
    """Distinct (query, item) pairs, in ascending order of `key`."""

    row: Int32
    item: Int32

    @cached_property
    def key(self) -> Int64:
        """See `pair_key`."""
        return pair_key(self.row, self.item)

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True, eq=False)
class Fact:
    """Where it `holds` (`bool[n]`, a value a pair), and the evidence: a column a name, of which the rest means nothing.

    Of the evidence, `since`, `last` and `until` are days since 1970, `item` is the number of another product, `category` that
    of a category; everything else is a count.
    """

    holds: Bool
    evidence: dict[str, Column]


class Facts:
    """Facts by code, from a log that ends before `cutoff`; `category` (`int32[n_items]`) is −1 where unknown."""

    def __init__(self, log: EventLog, cutoff: int, category: Int32) -> None:
        self.log, self.cutoff, self.category = log, cutoff, category

    def of(self, queries: Queries, pairs: Pairs) -> dict[str, Fact]:
        """Every fact about the pairs. The customer's own events are those of `queries`, all others those of the log."""
        n = len(pairs)
        place, met = find(pairs.key, pair_key(queries.row, queries.item))
        at, time = place[met], queries.event_time[met]
        viewed, carted, bought = (queries.has_role(role)[met] for role in ROLES)
        return {
            "in_cart": _in_cart(at, carted, bought, time, n),
            **_purchases(at[bought], time[bought], queries.time, n),
            "viewed": _times(*_instants(at[viewed], time[viewed]), n),
            "bought_together": self._together(queries, pairs, "purchase"),
            "viewed_together": self._together(queries, pairs, "view"),
            "bought_in_category": self._in_category(queries, pairs, "purchase"),
            "viewed_in_category": self._in_category(queries, pairs, "view"),
            **{code: _gathered(fact, pairs.item) for code, fact in self._of_items.items()},
        }

    @cached_property
    def _of_items(self) -> dict[str, Fact]:
        """What is true of an item for everybody."""
        until = np.full(self.log.n_items, (self.cutoff - 1) // MILLISECONDS_PER_DAY)
        this_week, last_week = self._customers(WEEK), self._customers(2 * WEEK, WEEK)
        rank, size = _places_within(self.category, this_week)
        leads = (self.category >= 0) & (rank <= CATEGORY_PLACES) & (size >= CATEGORY_SIZE)
        seen_before = len(self.log) > 0 and bool(self.log.time[0] <= self.cutoff - days(2 * WEEK))
        rising = seen_before & (this_week >= FEWEST_RISING) & (this_week >= RISE * last_week)
        in_category: dict[str, Column] = {"rank": rank, "customers": this_week, "category": self.category, "until": until}

        def first_of_shop(customers: Int64) -> Fact:
            place, _ = _places_within(np.zeros(len(customers), dtype=np.int32), customers)
            holds = (customers >= FEWEST_CUSTOMERS) & (place <= SHOP_PLACES)
            return Fact(holds, {"customers": customers, "rank": place, "until": until})

        return {
            "popular_in_category": Fact(leads & (this_week >= FEWEST_CUSTOMERS), in_category),
            "trending": Fact(rising, {"customers": this_week, "before": last_week, "until": until}),
            "bestseller": first_of_shop(self._customers(FOUR_WEEKS, role="purchase")),
            "popular": first_of_shop(self._customers(WEEK, role="view")),
        }

    def _customers(self, first_day: int, last_day: int = 0, role: Role | None = None) -> Int64:
        """Distinct users of each item from `first_day` to `last_day` days before the cutoff; returns do not count."""
        log = self.log.between(self.cutoff - days(first_day), self.cutoff - days(last_day))
        chosen = log.kinds.undone_by[log.kind] < 0 if role is None else log.has_role(role)
        return count_distinct(log.item[chosen], log.user[chosen], self.log.n_items)

    @cached_property
    def _customers_of(self) -> dict[Role, sparse.csr_matrix]:
        """1 for each (item, user) with an event of the role, one row per item."""
        matrices: dict[Role, sparse.csr_matrix] = {}
        roles: tuple[Role, ...] = ("purchase", "view")
        for role in roles:
            chosen = self.log.has_role(role)
            pairs = np.unique(pair_key(self.log.item[chosen], self.log.user[chosen]))
            ones, cell = np.ones(len(pairs), dtype=np.int32), (pairs >> 32, pairs & 0xFFFFFFFF)
            matrices[role] = sparse.csr_matrix((ones, cell), shape=(self.log.n_items, max(self.log.n_users, 1)))
        return matrices

    def _together(self, queries: Queries, pairs: Pairs, role: Role) -> Fact:
        """Other customers did with the product what this one did with another: the closest by cosine, then the newest.

        Evidence: the other `item`, how many `customers` did it with both.
        """
        customers = self._customers_of[role]
        row, anchor, age = newest_items(queries, ANCHORS, queries.has_role(role))
        known = anchor < customers.shape[0]
        row, anchor, age = row[known], anchor[known], age[known]
        indptr, link = ragged.take(ragged.from_sorted(row, len(queries)), pairs.row)
        pair = ragged.row_numbers(indptr)
        other = (pairs.item[pair] != anchor[link]) & (pairs.item[pair] < customers.shape[0])
        pair, link = pair[other], link[other]
        items, others = pairs.item[pair], anchor[link]
        count = _common(customers, items, others)
        user = queries.user[pairs.row[pair]]
        own = (user >= 0) & (user < customers.shape[1])
        known_user = np.where(own, user, 0)
        count -= own & (_cells(customers, items, known_user) & _cells(customers, others, known_user) > 0)
        crowd = np.flatnonzero(count >= FEWEST_CUSTOMERS)
        pair, link, items, others, count = pair[crowd], link[crowd], items[crowd], others[crowd], count[crowd]
        size = np.diff(customers.indptr)
        closeness = count / np.sqrt(size[items].astype(np.float64) * size[others])
        best_first = np.lexsort((age[link], -closeness, pair))
        chosen, first = np.unique(pair[best_first], return_index=True)
        best = best_first[first]
        return _fact(chosen, len(pairs), item=others[best], customers=count[best])

    def _in_category(self, queries: Queries, pairs: Pairs, role: Role) -> Fact:
        """How many other `products` of the product's `category` the customer did something with."""
        known = queries.has_role(role) & (queries.item < len(self.category))
        own = np.unique(pair_key(queries.row[known], queries.item[known]))
        row, item = own >> 32, own & 0xFFFFFFFF
        keys, count = np.unique(pair_key(row, self.category[item])[self.category[item] >= 0], return_counts=True)
        category: Int32 = np.append(self.category, np.int32(-1)).take(pairs.item, mode="clip")
        place, met = find(keys, pair_key(pairs.row, np.maximum(category, 0)))
        met &= category >= 0
        _, itself = find(own, pairs.key)
        products = np.zeros(len(pairs), dtype=np.int64)
        products[met] = count[place[met]] - itself[met]
        return Fact(products >= FEWEST_IN_CATEGORY, {"category": category, "products": products})


def _in_cart(at: Int64, carted: Bool, bought: Bool, time: Int64, n: int) -> Fact:
    """Put into the cart after any purchase; evidence: `since` when."""
    last_bought = np.full(n, np.iinfo(np.int64).min)
    np.maximum.at(last_bought, at[bought], time[bought])
    open_ = carted & (time > last_bought[at])
    since = np.full(n, np.iinfo(np.int64).max)
    np.minimum.at(since, at[open_], time[open_])
    return Fact(since < np.iinfo(np.int64).max, {"since": since // MILLISECONDS_PER_DAY})


def _purchases(at: Int64, time: Int64, now: int, n: int) -> dict[str, Fact]:
    """Bought before; and bought again and again, evenly enough (no gap above twice the mean), and it is about time."""
    day_at, day = _instants(at, time // MILLISECONDS_PER_DAY)
    gap = np.diff(day, prepend=day[:1])
    gap[np.diff(day_at, prepend=-1) != 0] = 0
    longest = np.zeros(n, dtype=np.int64)
    np.maximum.at(longest, day_at, gap)
    gaps = np.maximum(np.bincount(day_at, minlength=n) - 1, 1)
    mean = np.bincount(day_at, weights=gap, minlength=n) / gaps
    before = _times(*_instants(at, time), n)
    waited = now // MILLISECONDS_PER_DAY - before.evidence["last"]
    due = (gaps >= FEWEST_REPEATS - 1) & (mean >= 2) & (longest <= 2 * mean) & (waited >= 0.75 * mean) & (waited <= 2 * mean)
    every = np.rint(mean).astype(np.int64)
    return {
        "bought_before": before,
        "due_again": Fact(due, {"every_days": every, "last": before.evidence["last"], "times": before.evidence["times"]}),
    }


def _instants(at: Int64, time: Int64) -> tuple[Int64, Int64]:
    """Distinct times of each group, ascending."""
    order = np.lexsort((time, at))
    at, time = at[order], time[order]
    new = (np.diff(at, prepend=-1) != 0) | (np.diff(time, prepend=time[:1]) != 0)
    return at[new], time[new]


def _times(at: Int64, time: Int64, n: int) -> Fact:
    """How many `times` something happened, and the `last` day."""
    last = np.zeros(n, dtype=np.int64)
    last[at] = time // MILLISECONDS_PER_DAY
    times = np.bincount(at, minlength=n)
    return Fact(times > 0, {"times": times, "last": last})


def _places_within(group: Int32, count: Int64) -> tuple[Int64, Int64]:
    """Each item's place in its group by count (equal counts share the better one), and the group's items that have a count."""
    order = np.lexsort((-count, group))
    sorted_group, sorted_count = group[order], count[order]
    position = np.arange(len(order))
    starts = np.diff(sorted_group, prepend=-2) != 0
    start = np.maximum.accumulate(np.where(starts, position, 0)) if len(order) else position
    new = starts | (np.diff(sorted_count, prepend=-1) != 0)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = (np.maximum.accumulate(np.where(new, position, 0)) - start + 1) if len(order) else position
    size = np.bincount(group[(count > 0) & (group >= 0)], minlength=int(group.max(initial=-1)) + 1)
    return place, np.append(size, 0)[group]


def _common(customers: sparse.csr_matrix, left: Column, right: Column) -> Int64:
    """How many customers each `left` item shares with its `right` one."""
    rows, of_left = np.unique(left, return_inverse=True)
    columns, of_right = np.unique(right, return_inverse=True)
    return _cells((customers[rows] @ customers[columns].T).tocsr(), of_left, of_right)


def _cells(matrix: sparse.csr_matrix, row: Column, column: Column) -> Int64:
    """Single values of a sparse matrix: `int64[n]`."""
    if not len(row):
        return np.empty(0, dtype=np.int64)
    return np.asarray(matrix[row, column]).ravel().astype(np.int64)


def _fact(at: Int64, n: int, **evidence: Column) -> Fact:
    """A fact that holds for the pairs `at`, with the evidence of those only."""
    holds = np.zeros(n, dtype=bool)
    holds[at] = True
    columns = {}
    for name, values in evidence.items():
        columns[name] = np.zeros(n, dtype=np.int64)
        columns[name][at] = values
    return Fact(holds, columns)


def _gathered(fact: Fact, item: Int32) -> Fact:
    """What is true of items, for the pairs; an item that the log does not know has no fact."""
    known = item < len(fact.holds)
    at = np.where(known, item, 0)
    if not len(fact.holds):
        return Fact(known, {name: np.zeros(len(item), dtype=np.int64) for name in fact.evidence})
    return Fact(fact.holds[at] & known, {name: values[at] for name, values in fact.evidence.items()})
