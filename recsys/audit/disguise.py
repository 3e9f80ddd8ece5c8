"""Worlds that tell the same story in other words, and one that tells nothing.

An honest component knows a user or an item by what happened to it. Under other own ids, other texts and other dates it has to
give the same lists; under other numbers, lists as good. What knows them by name, by number or by date gives other ones, or
loses what it had gained. And where everybody has somebody else's past, nothing but chance may be left.
"""

import re
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from recsys.shop import ragged
from recsys.shop.attributes import Attributes
from recsys.shop.catalogue import Catalogue, CategoryTree
from recsys.shop.events import NEVER, EventLog, Int64, days, number_by_first_time, taken_back
from recsys.shop.identity import Int32, Vocabulary
from recsys.shop.pairs import pair_key
from recsys.shop.shop import Shop

Table = TypeVar("Table", bound=Attributes)

YEARS = days(28 * 365.25)
"""After 28 years dates have the same weekdays and leap years again, so that nothing that reads a calendar sees a difference."""
REMOVED = 0.02
"""Share of users and of items that a disguised world lacks."""
MANY_VISITS = 8
"""Users who came so often lack one visit in a disguised world."""
MOST_JITTER = 300_000
"""Most milliseconds by which a disguised world moves a time."""
APART = "!"
"""Stands before each letter of a renamed word: it sorts after a blank and before digits and letters, so that order stays."""


def renamed(world: Shop, seed: int = 0) -> Shop:
    """Own ids of users and of items have changed places; words of texts and categories are other words.

    Numbers stay, and so do births, the order of words, and which words are equal, in lower case too. Words that stand for
    numbers, such as prices, and the names of properties stay as they are, since components read them.
    """
    draw = np.random.default_rng(seed)
    log, catalogue = world.log, world.catalogue
    read = [name for name in (catalogue.price_property, catalogue.available_property) if name]
    of_numbers = np.isin(np.arange(len(catalogue.properties)), catalogue.properties.exactly(read))
    kept = _words(catalogue, catalogue.is_a("number") | of_numbers)
    kept |= _words(world.customers, world.customers.is_a("number"))
    order = np.array(sorted(kept), dtype=object)

    def other(found: "re.Match[str]") -> str:
        word = found[0]
        if word in kept:
            return word
        place = int(np.searchsorted(order, word)) if len(order) else 0
        return (order[place - 1] if place else "") + APART + APART.join(word)

    def texts(ids: Vocabulary) -> Vocabulary:
        return Vocabulary(np.array([re.sub(r"\S+", other, str(text)) for text in ids.ids], dtype=object))

    tree = catalogue.whole_tree
    return Shop(
        replace(log, users=Vocabulary(draw.permutation(log.users.ids)), items=Vocabulary(draw.permutation(log.items.ids))),
        replace(
            catalogue,
            texts=texts(catalogue.texts),
            whole_tree=None if tree is None else CategoryTree(texts(tree.category), tree.parent),
        ),
        replace(world.customers, texts=texts(world.customers.texts)),
    )


def moved(world: Shop, by: int = YEARS) -> Shop:
    """All times `by` milliseconds later."""
    log = world.log
    undone = None if log.undone is None else np.where(log.undone == NEVER, NEVER, log.undone + by)

    def later(table: Table) -> Table:
        return replace(table, time=table.time + by, born=table.born + by)

    return Shop(
        replace(log, time=log.time + by, user_born=log.user_born + by, item_born=log.item_born + by, undone=undone),
        later(world.catalogue),
        later(world.customers),
    )


@dataclass(frozen=True, eq=False)
class Disguised:
    """A disguised world. `user` and `item` give the new number of each old one, ascending, −1 where it was removed."""

    shop: Shop
    user: Int32
    item: Int32


def disguised(world: Shop, cutoff: int, spare: Int32, seed: int = 0) -> Disguised:
    """Renamed and moved, without a few users, items and visits, so that all numbers are others, and with times a little off.

    Number 0 is always among the removed. Users in `spare` stay where there are others. `cutoff` is the time before which all
    of `world` lies; no time is moved across it.
    """
    draw = np.random.default_rng(seed)
    log, tables = world.log, (world.catalogue, world.customers)
    may_go = np.setdiff1d(np.arange(log.n_users), spare)
    user = _without(log.n_users, may_go if len(may_go) else np.arange(log.n_users), draw)
    item = _without(log.n_items, np.arange(log.n_items), draw)
    kept = (user[log.user] >= 0) & (item[log.item] >= 0) & ~_one_visit(log, draw)
    times = np.unique(np.concatenate([log.time, *(each.time for each in tables), *(each.born for each in tables)]))
    room = np.minimum(np.diff(times, append=cutoff), MOST_JITTER)
    grain = max(int(np.gcd.reduce(times)), 1)
    later = times + (draw.random(len(times)) * np.maximum(room // grain, 1)).astype(np.int64) * grain

    def at(time: Int64) -> Int64:
        return np.where(time == NEVER, NEVER, later[np.minimum(np.searchsorted(times, time), len(times) - 1)])

    def left(table: Table, number: Int32) -> Table:
        rows = number[table.owner] >= 0
        return replace(
            table,
            owner=number[table.owner[rows]],
            time=at(table.time[rows]),
            prop=table.prop[rows],
            value=table.value[rows],
            born=at(table.born[number >= 0]),
        )

    catalogue, customers = left(world.catalogue, item), left(world.customers, user)
    events = replace(
        log,
        user=user[log.user[kept]],
        item=item[log.item[kept]],
        kind=log.kind[kept],
        time=at(log.time[kept]),
        users=Vocabulary(log.users.ids[user >= 0]),
        items=Vocabulary(log.items.ids[item >= 0]),
        user_born=customers.born,
        item_born=catalogue.born,
        undone=None if log.undone is None else at(log.undone[kept]),
    )
    return Disguised(moved(renamed(Shop(events, catalogue, customers), seed)), user, item)


def uninformative_past(world: Shop, seed: int = 0) -> tuple[Shop, Int32]:
    """Everybody has somebody else's past: items have changed places between users, attributes between items and between users.

    Users, times and kinds stay; each user has the sequence of another, or parts of two. Births look natural: an item is born
    with its first event or property there, and has the number that goes with it. Own ids have changed places as well. Gives
    the world and the number there of the own id of each item of `world`.
    """
    draw = np.random.default_rng(seed)
    log, catalogue = world.log, world.catalogue
    _, events = log.by_user
    best = None
    for _ in range(20):
        users = draw.permutation(log.n_users)
        rank = np.empty(log.n_users, dtype=np.int64)
        rank[users] = np.arange(log.n_users)
        giver = events[np.argsort(rank[log.user[events]], kind="stable")]
        own = int((log.user[giver] == log.user[events]).sum())
        if best is None or own < best[0]:
            best = own, giver
    assert best is not None
    item = np.empty_like(log.item)
    item[events] = log.item[best[1]]
    owner = draw.permutation(log.n_items).astype(np.int32)[catalogue.owner]
    label = draw.permutation(log.n_items)
    silent = np.setdiff1d(np.arange(log.n_items), np.concatenate([item, owner]))
    codes = label[np.concatenate([item, owner, silent])]
    times = np.concatenate([log.time, catalogue.time, draw.choice(log.item_born, len(silent))])
    number, order, born = number_by_first_time(codes, times, log.n_items)
    item, owner = number[label[item]], number[label[owner]]
    order_of_events = np.lexsort((log.kind, item, log.user, log.time))
    user, item, kind = log.user[order_of_events], item[order_of_events], log.kind[order_of_events]
    undone = taken_back(log.kinds, user, item, kind, log.time) if log.undone is not None else None
    items = Vocabulary(log.items.ids[order])
    shop = Shop(
        replace(log, user=user, item=item, kind=kind, items=items, item_born=born, undone=undone),
        replace(_of(catalogue, owner), born=born),
        _of(world.customers, draw.permutation(log.n_users).astype(np.int32)[world.customers.owner]),
    )
    return shop, number


def _one_visit(log: EventLog, draw: np.random.Generator) -> npt.NDArray[np.bool_]:
    """The events of one instant, not the first, of each user who came often."""
    visit, of_event = np.unique(pair_key(log.user, np.unique(log.time, return_inverse=True)[1]), return_inverse=True)
    indptr = ragged.from_sorted(visit >> 32, log.n_users)
    count = np.diff(indptr)
    chosen = indptr[:-1] + 1 + (draw.random(log.n_users) * np.maximum(count - 1, 1)).astype(np.int64)
    gone = np.zeros(len(visit) + 2, dtype=bool)
    gone[chosen[count >= MANY_VISITS]] = True
    return gone[of_event]


def _of(table: Table, owner: Int32) -> Table:
    """The changes of other owners, none before its owner is born."""
    time = table.time if isinstance(table, Catalogue) else np.maximum(table.time, table.born[owner])
    order = np.lexsort((table.value, owner, table.prop, time))
    return replace(table, owner=owner[order], time=time[order], prop=table.prop[order], value=table.value[order])


def _words(table: Attributes, chosen: npt.NDArray[np.bool_]) -> set[str]:
    """The words of the texts of the chosen properties."""
    used = np.unique(table.value[chosen[table.prop]]) if len(table) else np.empty(0, dtype=np.int32)
    return {word for text in table.texts.ids[used] for word in str(text).split()}


def _without(n: int, may_go: Int64, draw: np.random.Generator) -> Int32:
    """New numbers of `n` old ones, −1 for the first that may go and for a few more."""
    some = draw.choice(may_go, max(int(REMOVED * len(may_go)), 1), replace=False)
    gone = np.union1d(some, may_go[:1])
    number = np.full(n, -1, dtype=np.int32)
    left = np.setdiff1d(np.arange(n), gone)
    number[left] = np.arange(len(left), dtype=np.int32)
    return number
