"""What coalitions of sources find, against unions that are made of fewer sources and against every order of joining."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import queries_of

from recsys.component import component
from recsys.evaluation import coalitions
from recsys.retrieval import Hybrid, Retriever
from recsys.shop import ragged
from recsys.shop.fusion import Fusion
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool, Ranking
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop

QUERIES, ITEMS = 2, 10


@component
class Given(Retriever):
    """Proposes a list of its own to each user."""

    lists: list[list[int]]

    def fit(self, past: Shop) -> None: ...

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        item = np.full((len(queries), k), -1, np.int32)
        for q, user in enumerate(queries.user):
            own = self.lists[user][:k]
            item[q, : len(own)] = own
        return Ranking(item, np.where(item >= 0, -np.arange(k), -np.inf).astype(np.float32))


def asked() -> Queries:
    return replace(queries_of([[]] * QUERIES, 1), user=np.arange(QUERIES, dtype=np.int32))


def everything() -> Truth:
    """Every item is right for everybody, so that every item is looked at."""
    item = np.tile(np.arange(ITEMS + 1, dtype=np.int32), QUERIES)
    return Truth(np.arange(QUERIES + 1) * (ITEMS + 1), item, np.ones(len(item), np.float32))


own_lists = st.lists(st.permutations(range(ITEMS)).flatmap(lambda p: st.integers(0, ITEMS).map(lambda n: list(p[:n]))),
                     min_size=QUERIES, max_size=QUERIES)  # fmt: skip


@st.composite
def unions(draw: st.DrawFn) -> dict[str, Any]:
    names = "abcd"[: draw(st.integers(1, 4))]
    return {
        "lists": {name: draw(own_lists) for name in names},
        "weights": {name: draw(st.sampled_from([0.5, 1.0, 2.0])) for name in names},
        "quotas": draw(st.none() | st.dictionaries(st.sampled_from(names), st.integers(1, 4), min_size=1)),
        "depth": draw(st.integers(1, ITEMS)),
        "fallback": draw(st.lists(st.sampled_from(names), unique=True, max_size=2)),
    }


def hybrid(case: dict[str, Any], members: str) -> Hybrid:
    inside = {key: {n: v for n, v in (case[key] or {}).items() if n in members} for key in ("weights", "quotas")}
    return Hybrid(
        sources=list(members),
        definitions={name: Given(lists=case["lists"][name]) for name in members},
        weights=inside["weights"],
        quotas=inside["quotas"] or None,
        depth=case["depth"],
        fallback=[name for name in case["fallback"] if name in members],
    )


@settings(deadline=None)
@given(unions(), st.integers(1, ITEMS))
def test_a_coalition_finds_what_a_union_of_its_members_holds(case: dict[str, Any], budget: int):
    whole, queries, truth = hybrid(case, "".join(case["lists"])), asked(), everything()
    masks = np.arange(1, 1 << len(case["lists"]))
    found = coalitions.members_find(whole.union(queries, budget), whole.ordering, truth, budget, masks)
    keys = pair_key(np.repeat(np.arange(QUERIES), truth.count), truth.item)
    for mask, row in zip(masks.tolist(), found, strict=True):
        members = "".join(name for s, name in enumerate(case["lists"]) if mask >> s & 1)
        assert row.tolist() == np.isin(keys, hybrid(case, members).pool(queries, budget).key).tolist(), members


@settings(deadline=None)
@given(unions(), st.integers(1, ITEMS))
def test_shapley_values_are_the_mean_over_all_orders_of_joining(case: dict[str, Any], budget: int):
    whole, queries, truth = hybrid(case, "".join(case["lists"])), asked(), everything()
    n = len(case["lists"])
    union = whole.union(queries, budget)
    value = coalitions.members_find(union, whole.ordering, truth, budget, np.arange(1 << n)).astype(float)
    by_hand = np.zeros((n, len(truth.item)))
    orders = list(permutations(range(n)))
    for order in orders:
        mask = 0
        for s in order:
            by_hand[s] += (value[mask | 1 << s] - value[mask]) / len(orders)
            mask |= 1 << s
    found = coalitions.found(union, whole.ordering, truth, budget)
    np.testing.assert_allclose(found.shapley, by_hand, atol=1e-12)
    np.testing.assert_allclose(found.shapley.sum(axis=0), found.together, atol=1e-12)
    np.testing.assert_array_equal(found.alone, value[1 << np.arange(n)])
    np.testing.assert_array_equal(found.without, value[(1 << n) - 1 - (1 << np.arange(n))])


def many(n: int) -> tuple[CandidatePool, Truth]:
    """Source `s` proposes items `s` and `n` + `s`, and item 0 too, which all know; all of the first `n` items are right."""
    lists = {f"s{s}": [s, n + s] if s == 0 else [s, 0, n + s] for s in range(n)}
    item = np.array([[*own, *[-1] * (3 - len(own))] for own in lists.values()], np.int32)
    score = np.where(item >= 0, 1.0, -np.inf).astype(np.float32)
    rankings = {name: Ranking(item[[s]], score[[s]]) for s, name in enumerate(lists)}
    right = np.arange(n, dtype=np.int32)
    return CandidatePool.from_rankings(rankings), Truth(ragged.from_counts(np.array([n])), right, np.ones(n, np.float32))


@pytest.mark.parametrize("n", [12, 13, 16])
def test_many_sources_that_find_one_item_each_get_it(n: int):
    """Exact to 12 sources, by drawn orders beyond; where the budget is no limit the value of an only finder is certain."""
    union, truth = many(n)
    found = coalitions.found(union, Fusion((1.0,) * n), truth, budget=3 * n)
    np.testing.assert_allclose(found.shapley[1:, 1:], np.eye(n)[1:, 1:], atol=1e-12)
    np.testing.assert_allclose(found.shapley.sum(axis=0), 1, atol=1e-12)
    assert found.shapley[:, 0] == pytest.approx(np.full(n, 1 / n), abs=0.07), "which all find: an equal share each"
    assert found.alone.sum() == 2 * n - 1
