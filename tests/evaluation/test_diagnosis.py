"""The waterfall, the ceiling and what each source is worth: by hand, by brute force, and what has to hold for any pool."""

from dataclasses import replace
from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import BUY, CART, VIEW, log_of

from recsys.evaluation import attribution, coalitions, diagnosis, metrics
from recsys.evaluation.evidence import Evidence, Past
from recsys.shop import ragged
from recsys.shop.fusion import Fusion
from recsys.shop.pools import CandidatePool, Ranking
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop

N_ITEMS, DAY = 8, 86_400_000


def ranking(rows: list[list[int]], k: int) -> Ranking:
    item = np.array([[*row, *[-1] * (k - len(row))] for row in rows], dtype=np.int32).reshape(len(rows), k)
    return Ranking(item, np.where(item >= 0, -np.arange(k), -np.inf).astype(np.float32))


def truth(rows: list[list[int]], grade: float = 1) -> Truth:
    item = np.array([i for row in rows for i in sorted(row)], dtype=np.int32)
    return Truth(ragged.from_counts(np.array([len(row) for row in rows])), item, np.full(len(item), grade, np.float32))


def shop(histories: list[list[tuple[int, str]]]) -> tuple[Past, Queries]:
    """A query a history; items 0 to 7 are known, each seen once by a user who asks nothing, long ago."""
    users = [0] * N_ITEMS + [u + 1 for u, events in enumerate(histories) for _ in events]
    items = [*range(N_ITEMS), *(item for events in histories for item, _ in events)]
    kinds = [VIEW] * N_ITEMS + [kind for events in histories for _, kind in events]
    times = np.arange(len(users)) + 50 * DAY * (np.arange(len(users)) >= N_ITEMS)
    log = log_of(list(zip(users, items, kinds, times, strict=True)))
    now = 60 * DAY
    numbers = log.users.numbers([u + 1 for u in range(len(histories))])
    return Past.of(Shop.of(log), now), Queries.at(log, numbers, now)


def evidence(
    targets: list[list[int]],
    sources: dict[str, list[list[int]]],
    listed: list[list[int]],
    budget: int,
    histories: list[list[tuple[int, str]]] | None = None,
    depth: int = N_ITEMS,
) -> Evidence:
    past, queries = shop(histories or [[(0, VIEW)] for _ in targets])
    deep = CandidatePool.from_rankings({name: ranking(rows, depth) for name, rows in sources.items()})
    lists = ranking(listed, depth)
    found = coalitions.found(deep, Fusion((1.0,) * len(deep.sources)), truth(targets), budget)
    pool = deep.top(budget)
    return Evidence.collect(past, queries, truth(targets), pool, deep, lists, budget=budget, depth=depth, found=found)


def test_every_stage_by_hand():
    seen = evidence(
        targets=[[99], [5], [6], [2], [1], [0]],
        histories=[[(0, VIEW)], [], [(0, VIEW)], [(0, VIEW)], [(0, VIEW)], [(0, VIEW)]],
        sources={"s": [[0, 1, 2], [], [0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2]]},
        listed=[[0, 1], [], [0, 1], [0, 1], [0, 1], [0, 1]],
        budget=2,
    )
    names = list(diagnosis.STAGES)
    assert [names[i] for i in diagnosis.stage(seen, k=1)] == [
        "cold_item",
        "cold_user",
        "not_retrieved",
        "cut",
        "ranked_below",
        "hit",
    ]
    shares = diagnosis.waterfall(seen, k=1)
    assert [shares[name].tolist() for name in names] == np.eye(6).tolist()


def test_a_query_with_several_targets_is_divided_by_the_places_it_has():
    seen = evidence(targets=[[0, 1, 2, 3, 98]], sources={"s": [[0, 1, 2]]}, listed=[[0, 7, 1]], budget=2)
    shares = {name: float(value[0]) for name, value in diagnosis.waterfall(seen, k=3).items()}
    # three right places: all of them could be warm targets, three targets were found, two pooled, and both are listed
    wanted = {"cold_item": 0, "cold_user": 0, "not_retrieved": 0, "cut": 1 / 3, "ranked_below": 0, "hit": 2 / 3}
    assert shares == pytest.approx(wanted)


lists_of_items = st.lists(st.integers(0, N_ITEMS - 1), unique=True, max_size=N_ITEMS)


@st.composite
def cases(draw: st.DrawFn) -> Evidence:
    n = draw(st.integers(1, 4))
    sources = {
        name: draw(st.lists(lists_of_items, min_size=n, max_size=n)) for name in draw(st.sampled_from(["a", "ab", "abc"]))
    }
    budget = draw(st.integers(1, 5))
    targets = draw(st.lists(st.lists(st.integers(0, N_ITEMS + 1), unique=True, min_size=1, max_size=5), min_size=n, max_size=n))
    deep = CandidatePool.from_rankings({name: ranking(rows, N_ITEMS) for name, rows in sources.items()})
    pool = deep.top(budget)
    shuffled = [draw(st.permutations(pool.item[a:b].tolist())) for a, b in zip(pool.indptr[:-1], pool.indptr[1:], strict=True)]
    return evidence(targets, sources, shuffled, budget)


@given(cases(), st.integers(1, 4))
def test_the_waterfall_adds_up_and_no_stage_gives_back(seen: Evidence, k: int):
    shares = diagnosis.waterfall(seen, k)
    assert sum(shares.values()) == pytest.approx(np.ones(len(seen)))
    assert min(share.min() for share in shares.values()) >= 0
    some_hit = metrics.per_query(seen.ranking, seen.truth, [k])[f"hit_rate_at_{k}"] > 0
    assert ((shares["hit"] > 0) == some_hit).all()


@given(cases(), st.integers(1, 4))
def test_no_order_of_the_candidates_beats_the_ceiling(seen: Evidence, k: int):
    figures = diagnosis.values(seen, k, metrics.RELEVANCE)
    got = metrics.per_query(seen.ranking, seen.truth, [k])
    for name in (f"{metric}_at_{k}" for metric in metrics.RELEVANCE):
        assert (got[name] <= figures[f"ceiling/{name}"] + 1e-12).all()
    for ratio, _ in diagnosis.efficiency(seen, figures, k, metrics.RELEVANCE).values():
        assert np.nanmax(ratio, initial=0) <= 1


def test_the_ceiling_puts_the_best_candidates_first():
    past, queries = shop([[(0, VIEW)]])
    graded = Truth(np.array([0, 3]), np.array([1, 2, 3], np.int32), np.array([1, 4, 2], np.float32))
    pool = CandidatePool.from_rankings({"s": ranking([[0, 1, 3]], 4)})
    lists = ranking([[0, 1, 3]], 4)
    found = coalitions.found(pool, Fusion((1.0,)), graded, 4)
    seen = Evidence.collect(past, queries, graded, pool, pool, lists, budget=4, depth=4, found=found)
    figures = diagnosis.values(seen, 2, ["ndcg"])
    best, all_of_it = 2 + 1 / log2(3), 4 + 2 / log2(3)
    assert figures["ceiling/ndcg_at_2"].tolist() == pytest.approx([best / all_of_it])
    got = (1 / log2(3)) / all_of_it
    ratio, weight = diagnosis.efficiency(seen, figures, 2, ["ndcg"])["efficiency/ndcg_at_2"]
    assert (ratio * weight).tolist() == pytest.approx([got])


@given(cases())
def test_shapley_values_add_up_to_the_recall_of_all_sources(seen: Evidence):
    values = attribution.values(seen)
    total = sum(values[f"attribution/{name}/shapley"] for name in seen.sources)
    assert total == pytest.approx(seen.share(seen.pooled))


def test_sources_that_find_the_same_are_worth_the_same():
    rows = [[0, 1], [2], [5]]
    seen = evidence([[1], [2], [3]], {"a": rows, "b": rows}, [[], [], []], budget=4)
    values = attribution.values(seen)
    assert values["attribution/a/shapley"].tolist() == values["attribution/b/shapley"].tolist() == [0.5, 0.5, 0]
    assert values["attribution/a/exclusive"].tolist() == [0, 0, 0]
    assert attribution.jaccard(seen.found_by).tolist() == [[1, 1], [1, 1]]


def test_overlap_by_hand():
    found = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=bool)
    assert attribution.jaccard(found).tolist() == [[1, pytest.approx(1 / 3), 0], [pytest.approx(1 / 3), 1, 0], [0, 0, 0]]


def test_a_source_alone_has_the_budget_and_no_more():
    """Target 4 is the third of b, which alone would get two places; a brings it into the pool."""
    seen = evidence([[4]], {"a": [[4, 0]], "b": [[1, 2, 4]]}, [[]], budget=2)
    values = {name.removeprefix("attribution/"): each.tolist() for name, each in attribution.values(seen).items()}
    assert seen.found_by[:, 0].tolist() == [True, True]
    assert values["a/solo"] == values["a/shapley"] == values["a/leave_one_out"] == [1]
    assert values["b/solo"] == values["b/shapley"] == values["b/leave_one_out"] == [0]


def test_a_pool_in_an_order_that_nobody_told_has_no_values_of_coalitions():
    past, queries = shop([[(0, VIEW)]])
    deep = CandidatePool.from_rankings({"a": ranking([[1, 2, 3]], 8), "b": ranking([[4, 5, 6]], 8)})
    other = replace(deep, fusion=-deep.fusion)
    found = coalitions.found(other, Fusion((1.0, 1.0)), truth([[3]]), 2)
    seen = Evidence.collect(past, queries, truth([[3]]), other.top(2), other, ranking([[]], 8), budget=2, depth=8, found=found)
    values = attribution.values(seen)
    assert values["attribution/a/exclusive"].tolist() == [1]
    assert all(np.isnan(values[f"attribution/a/{what}"]).all() for what in ("solo", "leave_one_out", "shapley"))


def test_leaving_a_source_out_fills_the_pool_from_the_others():
    # Budget 2. Both sources' first items fill it; without b, the target at a's second place moves up.
    seen = evidence([[1], [4]], {"a": [[0, 1], [0, 4]], "b": [[4, 5], [4, 0]]}, [[], []], budget=2)
    values = attribution.values(seen)
    assert seen.pooled.tolist() == [False, True]
    assert values["attribution/b/leave_one_out"].tolist() == [-1, 0]
    assert values["attribution/b/exclusive"].tolist() == [0, 0]


@given(rows=st.lists(st.lists(lists_of_items, min_size=3, max_size=3), min_size=2, max_size=4), budget=st.integers(1, 5))
def test_leaving_a_source_out_is_the_pool_made_without_it(rows: list[list[list[int]]], budget: int):
    sources = {f"s{i}": lists for i, lists in enumerate(rows)}
    seen = evidence([[0, 1], [2, 3], [4, 99]], sources, [[], [], []], budget)
    for s, name in enumerate(seen.sources):
        others = {each: ranking(lists, N_ITEMS) for each, lists in sources.items() if each != name}
        key = CandidatePool.from_rankings(others).top(budget).key
        assert seen.found.without[s].tolist() == np.isin(seen.truth.key, key).tolist()


@given(cases())
def test_what_only_one_source_found_is_lost_without_it(seen: Evidence):
    for s, name in enumerate(seen.sources):
        only = seen.found_by[s] & (seen.found_by.sum(axis=0) == 1)
        assert not seen.found.without[s][only].any()
        if len(seen.sources) == 1:
            assert attribution.values(seen)[f"attribution/{name}/leave_one_out"] == pytest.approx(seen.share(seen.pooled))


def test_cohorts_split_queries_and_targets():
    histories = [[(0, VIEW)], [(1, CART), (1, VIEW)], [(2, CART), (2, BUY), (3, VIEW)]]
    seen = evidence([[0], [2], [3, 4]], {"s": [[0], [0], [3]]}, [[0], [0], [3]], budget=2, histories=histories)
    figures = diagnosis.values(seen, 1, ["hit_rate"])

    def cohort(name: str) -> list[float | None]:
        return [None if np.isnan(v) else v for v in figures[f"cohort/{name}/hit_rate_at_1"].tolist()]

    assert cohort("history/1_event") == [1, None, None]
    assert cohort("history/2_to_4_events") == [None, 0, 1]
    assert cohort("cart/with") == [None, 0, None]
    assert cohort("target/revisit") == [1, None, 1]
    assert cohort("target/discovery") == [None, 0, 0]


def test_folds_pool_to_what_their_queries_give_together():
    one = evidence([[0], [1]], {"a": [[0], [0]]}, [[0], [0]], budget=1)
    two = evidence([[2, 3]], {"a": [[3, 2]]}, [[3]], budget=1)
    pooled = Evidence.concat([one, two])
    parts = [diagnosis.values(each, 1, ["hit_rate"]) for each in (one, two)]
    for name, value in diagnosis.values(pooled, 1, ["hit_rate"]).items():
        if all(name in part for part in parts):
            np.testing.assert_array_equal(value, np.concatenate([part[name] for part in parts]))
