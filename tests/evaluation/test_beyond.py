"""Beyond accuracy, by hand on a shop of four items."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import BUY, VIEW, log_of, queries_of

from recsys.evaluation import beyond
from recsys.evaluation.evidence import Past
from recsys.evaluation.statistics import bootstrap
from recsys.retrieval.random import Random
from recsys.shop.catalogue import Catalogue
from recsys.shop.pools import Ranking
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop

# users a to d; item 0 is known to a, b, c and d, item 1 to a and b, item 2 to a, item 3 to d
EVENTS = [("a", 0, VIEW), ("b", 0, VIEW), ("c", 0, VIEW), ("d", 0, VIEW), ("a", 1, BUY), ("b", 1, VIEW), ("a", 2, VIEW)]
EVENTS += [("d", 3, VIEW)]


def shop() -> tuple[Past, Queries]:
    log = log_of([(*event, time) for time, event in enumerate(EVENTS)])
    empty = Catalogue.empty(log.items, log.item_born)
    past = Past.of(Shop.of(log, empty), 100)
    past = Past(past.log, past.users, past.head, past.fresh, np.array([0, 1, 1, -1], np.int32))
    return past, Queries.at(log, log.users.numbers(["a", "c"]), 100)


def lists(*rows: list[int]) -> Ranking:
    item = np.array(rows, dtype=np.int32)
    return Ranking(item, np.where(item >= 0, 1, -np.inf).astype(np.float32))


def judged(shown: Ranking, expected: Ranking) -> dict[str, list[float]]:
    past, queries = shop()
    truth = Truth(np.array([0, 1, 2]), np.array([1, 3], np.int32), np.ones(2, np.float32))
    return {name: value.tolist() for name, value in beyond.per_query(shown, queries, truth, past, expected).items()}


def test_every_figure_by_hand():
    found = judged(lists([0, 1, 2], [1, 3, -1]), lists([0, 1, -1], [0, 1, -1]))
    assert found["unseen"] == [0, 1]
    assert found["repeat"] == [pytest.approx(1 / 3), 0]
    assert found["self_information"] == pytest.approx([(0 + 1 + 2) / 3, (1 + 2) / 2])
    assert found["long_tail"] == pytest.approx([2 / 3, 1])  # item 0 alone takes half of the events
    assert found["serendipity"] == [0, 0.5]  # c's target 3 is new to c, and nobody would have expected it
    assert found["popularity"] == pytest.approx([(4 + 2 + 1) / 3 / 4, (2 + 1) / 2 / 4])
    assert found["own_popularity"] == pytest.approx([(4 + 2 + 1) / 3 / 4, 4 / 4])
    assert found["diversity_category"][0] == pytest.approx(2 / 3)
    assert np.isnan(found["diversity_category"][1])  # the category of item 3 is not known
    cosines = [2 / sqrt(4 * 2), 1 / sqrt(4 * 1), 1 / sqrt(2 * 1)]
    assert found["diversity_covisitation"] == pytest.approx([1 - sum(cosines) / 3, 1], abs=1e-6)


def test_popularity_lift_is_that_of_group_averages():
    """GAP of the lists (0.5 + 0.5) / 2, of the profiles (0.8 + 0.01) / 2; the lists are 23 % above.

    The mean of the users' own ratios would be 24 above: (0.5 / 0.8 + 0.5 / 0.01) / 2 − 1.
    """
    ratio, weight = beyond.lift(np.array([0.5, 0.5, np.nan, 0.3]), np.array([0.8, 0.01, 0.4, np.nan]))
    [found] = bootstrap(ratio, weights=weight, bounds=None)
    assert found.value == pytest.approx(0.5 / 0.405 - 1)
    assert weight.tolist() == [0.8, 0.01, 0, 0], "one without a list, one without a profile"


def test_serendipity_and_novelty_of_items_that_nobody_expects():
    """User a knows items 0 to 2; item 3 is new to it, and not among the most popular."""
    past, queries = shop()
    shown, expected = lists([3, 0], [3, 1]), lists([0, 1], [0, 1])
    truth = Truth(np.array([0, 2, 2]), np.array([0, 3], np.int32), np.ones(2, np.float32))
    found = beyond.per_query(shown, queries, truth, past, expected)
    assert found["serendipity"].tolist() == [1 / 2, 0], "item 0 is right, but known to a and expected"
    assert found["unseen"].tolist() == [1 / 2, 1]


def test_a_list_of_nothing_has_no_figures():
    found = judged(lists([-1, -1], [0, -1]), lists([-1, -1], [-1, -1]))
    assert all(np.isnan(value[0]) for name, value in found.items() if name != "own_popularity")
    assert found["self_information"][1] == 0


def test_coverage_and_gini_by_hand():
    past, _ = shop()
    assert beyond.of_all_lists(lists([0, 1], [0, 1]), past) == {"coverage": 0.5, "gini": 0.5}
    assert beyond.of_all_lists(lists([0, 1], [2, 3]), past) == {"coverage": 1, "gini": 0}


@given(st.lists(st.integers(0, 20), min_size=1, max_size=20).filter(any))
def test_gini_is_half_the_mean_difference_over_the_mean(counts: list[int]):
    values = np.array(counts)
    wanted = np.abs(values[:, None] - values).mean() / (2 * values.mean())
    assert beyond.gini(values) == pytest.approx(wanted)


def test_random_lists_hold_each_item_once_and_differ_between_users():
    past, queries = shop()
    source = Random(seed=3)
    source.fit(Shop.of(past.log))
    shown = source.retrieve(queries, 6)
    assert [sorted(row) for row in shown.item.tolist()] == [[-1, -1, 0, 1, 2, 3]] * 2
    many = Queries.at(past.log, np.arange(4, dtype=np.int32), 100)
    assert len({tuple(row) for row in source.retrieve(many, 4).item.tolist()}) > 1
    assert source.retrieve(queries, 3).item.tolist() == shown.item[:, :3].tolist()


def test_random_lists_leave_out_what_seen_forbids():
    _, queries = shop()
    source = Random(seen="drop_touched")
    source.item = np.arange(4, dtype=np.int32)
    assert [sorted(row) for row in source.retrieve(queries, 4).item.tolist()] == [[-1, -1, -1, 3], [-1, 1, 2, 3]]
    source.item = np.empty(0, dtype=np.int32)
    assert (source.retrieve(queries, 4).item == -1).all()


def test_random_items_come_equally_often():
    queries = replace(queries_of([[]] * 5000, now=100), user=np.arange(5000, dtype=np.int32))
    source = Random()
    source.item = np.random.default_rng(0).permutation(20).astype(np.int32)
    counts = np.bincount(source.retrieve(queries, 5).item.ravel(), minlength=20)
    assert counts.min() > 0.9 * 5000 * 5 / 20
