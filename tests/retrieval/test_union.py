"""The union of retrievers: its order, its quotas, what it learns."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import BUY, VIEW, log_of, queries_of

from recsys.component import component
from recsys.errors import ConfigError
from recsys.retrieval import History, Hybrid, Popularity, Retriever
from recsys.shop.catalogue import Catalogue
from recsys.shop.events import EventLog
from recsys.shop.pools import RRF_CONSTANT, CandidatePool, Ranking
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop

DAY = 86_400_000
item_lists = st.lists(st.integers(0, 11), unique=True, max_size=8)


@component
class Fixed(Retriever):
    """Proposes the same items to everybody."""

    items: list[int]

    def fit(self, past: Shop) -> None:
        log = past.log
        self.log = log

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        items = (self.items + [-1] * k)[:k]
        score = np.where(np.array(items) >= 0, 10.0 - np.arange(k), -np.inf)
        return Ranking(
            np.tile(np.array(items, np.int32), (len(queries), 1)), np.tile(score.astype(np.float32), (len(queries), 1))
        )


def hybrid(fallback: list[str] | None = None, depth: int = 50, **options: Any) -> Hybrid:
    """A union of `Fixed` retrievers; those that are lists become definitions and, but for fallbacks, sources."""
    lists = {name: value for name, value in options.items() if isinstance(value, list)}
    rest = {name: value for name, value in options.items() if name not in lists}
    fallback = fallback or []
    definitions = {name: Fixed(items=items) for name, items in lists.items()}
    sources = [name for name in lists if name not in fallback]
    return Hybrid(sources=sources, definitions=definitions, fallback=fallback, depth=depth, **rest)


def nobody(n: int = 1) -> Queries:
    return queries_of([[]] * n, now=DAY)


def listed(retriever: Retriever, k: int) -> list[int]:
    return [item for item in retriever.retrieve(nobody(), k).item[0].tolist() if item >= 0]


def same(a: CandidatePool, b: CandidatePool) -> None:
    assert a.sources == b.sources
    for name in ("indptr", "item", "rank", "score", "fusion"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


class TestOrder:
    def test_reciprocal_ranks_worked_by_hand(self) -> None:
        # 7: 1/61 + 1/63; 5: 1/62 + 1/62; 9: 1/61; 3: 1/63. 1/61 + 1/63 > 2/62.
        assert listed(hybrid(a=[7, 5, 3], b=[9, 5, 7]), 4) == [7, 5, 9, 3]

    def test_a_weight_moves_its_source_up(self) -> None:
        assert listed(hybrid(a=[1, 2], b=[3, 4]), 4) == [1, 3, 2, 4]
        assert listed(hybrid(a=[1, 2], b=[3, 4], weights={"b": 2.0}), 4) == [3, 4, 1, 2]

    def test_a_source_of_weight_0_gives_evidence_and_no_candidate(self) -> None:
        pool = hybrid(a=[1, 2], b=[2, 3], weights={"b": 0.0}).pool(nobody(), 5)
        assert pool.item.tolist() == [1, 2]
        assert pool.sources == ("a", "b")
        assert pool.rank.tolist() == [[1, 2], [0, 1]]

    def test_quotas_count_new_items_only_and_come_before_the_rest(self) -> None:
        # a adds 1, 2. b passes over 2 and 1, which are there, and adds 3 and 4. What is left comes by rank: 8 is third in a.
        union = hybrid(a=[1, 2, 8, 9], b=[2, 1, 3, 4, 5], quotas={"a": 2, "b": 2})
        assert set(listed(union, 4)) == {1, 2, 3, 4}
        assert listed(union, 6)[4:] == [8, 9]

    def test_a_source_without_a_quota_only_fills(self) -> None:
        assert listed(hybrid(a=[1, 2, 3], b=[7, 8, 9], quotas={"b": 3}), 6) == [7, 8, 9, 1, 2, 3]

    def test_a_fallback_fills_short_lists_in_order(self) -> None:
        union = hybrid(a=[4], b=[4, 6], c=[6, 5, 2], fallback=["b", "c"])
        assert listed(union, 4) == [4, 6, 5, 2]
        pool = union.pool(nobody(), 2)
        assert pool.sources == ("a", "b", "c")
        assert pool.rank.tolist() == [[1, 0], [1, 2], [0, 1]]

    @given(item_lists, item_lists, item_lists, st.integers(1, 6), st.integers(1, 6), st.integers(1, 12))
    def test_pools_are_nested(self, a: list[int], b: list[int], c: list[int], of_a: int, of_b: int, k: int) -> None:
        union = hybrid(a=a, b=b, c=c, fallback=["c"], quotas={"a": of_a, "b": of_b}, depth=12)
        same(union.pool(nobody(2), 12).top(k), union.pool(nobody(2), k))

    @given(item_lists, item_lists, st.integers(1, 6))
    def test_who_asks_for_more_than_the_depth_gets_the_same_list_and_more(self, a: list[int], b: list[int], depth: int) -> None:
        union = hybrid(a=a, b=b, depth=depth)
        within = {item for source in (a, b) for item in source[:depth]}
        assert listed(union, 12)[: len(within)] == listed(union, depth + 12)[: len(within)]
        assert listed(union, depth) == listed(union, 12)[:depth]

    def test_the_order_below_the_depth_is_that_of_the_source(self) -> None:
        """However deep: neighbours there differ by less than a float32 next to 1 can hold."""
        items = np.random.default_rng(0).permutation(20_000).tolist()
        union = hybrid(a=items, b=[], weights={"b": 5.0}, depth=10)
        assert listed(union, 20_000) == items

    @given(item_lists, item_lists, item_lists, st.permutations("abc"), st.sampled_from([0.1, 0.3, 1.0, 7.0]))
    def test_the_sources_order_and_the_scale_of_weights_do_not_matter(self, a, b, c, names: list[str], weight: float) -> None:
        lists = dict(zip("abc", (a, b, c), strict=True))
        swapped = hybrid(**{name: lists[name] for name in names}, weights=dict.fromkeys(names, weight))
        assert listed(swapped, 40) == listed(hybrid(**lists), 40)

    @given(item_lists, item_lists, item_lists, st.integers(1, 6), st.integers(1, 6))
    def test_quotas_against_a_plain_loop(self, a: list[int], b: list[int], c: list[int], of_a: int, of_b: int) -> None:
        chosen = a[:of_a]
        chosen += [item for item in b if item not in chosen][:of_b]
        fused = {item: sum(1 / (RRF_CONSTANT + 1 + s.index(item)) for s in (a, b) if item in s) for item in {*a, *b}}
        expected = sorted(fused, key=lambda item: (item not in chosen, -round(fused[item], 9), item))
        expected += [item for item in c if item not in expected]
        assert listed(hybrid(a=a, b=b, c=c, fallback=["c"], quotas={"a": of_a, "b": of_b}), 40) == expected


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sources": ["als"]}, "retriever.sources: no retriever is called 'als'"),
            ({"sources": ["history", "history"]}, "retriever.sources: named more than once: history"),
            ({"fallback": ["populrity"]}, "retriever.fallback: no retriever is called 'populrity'. Did you mean 'popularity'"),
            ({"weights": {"hist": 2.0}}, "retriever.weights: no retriever is called 'hist'"),
            ({"quotas": {"hist": 2}}, "retriever.quotas: no retriever is called 'hist'"),
            ({"weights": {"history": 0.0}}, "retriever.weights: wanted a source with a weight above 0"),
        ],
    )
    def test_a_wrong_name_is_told(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError) as error:
            Hybrid(**{"sources": ["history"], "definitions": {"history": History(), "popularity": Popularity()}, **options})
        assert message in str(error.value)


def shop(weeks: int = 12) -> EventLog:
    """Twenty users; each buys item 0 … 9 of its own every week, and item 50 + the week that everybody buys."""
    user, week, what = (axis.ravel() for axis in np.meshgrid(np.arange(20), np.arange(weeks), np.arange(2), indexing="ij"))
    item = np.where(what == 0, user % 10, 50 + week)
    time = week * 7 * DAY + user * 1000 + what
    return EventLog.build(user.astype(np.int64), item.astype(np.int64), [BUY] * len(user), time.astype(np.int64))


class TestLearning:
    def union(self, **options: Any) -> Hybrid:
        definitions = {"useless": Fixed(items=list(range(100, 140))), "history": History(), "popularity": Popularity()}
        sources = ["useless", "history"]
        return Hybrid(sources=sources, definitions=definitions, learn_candidates=20, learn_horizon_days=7.0, **options)

    def test_quotas_go_where_the_purchases_were(self) -> None:
        log = shop()
        union = self.union(budget="learn")
        union.fit(Shop.of(log))
        assert union.plan[0][0] == "history"

    def test_weights_go_where_the_purchases_were(self) -> None:
        log = shop()
        union = self.union(fusion="learned")
        union.fit(Shop.of(log))
        assert union.weight["history"] > 0
        assert union.weight["useless"] == 0
        assert union.learned() == {"weight/useless": 0.0, "weight/history": 2.0}

    def test_the_sources_end_up_fitted_on_the_whole_log(self) -> None:
        log = shop()
        union = self.union(budget="learn", fusion="learned")
        union.fit(Shop.of(log))
        assert len(union.definitions["useless"].log) == len(log)

    def test_what_is_learned_does_not_depend_on_earlier_fits(self) -> None:
        log = shop()
        catalogue = Catalogue.empty(log.items, log.item_born)
        fresh, used = self.union(budget="learn", fusion="learned"), self.union(budget="learn", fusion="learned")
        used.fit(Shop.of(log, catalogue).before(40 * DAY))
        used.fit(Shop.of(log, catalogue))
        fresh.fit(Shop.of(log, catalogue))
        assert fresh.learned() == used.learned()
        queries = Queries.at(log, np.arange(5, dtype=np.int32), 100 * DAY)
        same(fresh.pool(queries, 30), used.pool(queries, 30))

    def test_a_log_with_nothing_to_learn_from_leaves_the_settings(self) -> None:
        log = log_of([(1, 2, VIEW, 5)])
        union = self.union(budget="learn", fusion="learned", quotas={"history": 5})
        union.fit(Shop.of(shop()))
        union.fit(Shop.of(log))
        assert union.plan == [("history", 5)]
        assert union.weight == {"useless": 1.0, "history": 1.0}
