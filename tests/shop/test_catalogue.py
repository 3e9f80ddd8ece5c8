import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.shop.catalogue import Catalogue, CategoryTree
from recsys.shop.identity import Vocabulary

ITEMS = ("a", "b", "c", "d")
BORN = np.arange(-4, 0)
CHANGE = st.tuples(st.sampled_from(ITEMS), st.integers(0, 9), st.sampled_from(("colour", "size")), st.sampled_from("xyz"))
CHANGES = st.lists(CHANGE, max_size=25)


def frame(changes):
    return pd.DataFrame(changes, columns=["item", "time", "property", "value"])


def catalogue(changes, tree=None, **roles):
    vocabulary = Vocabulary(np.array(ITEMS, dtype=object))
    return Catalogue.build(vocabulary, BORN, frame(changes), tree, **roles)


def values(of, name):
    """Text of a property by item, as the catalogue knows it."""
    return [None if n < 0 else of.texts.ids[n] for n in of.latest(name)]


@pytest.fixture
def tree():
    """1 ─ 2 ─ 3, and 9 by itself."""
    return CategoryTree.build(["3", "2", "1", "9"], ["2", "1", None, ""])


@pytest.fixture
def shop(tree):
    changes = [
        ("a", 10, "categoryid", "3"),
        ("a", 30, "categoryid", "9"),
        ("b", 20, "categoryid", "404"),
        ("a", 10, "790", "n15.500"),
        ("a", 20, "790", "12"),
        ("b", 20, "790", "dear"),
        ("a", 10, "available", "1"),
        ("b", 20, "available", "0"),
        ("a", 20, "title", "Lamp"),
    ]
    return catalogue(changes, tree, category="categoryid", price="790", available="available", name="title")


def test_properties_are_read_as_of_a_time(shop):
    assert values(shop._before(10), "790") == [None] * 4
    assert values(shop._before(11), "790") == ["n15.500", None, None, None]
    assert values(shop._before(20), "790") == ["n15.500", None, None, None]
    assert values(shop, "790") == ["12", "dear", None, None]


def test_items_born_later_are_not_counted(shop):
    assert [shop._before(t).n_items for t in (-4, -3, -1, 0, 99)] == [0, 1, 3, 4, 4]


def test_prices_are_numbers_with_or_without_an_n(shop):
    np.testing.assert_array_equal(shop._before(11).price, np.array([15.5, np.nan, np.nan, np.nan], dtype=np.float32))
    np.testing.assert_array_equal(shop.price, np.array([12, np.nan, np.nan, np.nan], dtype=np.float32))


def test_available(shop):
    np.testing.assert_array_equal(shop.available, np.array([1, 0, np.nan, np.nan], dtype=np.float32))


def test_names(shop):
    assert list(shop.names()) == ["Lamp", None, None, None]
    assert list(shop._before(20).names()) == [None] * 4


def test_categories_are_numbers_of_the_tree(shop):
    assert [shop.tree.category.ids[n] if n >= 0 else None for n in shop.category] == ["9", None, None, None]
    assert shop.tree.category.ids[shop._before(30).category[0]] == "3"


def test_a_past_shows_the_categories_that_items_had_by_then_and_those_above(shop):
    assert list(shop._before(10).tree.category.ids) == []
    assert list(shop._before(11).tree.category.ids) == ["1", "2", "3"]
    assert list(shop._before(11).tree.parent) == [-1, 0, 1]
    assert list(shop.tree.category.ids) == ["1", "2", "3", "9"]


def test_categories_of_the_future_poison_no_past():
    """Other names, parents and places of categories that no item has yet change nothing of the past."""
    changes = [("a", 1, "c", "m"), ("b", 2, "c", "k"), ("c", 9, "c", "z")]
    trees = [
        CategoryTree.build(["m", "k", "z", "never"], ["top", None, "top", None]),
        CategoryTree.build(["m", "k", "a", "b", "z"], ["top", None, "b", "z", "k"]),
    ]
    pasts = [catalogue(changes, tree, category="c")._before(5) for tree in trees]
    for past in pasts:
        assert list(past.tree.category.ids) == ["k", "m", "top"]
        assert list(past.tree.parent) == [-1, 2, -1]
        assert list(past.category) == [1, 0, -1, -1]
    assert list(catalogue(changes, trees[0], category="c").tree.category.ids) == ["k", "m", "top", "z"]


def test_categories_without_a_tree_are_roots():
    changes = [("a", 5, "kind", "mugs"), ("b", 4, "kind", "bags"), ("a", 1, "price", "mugs")]
    flat = catalogue(changes, category="kind")
    assert list(flat.tree.category.ids) == ["bags", "mugs"]
    assert list(flat.category) == [1, 0, -1, -1]
    assert list(flat.tree.parent_of(flat.category)) == [-1] * 4


def test_an_unknown_property_is_unknown_of_every_item(shop):
    assert list(shop.latest("weight")) == [-1] * 4
    assert list(shop.latest(None)) == [-1] * 4


@pytest.mark.parametrize("ids", [ITEMS, (1, 2, 3, 4)])
def test_an_empty_catalogue_knows_nothing(ids):
    empty = Catalogue.empty(Vocabulary(np.array(ids)), BORN)
    assert len(empty) == len(empty.tree) == 0
    assert np.isnan(empty.price).all()
    assert np.isnan(empty.available).all()
    assert list(empty.names()) == [None] * 4
    assert list(empty.category) == [-1] * 4
    assert empty._before(-2).n_items == 2


def test_of_two_changes_at_one_time_the_greater_text_holds():
    assert values(catalogue([("a", 5, "colour", "red"), ("a", 5, "colour", "blue")]), "colour")[0] == "red"


@given(CHANGES, st.integers(0, 10))
def test_latest_is_the_newest_change_before_the_time(changes, t):
    known = {}
    for item, time, name, value in sorted(changes, key=lambda change: (change[1], change[3])):
        if time < t:
            known[item, name] = value
    seen = catalogue(changes)._before(t)
    for name in ("colour", "size"):
        assert values(seen, name) == [known.get((item, name)) for item in ITEMS]


@given(CHANGES, st.integers(0, 10))
def test_the_past_keeps_its_numbers_whatever_comes_later(changes, t):
    past = catalogue([change for change in changes if change[1] < t])
    seen = catalogue(changes)._before(t)
    for name in ("owner", "time", "prop", "value"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(past, name), err_msg=name)
    assert list(seen.texts.ids[: len(past.texts)]) == list(past.texts.ids)
    assert list(seen.properties.ids[: len(past.properties)]) == list(past.properties.ids)


@given(CHANGES, st.randoms())
def test_row_order_and_encoding_do_not_matter(changes, random):
    shuffled = frame(random.sample(changes, len(changes))).astype({"property": "category", "value": "category"})
    shuffled["value"] = shuffled["value"].cat.set_categories(["unused", "z", "y", "x"])
    a, b = catalogue(changes), Catalogue.build(Vocabulary(np.array(ITEMS, dtype=object)), BORN, shuffled)
    for name in ("owner", "time", "prop", "value"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert list(a.texts.ids) == list(b.texts.ids)
    assert list(a.properties.ids) == list(b.properties.ids)


def test_parents(tree):
    assert list(tree.category.ids) == ["1", "2", "3", "9"]
    assert list(tree.parent) == [-1, 0, 1, -1]
    assert list(tree.parent_of(np.array([2, 0, -1, 77], dtype=np.int32))) == [1, -1, -1, -1]


def test_a_parent_without_a_row_of_its_own_is_a_root():
    tree = CategoryTree.build(["2"], ["1"])
    assert list(tree.category.ids) == ["1", "2"]
    assert list(tree.parent) == [-1, 0]


@pytest.mark.parametrize(
    ("child", "parent", "message"),
    [
        (["2", "2"], ["1", "3"], "'2' has more than one row"),
        (["1", "2", "3"], ["2", "1", None], "'1' is its own ancestor"),
        (["5"], ["5"], "'5' is its own ancestor"),
    ],
)
def test_what_is_no_tree_is_refused(child, parent, message):
    with pytest.raises(ValueError, match=message):
        CategoryTree.build(child, parent)
