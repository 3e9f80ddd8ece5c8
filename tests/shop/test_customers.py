import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.shop.attributes import type_of
from recsys.shop.customers import Customers
from recsys.shop.identity import Vocabulary

USERS, BORN = ("ann", "bob", "cid"), np.array([10, 10, 20])
CHANGE = st.tuples(
    st.sampled_from(USERS), st.integers(0, 30), st.sampled_from(("country", "age")), st.sampled_from(("1", "2", "x"))
)
CHANGES = st.lists(CHANGE, max_size=25)


def customers(changes, **types):
    frame = pd.DataFrame(changes, columns=["user", "time", "property", "value"])
    return Customers.build(Vocabulary(np.array(USERS, dtype=object)), BORN, frame, types or None)


def values(of, name):
    return [None if n < 0 else str(of.texts.ids[n]) for n in of.latest(name)]


def test_attributes_are_read_as_of_a_time():
    shop = customers([("ann", 10, "country", "FR"), ("ann", 15, "country", "DE"), ("bob", 12, "age", "31")])
    assert values(shop._before(12), "country") == ["FR", None]
    assert values(shop._before(12), "age") == [None, None]
    assert values(shop, "country") == ["DE", None, None]
    np.testing.assert_array_equal(shop.number("age"), np.array([np.nan, 31, np.nan], dtype=np.float32))


def test_what_held_before_the_first_event_is_known_from_it_on():
    shop = customers([("cid", 1, "country", "zz"), ("cid", 3, "country", "aa"), ("cid", 25, "country", "bb")])
    assert len(shop._before(20)) == 0
    assert len(shop._before(20).texts) == 0
    assert values(shop._before(21), "country") == [None, None, "aa"]  # the newest of the earlier ones, not the greatest
    assert values(shop, "country") == [None, None, "bb"]


def test_types_are_known_at_all_times_and_come_by_name():
    shop = customers([("ann", 20, "country", "FR"), ("ann", 20, "age", "31")])
    assert list(shop._before(15).types.items()) == [("age", "number"), ("country", "category")]
    assert customers([("ann", 20, "age", "31")], age="category").types == {"age": "category"}


@given(CHANGES, st.integers(0, 31))
def test_the_past_shows_nothing_of_later_customers_and_changes(changes, t):
    """Numbers, texts and properties before a time are the same when what comes later is not there."""
    born = dict(zip(USERS, BORN, strict=True))
    seen, past = customers(changes)._before(t), customers([c for c in changes if max(c[1], born[c[0]]) < t])
    for name in ("owner", "time", "prop", "value"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(past, name), err_msg=name)
    assert list(seen.texts.ids) == list(past.texts.ids)
    assert list(seen.properties.ids) == list(past.properties.ids)
    assert (seen.owner < seen.n_users).all()


@given(CHANGES, st.randoms())
def test_the_order_of_rows_does_not_matter(changes, random):
    assert customers(changes).fingerprint == customers(random.sample(changes, len(changes))).fingerprint


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1", "-2.5", "3e4", ".5"], "number"),
        (["1", "2", "3+"], "category"),
        (["75001", "01234"], "category"),
        (["FR", "DE"], "category"),
        (["2 Adults No Kids", "1 Adult Kids", "2 Adults No Kids", "2 Adults No Kids", "1 Adult Kids"], "category"),
        (["likes tea", "collects old maps", "has two dogs"], "words"),
        ([f"lamp no {i % 101}" for i in range(1000)], "words"),
        (["https://shop.example/a.png", "http://shop.example/b.png"], "link"),
        ([], "category"),
    ],
)
def test_a_type_follows_from_all_texts(texts, expected):
    assert type_of(pd.Series(texts, dtype=object)) == expected
