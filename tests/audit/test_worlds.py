"""Other worlds: what they keep, what they change, and that honest components see no difference."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cheats import CUTOFF, TEST, WORLD

from recsys.audit.disguise import YEARS, disguised, moved, renamed, uninformative_past
from recsys.audit.worlds import scrambled_future, without_future
from recsys.cli import CONFIGS
from recsys.component import construct
from recsys.datasets.synthetic import Synthetic
from recsys.digest import digest
from recsys.shop.catalogue import Catalogue, CategoryTree
from recsys.shop.events import NEVER, EventLog, days
from recsys.shop.kinds import Kinds
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop

PAST = without_future(WORLD, CUTOFF)
Composed = Callable[..., dict[str, Any]]


def test_the_past_of_a_world_without_future_is_the_same_past() -> None:
    for world in (PAST, scrambled_future(WORLD, CUTOFF)):
        assert world.before(CUTOFF).log.fingerprint == WORLD.before(CUTOFF).log.fingerprint
        assert world.before(CUTOFF).customers.fingerprint == WORLD.before(CUTOFF).customers.fingerprint
        assert np.array_equal(world.before(CUTOFF).catalogue.price, WORLD.before(CUTOFF).catalogue.price, equal_nan=True)
    assert PAST.log.time.max() < CUTOFF
    assert PAST.log.item.base is None
    assert len(PAST.catalogue) == len(WORLD.before(CUTOFF).catalogue)


def test_what_is_taken_back_later_is_not_known_before() -> None:
    kinds = Kinds.of({"buy": {"role": "purchase"}, "return": {"undoes": "buy"}})
    log = EventLog.build([1, 1, 2, 2], [7, 7, 7, 7], ["buy", "return", "buy", "return"], np.array([1, 3, 2, 9]), kinds=kinds)
    shop = Shop.of(log)
    assert without_future(shop, 5).log.undone.tolist() == [3, NEVER, NEVER]  # type: ignore[union-attr]
    for world in (without_future(shop, 5), scrambled_future(shop, 5)):
        for cutoff in (2, 3, 4, 5):
            assert world.before(cutoff).log.kind.tolist() == shop.before(cutoff).log.kind.tolist()


def test_a_scrambled_future_is_another_future() -> None:
    log = scrambled_future(WORLD, CUTOFF).log
    future = log.time >= CUTOFF
    assert future.sum() == (WORLD.log.time >= CUTOFF).sum()
    assert (log.item[future] == WORLD.log.item[future]).mean() < 0.05
    assert (np.diff(log.time) >= 0).all()


def test_other_worlds_have_other_customers() -> None:
    whole, past = WORLD.customers, WORLD.before(CUTOFF).customers
    gone, scrambled = without_future(WORLD, CUTOFF).customers, scrambled_future(WORLD, CUTOFF).customers
    assert gone.owner.base is None
    assert (len(gone), len(gone.texts), gone.n_users) == (len(past), len(past.texts), past.n_users)
    later = whole.time >= CUTOFF
    assert later.any()
    assert (scrambled.value[later] == whole.value[later]).mean() < 0.5
    swapped = uninformative_past(PAST)[0].customers
    assert np.array_equal(np.sort(swapped.value), np.sort(past.value))
    assert (swapped.latest("country") == past.latest("country")).mean() < 0.3
    assert (np.diff(swapped.time) >= 0).all()
    assert (swapped.time >= swapped.born[swapped.owner]).all()


def test_the_future_has_other_categories() -> None:
    draw = np.random.default_rng(0)
    log = EventLog.build(np.arange(50) % 5, np.arange(50) % 10, ["transaction"] * 50, np.arange(50) + 1)
    names = np.array(["a", "b", "c", "d", "e", "f"])
    rows = pd.DataFrame({"item": np.arange(10), "time": np.arange(10) * 5, "property": "c", "value": draw.choice(names, 10)})
    rows["time"] = np.maximum(rows["time"], log.item_born[log.items.numbers(rows["item"].to_numpy())])
    tree = CategoryTree.build([*names, "top", "unused"], [*["top"] * 4, "unused", "unused", None, None])
    world = Shop.of(log, Catalogue.build(log.items, log.item_born, rows, tree, category="c"))
    past = world.before(15).catalogue
    for other in (without_future(world, 15), scrambled_future(world, 15)):
        seen = other.before(15).catalogue
        assert list(seen.tree.category.ids) == list(past.tree.category.ids)
        assert list(seen.tree.parent) == list(past.tree.parent)
        assert list(seen.category) == list(past.category)
        assert other.catalogue.whole_tree is not None
        assert list(other.catalogue.whole_tree.category.ids) != list(tree.category.ids)


def test_renaming_keeps_numbers_and_order_and_leaves_no_name_where_it_was() -> None:
    other = renamed(PAST)
    for name in ("user", "item", "kind", "time"):
        assert np.array_equal(getattr(other.log, name), getattr(PAST.log, name))
    for old, new in ((PAST.log.users, other.log.users), (PAST.log.items, other.log.items)):
        assert set(new.ids.tolist()) == set(old.ids.tolist())
        assert (new.ids == old.ids).mean() < 0.05
    assert np.array_equal(other.catalogue.price, PAST.catalogue.price, equal_nan=True)
    before, after = (pd.Series(shop.catalogue.names()).str.split() for shop in (PAST, other))
    assert not (before == after).any()
    words, others = before.explode(), after.explode()
    assert np.array_equal(pd.factorize(words, sort=True)[0], pd.factorize(others, sort=True)[0])
    lower, lower_there = words.str.lower(), others.str.lower()
    assert np.array_equal(pd.factorize(lower, sort=True)[0], pd.factorize(lower_there, sort=True)[0])


def test_a_moved_world_has_the_same_calendar() -> None:
    time, later = (pd.to_datetime(shop.log.time, unit="ms") for shop in (PAST, moved(PAST)))
    for part in ("day_of_year", "day_of_week", "hour", "days_in_month"):
        assert np.array_equal(getattr(time, part), getattr(later, part))


def test_a_disguise_changes_every_number_and_keeps_the_order() -> None:
    there = disguised(PAST, CUTOFF, TEST.queries.user)
    log = there.shop.log
    for number in (there.user, there.item):
        kept = number[number >= 0]
        assert np.array_equal(kept, np.arange(len(kept)))
        assert number[0] == -1
        assert 0.9 < len(kept) / len(number) < 1
    assert (there.user[TEST.queries.user] >= 0).all()
    assert (np.diff(log.time) >= 0).all()
    assert (np.diff(log.user_born) >= 0).all()
    assert log.time.max() < CUTOFF + YEARS
    kept = (there.user[PAST.log.user] >= 0) & (there.item[PAST.log.item] >= 0)
    visits, left = np.bincount(PAST.log.user[kept]), np.bincount(log.user, minlength=log.n_users)
    assert set(visits[there.user >= 0] - left) == {0, 1}
    assert (visits[there.user >= 0] - left)[left >= 8].mean() > 0.9


def test_the_uninformative_past_is_natural_and_of_somebody_else() -> None:
    shop, number = uninformative_past(PAST)
    past, log, catalogue = PAST.log, shop.log, shop.catalogue
    assert np.array_equal(log.user, past.user)
    assert np.array_equal(log.time, past.time)
    counts = [np.sort(np.bincount(each.item, minlength=past.n_items)) for each in (past, log)]
    assert np.array_equal(*counts)
    assert (np.diff(log.item_born) >= 0).all()
    first = np.full(log.n_items, NEVER)
    np.minimum.at(first, np.concatenate([log.item, catalogue.owner]), np.concatenate([log.time, catalogue.time]))
    assert np.array_equal(first, log.item_born)
    assert np.array_equal(log.items.ids[number], past.items.ids)
    own = set(zip(past.user.tolist(), past.item.tolist(), strict=True))
    for names in (np.arange(past.n_items), np.argsort(number)):
        there = list(zip(log.user.tolist(), names[log.item].tolist(), strict=True))
        assert np.mean([pair in own for pair in there]) < 0.1


SHOP = Synthetic(scale=0.003).load()
NOW = int(SHOP.log.time[-1]) + 1


def retrievers() -> Iterator[str]:
    for file in sorted((CONFIGS / "retriever").glob("*.yaml")):
        if file.stem not in ("hybrid", "random"):
            yield file.stem


def queries(shop: Shop, now: int) -> Queries:
    users = np.unique(SHOP.log.user)[:200]
    return Queries.at(shop.before(now).log, users, now)


@pytest.mark.parametrize("name", ["random", *retrievers()])
def test_no_retriever_knows_names_or_dates(composed: Composed, name: str) -> None:
    settings = composed(f"retriever={name}")["retriever"]
    marks = []
    for shop, now in ((SHOP, NOW), (moved(renamed(SHOP)), NOW + YEARS)):
        retriever = construct(settings, "retriever")
        retriever.fit(shop.before(now))
        pool = retriever.pool(queries(shop, now), 50)
        marks.append(digest(pool.indptr, pool.item, pool.rank, pool.score, pool.fusion))
    assert marks[0] == marks[1]


def test_no_feature_knows_names_or_dates(composed: Composed) -> None:
    settings = composed("features=full")["features"]
    settings["families"] = list(settings["definitions"])
    values = []
    for shop, now in ((SHOP, NOW), (moved(renamed(SHOP)), NOW + YEARS)):
        retriever, features = construct(composed("retriever=popularity")["retriever"]), construct(settings, "features")
        past, asked = shop.before(now), queries(shop, now)
        retriever.fit(past)
        features.fit(past)
        matrix = features.compute(retriever.pool(asked, 50), asked)
        values.append(matrix.values)
    different = [name for i, name in enumerate(matrix.names) if digest(values[0][:, i]) != digest(values[1][:, i])]
    assert different == []


def test_days_of_a_world_stay_apart_in_a_disguise() -> None:
    log = EventLog.build(np.arange(300) % 30, np.arange(300) % 50, ["view"] * 300, days(1) * (np.arange(300) // 10))
    shop = Shop.of(log)
    there = disguised(shop, days(30), np.empty(0, dtype=np.int32)).shop
    assert set(there.log.time - YEARS) <= set(log.time)
