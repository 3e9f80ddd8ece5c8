"""Other worlds to run a recommender in: without the future, with another future, with a past that tells nothing.

What a recommender makes of the past of a cutoff has to be the same, to the last bit, whatever comes after it. And from a past
in which items have changed places it must not guess what was bought: what it still knows came from elsewhere.
"""

from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from recsys.shop.events import EventLog
from recsys.shop.identity import Vocabulary
from recsys.shop.shop import Shop

Whole = TypeVar("Whole", bound=np.integer)


def without_future(world: Shop, cutoff: int) -> Shop:
    """The world as it was at `cutoff`: later events, births, property changes and texts are not there at all."""
    past = world.before(cutoff)
    log, catalogue = past.log, past.catalogue
    return Shop(
        EventLog(
            log.user.copy(),
            log.item.copy(),
            log.kind.copy(),
            log.time.copy(),
            _cut(log.users, log.n_users),
            _cut(log.items, log.n_items),
            log.user_born.copy(),
            log.item_born.copy(),
            log.kinds,
            None if log.undone is None else log.undone.copy(),
        ),
        replace(
            catalogue,
            item=catalogue.item.copy(),
            time=catalogue.time.copy(),
            prop=catalogue.prop.copy(),
            value=catalogue.value.copy(),
            properties=_cut(catalogue.properties, _used(catalogue.prop)),
            texts=_cut(catalogue.texts, _used(catalogue.value)),
            item_born=catalogue.item_born.copy(),
        ),
    )


def scrambled_future(world: Shop, cutoff: int, seed: int = 0) -> Shop:
    """The same past, another future: from `cutoff` on users, items, kinds, times and property values are drawn at random,
    and the ids and texts that appear there have changed places.
    """
    draw = np.random.default_rng(seed)
    log, catalogue = world.log, world.catalogue
    first, change = int(np.searchsorted(log.time, cutoff)), int(np.searchsorted(catalogue.time, cutoff))
    past = world.before(cutoff).log

    def other(values: npt.NDArray[Whole], start: int, size: int) -> npt.NDArray[Whole]:
        tail = draw.integers(0, size, len(values) - start).astype(values.dtype)
        return np.concatenate([values[:start], tail])

    times = np.sort(draw.integers(cutoff, max(int(log.time[-1]), cutoff) + 1, len(log) - first))
    return Shop(
        EventLog(
            other(log.user, first, log.n_users),
            other(log.item, first, log.n_items),
            other(log.kind, first, len(log.kinds)),
            np.concatenate([log.time[:first], times]),
            _shuffled(log.users, past.n_users, draw),
            _shuffled(log.items, past.n_items, draw),
            log.user_born.copy(),
            log.item_born.copy(),
            log.kinds,
        ),
        replace(
            catalogue,
            item=other(catalogue.item, change, catalogue.n_items),
            time=catalogue.time.copy(),
            prop=other(catalogue.prop, change, max(len(catalogue.properties), 1)),
            value=other(catalogue.value, change, max(len(catalogue.texts), 1)),
            properties=_shuffled(catalogue.properties, _used(catalogue.prop[:change]), draw),
            texts=_shuffled(catalogue.texts, _used(catalogue.value[:change]), draw),
            item_born=catalogue.item_born.copy(),
        ),
    )


def uninformative_past(world: Shop, cutoff: int, seed: int = 0) -> Shop:
    """The past of `cutoff`, with items that have changed places at random, in events and catalogue alike; no future.

    Users, times and kinds stay, and so does all that can be learnt, of other items. All items are born with the first event.
    """
    past = without_future(world, cutoff)
    log, catalogue = past.log, past.catalogue
    place = np.random.default_rng(seed).permutation(log.n_items).astype(np.int32)
    item = place[log.item]
    order = np.lexsort((log.kind, item, log.user, log.time))
    born = np.full(log.n_items, min(log.time[0], log.item_born[0]) if len(log) else 0)
    return Shop(
        replace(log, user=log.user[order], item=item[order], kind=log.kind[order], item_born=born),
        replace(catalogue, item=place[catalogue.item], item_born=born),
    )


def _cut(vocabulary: Vocabulary, size: int) -> Vocabulary:
    return Vocabulary(vocabulary.ids[:size].copy())


def _shuffled(vocabulary: Vocabulary, start: int, draw: np.random.Generator) -> Vocabulary:
    """The same first `start` ids; those that come later in another order."""
    return Vocabulary(np.concatenate([vocabulary.ids[:start], draw.permutation(vocabulary.ids[start:])]))


def _used(numbers: npt.NDArray[np.integer]) -> int:
    return int(numbers.max(initial=-1)) + 1
