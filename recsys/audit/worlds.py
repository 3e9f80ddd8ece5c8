"""Worlds with the same past and another future: none at all, or a scrambled one.

What a recommender makes of the past of a cutoff has to be the same, to the last bit, whatever comes after it.
"""

from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from recsys.shop.attributes import Attributes
from recsys.shop.catalogue import CategoryTree
from recsys.shop.events import NEVER, EventLog, taken_back
from recsys.shop.identity import Vocabulary
from recsys.shop.shop import Shop

Whole = TypeVar("Whole", bound=np.integer)
Table = TypeVar("Table", bound=Attributes)


def without_future(world: Shop, cutoff: int) -> Shop:
    """The world as it was at `cutoff`: later events, births, changes, texts and categories are not there at all."""
    past, log = world.before(cutoff), world.log
    end, catalogue = int(np.searchsorted(log.time, cutoff)), past.catalogue
    return Shop(
        EventLog(
            log.user[:end].copy(),
            log.item[:end].copy(),
            log.kind[:end].copy(),
            log.time[:end].copy(),
            _cut(log.users, past.log.n_users),
            _cut(log.items, past.log.n_items),
            past.log.user_born.copy(),
            past.log.item_born.copy(),
            log.kinds,
            # What was taken back before the cutoff is still there at an earlier one.
            None if log.undone is None else np.where(log.undone[:end] < cutoff, log.undone[:end], NEVER),
        ),
        replace(_without_unused(catalogue), whole_tree=None if catalogue.whole_tree is None else catalogue.tree),
        _without_unused(past.customers),
    )


def scrambled_future(world: Shop, cutoff: int, seed: int = 0) -> Shop:
    """The same past, another future: from `cutoff` on users, items, kinds, times and attributes are drawn at random, and the
    ids, texts and categories that appear there have changed places.
    """
    draw = np.random.default_rng(seed)
    log, catalogue = world.log, world.catalogue
    first, known = int(np.searchsorted(log.time, cutoff)), world.before(cutoff)
    past = known.log

    def other(values: npt.NDArray[Whole], start: int, size: int) -> npt.NDArray[Whole]:
        tail = draw.integers(0, max(size, 1), len(values) - start).astype(values.dtype)
        return np.concatenate([values[:start], tail])

    def scrambled(attributes: Table) -> Table:
        change = int(np.searchsorted(attributes.time, cutoff))
        return replace(
            attributes,
            owner=other(attributes.owner, change, len(attributes.born)),
            time=attributes.time.copy(),
            prop=other(attributes.prop, change, len(attributes.properties)),
            value=other(attributes.value, change, len(attributes.texts)),
            properties=_shuffled(attributes.properties, _used(attributes.prop[:change]), draw),
            texts=_shuffled(attributes.texts, _used(attributes.value[:change]), draw),
            born=attributes.born.copy(),
        )

    times = np.sort(draw.integers(cutoff, max(int(log.time[-1]), cutoff) + 1, len(log) - first))
    user, item = other(log.user, first, log.n_users), other(log.item, first, log.n_items)
    kind, time = other(log.kind, first, len(log.kinds)), np.concatenate([log.time[:first], times])
    return Shop(
        EventLog(
            user,
            item,
            kind,
            time,
            _shuffled(log.users, past.n_users, draw),
            _shuffled(log.items, past.n_items, draw),
            log.user_born.copy(),
            log.item_born.copy(),
            log.kinds,
            taken_back(log.kinds, user, item, kind, time) if log.kinds.undo else None,
        ),
        replace(scrambled(catalogue), whole_tree=_other_tree(catalogue.whole_tree, known.catalogue.tree, draw)),
        scrambled(world.customers),
    )


def _without_unused(attributes: Table) -> Table:
    """The same changes as copies, with no text or property that none of them uses."""
    return replace(
        attributes,
        owner=attributes.owner.copy(),
        time=attributes.time.copy(),
        prop=attributes.prop.copy(),
        value=attributes.value.copy(),
        properties=_cut(attributes.properties, _used(attributes.prop)),
        texts=_cut(attributes.texts, _used(attributes.value)),
        born=attributes.born.copy(),
    )


def _other_tree(tree: CategoryTree | None, seen: CategoryTree, draw: np.random.Generator) -> CategoryTree | None:
    """The tree whose categories that are not `seen` have changed their names among them and are roots."""
    if tree is None:
        return None
    ids, parent = tree.category.ids.copy(), tree.parent.copy()
    hidden = seen.category.exactly(ids) < 0
    ids[hidden], parent[hidden] = draw.permutation(ids[hidden]), -1
    return CategoryTree(Vocabulary(ids), parent)


def _cut(vocabulary: Vocabulary, size: int) -> Vocabulary:
    return Vocabulary(vocabulary.ids[:size].copy())


def _shuffled(vocabulary: Vocabulary, start: int, draw: np.random.Generator) -> Vocabulary:
    """The same first `start` ids; those that come later in another order."""
    return Vocabulary(np.concatenate([vocabulary.ids[:start], draw.permutation(vocabulary.ids[start:])]))


def _used(numbers: npt.NDArray[np.integer]) -> int:
    return int(numbers.max(initial=-1)) + 1
