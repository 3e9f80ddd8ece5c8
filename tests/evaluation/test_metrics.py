"""Metrics against hand-worked examples, ranx, scikit-learn and what has to hold for any data."""

import sys
from collections.abc import Callable, Iterator
from math import isnan, log2
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import VIEW, queries_of
from sklearn.metrics import ndcg_score

from recsys.errors import ConfigError, DataError
from recsys.evaluation import metrics
from recsys.shop import ragged
from recsys.shop.catalogue import Catalogue
from recsys.shop.events import EventLog
from recsys.shop.pools import CandidatePool, Ranking
from recsys.shop.queries import Truth
from recsys.shop.shop import Shop

Grades = dict[int, float]
Case = tuple[list[list[int]], list[Grades]]

N_ITEMS, WIDTH = 9, 6


def ranking_of(lists: list[list[int]], k: int = WIDTH) -> Ranking:
    item = np.array([[*items, *[-1] * (k - len(items))] for items in lists], dtype=np.int32).reshape(len(lists), k)
    return Ranking(item, np.where(item >= 0, -np.arange(k), -np.inf).astype(np.float32))


def truth_of(rows: list[Grades]) -> Truth:
    pairs = [pair for row in rows for pair in sorted(row.items())]
    item, grade = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return Truth(ragged.from_counts(np.array([len(row) for row in rows])), item.astype(np.int32), grade.astype(np.float32))


def pool_of(rows: list[dict[int, float]]) -> CandidatePool:
    """A pool of one source with this fusion score an item, each query's candidates."""
    scored = truth_of(rows)
    nothing = np.zeros((1, len(scored.item)))
    return CandidatePool(scored.indptr, scored.item, ("s",), nothing.astype(np.int16), nothing.astype(np.float32), scored.grade)


lists_strategy = st.permutations(range(N_ITEMS)).flatmap(lambda items: st.integers(0, WIDTH).map(lambda n: list(items[:n])))
grades_strategy = st.dictionaries(st.integers(0, N_ITEMS - 1), st.sampled_from([1.0, 2.0, 3.0]), max_size=5)
queries_strategy = st.lists(st.tuples(lists_strategy, grades_strategy), min_size=1, max_size=4).map(
    lambda rows: ([items for items, _ in rows], [truth for _, truth in rows])
)


class TestByHand:
    # Relevant at ranks 2 (grade 1) and 4 (grade 3) of 4 places; a third relevant item (grade 2) is not in the list.
    value = metrics.per_query(ranking_of([[7, 3, 8, 5]]), truth_of([{3: 1, 5: 3, 6: 2}]), ks=(1, 3, 5, 10))

    @pytest.mark.parametrize(
        ("name", "expected"),
        {
            "hit_rate_at_1": 0,
            "hit_rate_at_3": 1,
            "mrr_at_1": 0,
            "mrr_at_3": 1 / 2,
            "mrr_at_10": 1 / 2,
            "recall_at_3": 1 / 3,
            "recall_at_10": 2 / 3,
            "precision_at_3": 1 / 3,
            "precision_at_5": 2 / 5,
            "precision_at_10": 2 / 10,
            "map_at_3": (1 / 2) / 3,
            "map_at_5": (1 / 2 + 2 / 4) / 3,
            "ndcg_at_1": 0,
            "ndcg_at_3": (1 / log2(3)) / (3 + 2 / log2(3) + 1 / 2),
            "ndcg_at_5": (1 / log2(3) + 3 / log2(5)) / (3 + 2 / log2(3) + 1 / 2),
            "filled_at_3": 1,
            "filled_at_5": 4 / 5,
            "filled_at_10": 4 / 10,
        }.items(),
    )
    def test_value(self, name: str, expected: float) -> None:
        assert self.value[name][0] == pytest.approx(expected, abs=1e-12)

    def test_ideal_counts_only_as_many_items_as_there_are_places(self) -> None:
        value = metrics.per_query(ranking_of([[5]]), truth_of([{3: 1, 5: 2, 6: 3}]), ks=(1,))
        assert value["ndcg_at_1"].tolist() == [2 / 3]

    def test_map_divides_by_all_relevant_items(self) -> None:
        value = metrics.per_query(ranking_of([[5]]), truth_of([{3: 1, 5: 1}]), ks=(1,))
        assert value["map_at_1"].tolist() == [0.5]

    def test_grades_are_read_by_query(self) -> None:
        found = metrics.grades(ranking_of([[1, 2], [2, 1], []], k=3), truth_of([{1: 3.0}, {2: 2.0}, {2: 1.0}]))
        assert found.tolist() == [[3, 0, 0], [2, 0, 0], [0, 0, 0]]
        assert found.dtype == np.float64

    def test_a_query_without_truth_or_list_is_0_and_stays_in_the_mean(self) -> None:
        value = metrics.per_query(ranking_of([[1], [1], []]), truth_of([{1: 1}, {}, {1: 1}]), ks=(1,))
        for name in ("hit_rate", "ndcg", "mrr", "recall", "map", "precision"):
            assert value[f"{name}_at_1"].tolist() == [1, 0, 0], name
        assert value["filled_at_1"].tolist() == [1, 1, 0]
        assert metrics.mean(value)["recall_at_1"] == pytest.approx(1 / 3)

    def test_no_query_at_all(self) -> None:
        value = metrics.per_query(ranking_of([]), truth_of([]))
        assert all(len(values) == 0 for values in value.values())
        assert isnan(metrics.mean(value)["ndcg_at_10"])


class TestNames:
    def test_are_those_of_the_values_in_their_order(self) -> None:
        value = metrics.per_query(ranking_of([[1]]), truth_of([{1: 1}]))
        assert tuple(value) == metrics.names()
        assert {"hit_rate_at_1", "ndcg_at_10", "mrr_at_3", "recall_at_20", "map_at_5", "filled_at_10"} < set(value)
        assert all(values.dtype == np.float64 for values in value.values())

    @pytest.mark.parametrize("ks", [(0,), (10, -1), (2.5,), ("10",), ()])
    @pytest.mark.parametrize(
        "ask",
        [
            metrics.names,
            lambda ks: metrics.per_query(ranking_of([[1]]), truth_of([{1: 1}]), ks),
            lambda ks: metrics.candidate_recall(pool_of([{1: 1}]), truth_of([{1: 1}]), ks),
        ],
    )
    def test_a_cutoff_that_is_none_is_refused(self, ask: Callable, ks: tuple) -> None:
        with pytest.raises(ConfigError, match=f"cutoff k .*found {ks[-1]!r}" if ks else "at least one cutoff"):
            ask(ks)

    @pytest.mark.parametrize("name", metrics.BUILT_IN)
    def test_one_metric_alone_has_the_values_that_it_has_among_all(self, name: str) -> None:
        lists, truth = ranking_of([[7, 3, 8, 5], [1], []]), truth_of([{3: 1, 5: 3, 6: 2}, {1: 1}, {2: 1}])
        alone = metrics.per_query(lists, truth, (1, 4, 9), metrics.load([name]))
        every = metrics.per_query(lists, truth, (1, 4, 9))
        assert list(alone) == [f"{name}_at_{k}" for k in (1, 4, 9)]
        for key, values in alone.items():
            np.testing.assert_array_equal(values, every[key])

    def test_different_queries_are_refused(self) -> None:
        two = truth_of([{1: 1}, {1: 1}])
        with pytest.raises(ValueError, match="truth is of 2 queries"):
            metrics.per_query(ranking_of([[1]]), two)
        with pytest.raises(ValueError, match="truth is of 2 queries"):
            metrics.candidate_recall(pool_of([{1: 1}]), two)


PEER_ITEMS, PEER_WIDTH, PEER_KS = 60, 25, (1, 3, 5, 10, 20, 30)


@pytest.fixture(scope="module")
def peer_case() -> Case:
    """200 queries over 60 items with graded truth; about a fifth of the lists and a fifth of the truths are empty."""
    rng = np.random.default_rng(7)
    lists = [rng.permutation(PEER_ITEMS)[: max(n, 0)].tolist() for n in rng.integers(-6, PEER_WIDTH + 1, 200)]
    relevant = [rng.permutation(PEER_ITEMS)[: max(n, 0)].tolist() for n in rng.integers(-2, 13, 200)]
    return lists, [{item: float(rng.integers(1, 6)) for item in items} for items in relevant]


@pytest.fixture(scope="module")
def ranx_scores(peer_case: Case) -> Iterator[Callable[[str], np.ndarray]]:
    """ranx, run as plain Python: compiling it takes a minute, what it computes here a second."""
    lists, truth = peer_case

    def named(rows: list[Grades]) -> dict[str, Grades]:
        return {f"q{r:04}": {f"d{item}": grade for item, grade in row.items()} for r, row in enumerate(rows)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("numba.config.DISABLE_JIT", True)
        from ranx import Qrels, Run, evaluate

        qrels = Qrels(named(truth))
        run = Run(named([{item: 1 / rank for rank, item in enumerate(items, 1)} for items in lists]))
        yield lambda metric: evaluate(qrels, run, metric, return_mean=False)


@pytest.mark.parametrize("k", PEER_KS)
@pytest.mark.parametrize("metric", ["hit_rate", "ndcg", "mrr", "recall", "map", "precision"])
def test_equal_to_ranx(peer_case: Case, ranx_scores: Callable[[str], np.ndarray], metric: str, k: int) -> None:
    lists, truth = peer_case
    value = metrics.per_query(ranking_of(lists, PEER_WIDTH), truth_of(truth), PEER_KS)[f"{metric}_at_{k}"]
    assert 0 < value.mean() < 1
    np.testing.assert_allclose(value, ranx_scores(f"{metric}@{k}"), rtol=0, atol=1e-9)


@pytest.mark.parametrize("k", PEER_KS)
def test_equal_to_scikit_learn(peer_case: Case, k: int) -> None:
    lists, truth = peer_case
    fractional = [{item: float(np.float32(grade / 3)) for item, grade in row.items()} for row in truth]
    value = metrics.per_query(ranking_of(lists, PEER_WIDTH), truth_of(fractional), PEER_KS)[f"ndcg_at_{k}"]
    # scikit-learn ranks every item: after the list come k irrelevant fillers, then what the list left out.
    fillers = range(PEER_ITEMS, PEER_ITEMS + k)
    grade, score = np.zeros((2, len(lists), PEER_ITEMS + k))
    for r, (items, row) in enumerate(zip(lists, fractional, strict=True)):
        grade[r, list(row)] = list(row.values())
        score[r, [*items, *fillers]] = np.arange(len(items) + k, 0, -1)
    expected = [ndcg_score(grade[[r]], score[[r]], k=k) for r in range(len(lists))]
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-9)


class TestAnyData:
    ks = tuple(range(1, WIDTH + 3))

    def values(self, lists: list[list[int]], truth: list[Grades], width: int = WIDTH) -> dict[str, np.ndarray]:
        return metrics.per_query(ranking_of(lists, width), truth_of(truth), self.ks)

    @given(queries_strategy)
    def test_between_0_and_1(self, case: Case) -> None:
        for name, values in self.values(*case).items():
            assert ((values >= 0) & (values <= 1)).all(), name

    @given(queries_strategy)
    def test_more_places_never_lower_what_is_found(self, case: Case) -> None:
        value = self.values(*case)
        for metric in ("hit_rate", "mrr", "recall", "map"):
            curve = np.array([value[f"{metric}_at_{k}"] for k in self.ks])
            assert (np.diff(curve, axis=0) >= 0).all(), metric

    @given(queries_strategy)
    def test_at_one_place_four_metrics_agree(self, case: Case) -> None:
        value = self.values(*case)
        for metric in ("mrr", "precision"):
            np.testing.assert_array_equal(value[f"{metric}_at_1"], value["hit_rate_at_1"])
        np.testing.assert_allclose(value["map_at_1"], value["recall_at_1"])

    @given(lists_strategy.filter(lambda items: len(items) > 1), grades_strategy, st.data())
    def test_the_better_of_two_places_first_never_lowers_ndcg_mrr_or_map(
        self, items: list[int], truth: Grades, data: st.DataObject
    ) -> None:
        places = st.sampled_from(range(len(items)))
        high, low = sorted(data.draw(st.lists(places, min_size=2, max_size=2, unique=True)))
        worse, better = sorted([items[high], items[low]], key=lambda item: truth.get(item, 0))
        good, bad = items.copy(), items.copy()
        good[high], good[low] = better, worse
        bad[high], bad[low] = worse, better
        above, below = self.values([good], [truth]), self.values([bad], [truth])
        for metric in ("ndcg", "mrr", "map"):
            for k in self.ks:
                assert above[f"{metric}_at_{k}"][0] >= below[f"{metric}_at_{k}"][0] - 1e-12, (metric, k)
        if truth.get(better, 0) > truth.get(worse, 0):
            assert above[f"ndcg_at_{WIDTH}"][0] > below[f"ndcg_at_{WIDTH}"][0]

    @given(grades_strategy.filter(bool))
    def test_the_truth_by_grade_is_the_perfect_list(self, truth: Grades) -> None:
        value = self.values([sorted(truth, key=lambda item: -truth[item])], [truth])
        for k in self.ks:
            assert value[f"ndcg_at_{k}"][0] == 1
        assert value[f"map_at_{WIDTH}"][0] == value[f"recall_at_{WIDTH}"][0] == value["mrr_at_1"][0] == 1

    @given(queries_strategy, st.randoms(use_true_random=False))
    def test_permuting_the_queries_permutes_the_values(self, case: Case, random) -> None:
        lists, truth = case
        order = random.sample(range(len(lists)), len(lists))
        permuted = self.values([lists[r] for r in order], [truth[r] for r in order])
        for name, values in self.values(lists, truth).items():
            np.testing.assert_array_equal(permuted[name], values[order], err_msg=name)

    @given(queries_strategy, st.integers(1, 9))
    def test_padding_changes_nothing(self, case: Case, more: int) -> None:
        wide = self.values(*case, width=WIDTH + more)
        for name, values in self.values(*case).items():
            np.testing.assert_array_equal(wide[name], values, err_msg=name)


class TestCandidateRecall:
    def test_by_hand(self) -> None:
        pool = pool_of([{2: 0.1, 4: 0.9, 6: 0.5}, {1: 0.3}, {}])
        truth = truth_of([{2: 1, 6: 1, 9: 1, 4: 3}, {}, {1: 1}])
        assert metrics.retrieval_rank(pool, truth).tolist() == [3, 1, 2, 0, 0]
        value = metrics.candidate_recall(pool, truth, ks=(1, 2, 200))
        assert {name: values.tolist() for name, values in value.items()} == {
            "recall_at_1": [1 / 4, 0, 0],
            "recall_at_2": [2 / 4, 0, 0],
            "recall_at_200": [3 / 4, 0, 0],
        }

    def test_ties_go_to_the_lower_item_number(self) -> None:
        pool = pool_of([{2: 0.5, 4: 0.5, 6: 0.7}])
        assert metrics.retrieval_rank(pool, truth_of([{2: 1, 4: 1, 6: 1}])).tolist() == [2, 3, 1]

    def test_places_are_those_of_the_order(self) -> None:
        """Equal scores keep retrieval order (item 6 before 2 and 4), and where that ties too go by item number."""
        pool = pool_of([{2: 0.5, 4: 0.5, 6: 0.7, 8: 0.1}])
        score = np.array([1, 1, 1, 2], np.float32)
        assert pool.order(score, 4).item.tolist() == [[8, 6, 2, 4]]
        assert metrics.places(pool, np.arange(4), score).tolist() == [3, 4, 2, 1]

    def test_nothing_retrieved_or_nothing_true(self) -> None:
        assert metrics.candidate_recall(pool_of([{}, {}]), truth_of([{1: 1}, {}]))["recall_at_500"].tolist() == [0, 0]
        assert metrics.candidate_recall(pool_of([{1: 1}]), truth_of([{}]))["recall_at_10"].tolist() == [0]

    @given(
        st.lists(
            st.tuples(
                st.dictionaries(st.integers(0, N_ITEMS - 1), st.sampled_from([0.25, 0.5, 1.0])),
                grades_strategy,
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_is_the_recall_of_the_list_in_retrieval_order(self, rows: list[tuple[dict[int, float], Grades]]) -> None:
        pool, truth = pool_of([fusion for fusion, _ in rows]), truth_of([grades for _, grades in rows])
        ks = range(1, N_ITEMS + 2)
        expected = metrics.per_query(pool.retrieved(N_ITEMS + 1), truth, ks)
        for name, values in metrics.candidate_recall(pool, truth, ks).items():
            np.testing.assert_array_equal(values, expected[name], err_msg=name)


class TestParts:
    queries = queries_of([[(5, VIEW, 1), (2, VIEW, 2), (5, VIEW, 3)], [], [(7, VIEW, 4)]], now=100)
    truth = truth_of([{2: 1, 3: 2, 7: 3}, {5: 1}, {5: 1, 7: 2}])

    def test_revisit_looks_into_the_own_history_only(self) -> None:
        assert metrics.revisit(self.queries, self.truth).tolist() == [True, False, False, False, False, True]

    def test_split_keeps_items_grades_and_queries(self) -> None:
        again = metrics.revisit(self.queries, self.truth)
        revisits, discoveries = metrics.split_truth(self.truth, again), metrics.split_truth(self.truth, ~again)
        assert (revisits.item.tolist(), revisits.grade.tolist()) == ([2, 7], [1, 2])
        assert revisits.count.tolist() == [1, 0, 1]
        assert (discoveries.item.tolist(), discoveries.grade.tolist()) == ([3, 7, 5, 5], [2, 3, 1, 1])
        assert discoveries.count.tolist() == [2, 1, 1]

    def test_mean_over_the_queries_with_a_target_of_the_part(self) -> None:
        revisits = metrics.split_truth(self.truth, metrics.revisit(self.queries, self.truth))
        value = metrics.per_query(ranking_of([[2], [5], [5]]), revisits, ks=(1,))
        assert metrics.mean(value)["recall_at_1"] == pytest.approx(1 / 3)
        assert metrics.mean(value, where=revisits.count > 0)["recall_at_1"] == 1 / 2
        assert isnan(metrics.mean(value, where=np.zeros(3, dtype=bool))["recall_at_1"])

    @pytest.mark.parametrize("name", metrics.BUILT_IN)
    def test_one_metric_alone_has_the_values_that_it_has_among_all(self, name: str) -> None:
        lists, truth = ranking_of([[7, 3, 8, 5], [1], []]), truth_of([{3: 1, 5: 3, 6: 2}, {1: 1}, {2: 1}])
        alone = metrics.per_query(lists, truth, (1, 4, 9), metrics.load([name]))
        every = metrics.per_query(lists, truth, (1, 4, 9))
        assert list(alone) == [f"{name}_at_{k}" for k in (1, 4, 9)]
        for key, values in alone.items():
            np.testing.assert_array_equal(values, every[key])

    def test_different_queries_are_refused(self) -> None:
        with pytest.raises(ValueError, match="truth is of 1 queries"):
            metrics.revisit(self.queries, truth_of([{1: 1}]))


OWN = """
import numpy as np
from recsys.evaluation.metrics import precision

LIMIT = 3

def spent(lists):
    price = np.append(np.nan_to_num(lists.past.catalogue.price), 0)
    return (price[lists.item] * lists.hit).cumsum(axis=1)

def of_a_query(lists):
    return lists.hits[:, -1]

def undefined(lists):
    return lists.hits / lists.relevant

def broken(lists):
    return lists.items
"""


class TestOnesOwn:
    @pytest.fixture(autouse=True)
    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        (tmp_path / "shop_of_mine").mkdir()
        (tmp_path / "shop_of_mine" / "measures.py").write_text(OWN)
        monkeypatch.syspath_prepend(tmp_path)
        yield
        for name in ("shop_of_mine", "shop_of_mine.measures"):
            sys.modules.pop(name, None)

    def test_a_function_is_a_metric_by_its_dotted_path(self) -> None:
        chosen = metrics.load(["recall", "shop_of_mine.measures.spent", "shop_of_mine.measures.precision"])
        assert list(chosen) == ["recall", "spent", "precision"]
        log = EventLog.build(np.zeros(3), np.arange(3), ["view"] * 3, np.arange(3))
        changes = pd.DataFrame({"item": np.arange(3), "time": 0, "property": "cost", "value": ["2", "3.5", "10"]})
        past = Shop.of(log, Catalogue.build(log.items, log.item_born, changes, price="cost"))
        lists, truth = ranking_of([[1, 2, 0], [0]]), truth_of([{0: 1, 1: 1, 7: 1}, {1: 1}])
        value = metrics.per_query(lists, truth, (1, 3, 5), chosen, past)
        assert {name: each.tolist() for name, each in value.items() if name.startswith("spent")} == {
            "spent_at_1": [3.5, 0],
            "spent_at_3": [5.5, 0],
            "spent_at_5": [5.5, 0],
        }
        assert value["precision_at_1"].tolist() == [1, 0]

    @pytest.mark.parametrize(
        ("names", "told"),
        [
            (["hitrate"], r"no metric is called 'hitrate'.*Did you mean 'hit_rate'"),
            (["shop_of_mine.measure.spent"], r"cannot import 'shop_of_mine.measure'"),
            (["shop_of_mine.measures.spend"], r"has no function 'spend'. Did you mean 'spent'"),
            (["shop_of_mine.measures.LIMIT"], r"has no function 'LIMIT'"),
            (["precision", "shop_of_mine.measures.precision"], r"wanted names that differ, found 'precision' twice"),
            (["shop_of_mine.measures.of_a_query"], r"of shape \(2, 3\), found \(2,\)"),
            (["shop_of_mine.measures.undefined"], r"undefined: wanted a number for every query and place, found nan"),
            (["shop_of_mine.measures.broken"], r"tried on two lists of three places: AttributeError: .*'items'"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:invalid value")
    def test_a_mistake_is_told_before_anything_is_measured(self, names: list[str], told: str) -> None:
        with pytest.raises(ConfigError, match=rf"^evaluation\.metrics: .*{told}"):
            metrics.load(names)

    def test_a_value_that_is_no_number_is_refused(self) -> None:
        with pytest.raises(DataError, match="odd: wanted a number for every query and place, found inf"):
            metrics.per_query(ranking_of([[1]]), truth_of([{1: 1}]), (1,), {"odd": lambda lists: lists.hits + np.inf})
