"""What equal scores do to a result, worked by hand and against every order of the ties."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation import metrics, ties
from recsys.shop import ragged
from recsys.shop.pools import CandidatePool, Float32, Ranking
from recsys.shop.queries import Truth

OF = {"hit_rate": metrics.hit_rate, "ndcg": metrics.ndcg}
ITEMS = 5


def pool_of(lengths: list[int]) -> CandidatePool:
    indptr = ragged.from_counts(np.array(lengths))
    item = ragged.within_row(indptr).astype(np.int32)
    nothing = np.zeros((1, len(item)))
    return CandidatePool(indptr, item, ("s",), nothing.astype(np.int16), nothing.astype(np.float32), nothing[0])


def truth_of(rows: list[dict[int, float]]) -> Truth:
    pairs = [pair for row in rows for pair in sorted(row.items())]
    item, grade = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return Truth(ragged.from_counts(np.array([len(row) for row in rows])), item.astype(np.int32), grade.astype(np.float32))


def values(pool: CandidatePool, score: list[float], truth: Truth, k: int) -> dict[str, list[float]]:
    scores: Float32 = np.array(score, dtype=np.float32)
    found = ties.values(pool, scores, pool.order(scores, k + 1), truth, k, OF)
    assert list(found) == ties.names(k, list(OF))
    return {name: each.tolist() for name, each in found.items()}


def test_worked_by_hand():
    """Query 0: items 1, 2, 3 share the places 2 to 4, item 3 is right. Query 1: no ties; item 2 is right, at place 3.
    Query 2: a single candidate."""
    pool, truth = pool_of([4, 3, 1]), truth_of([{3: 1}, {2: 1}, {0: 1}])
    found = values(pool, [9, 5, 5, 5, 3, 2, 1, 0], truth, 3)
    np.testing.assert_array_equal(found["share_at_3"], [1 / 2, 0, np.nan])
    assert found["ndcg_at_3_best"] == pytest.approx([1 / np.log2(3), 1 / 2, 1])
    assert found["ndcg_at_3_worst"] == [0, 1 / 2, 1]
    assert found["hit_rate_at_3_best"] == [1, 1, 1]
    assert found["hit_rate_at_3_worst"] == [0, 1, 1]


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([0.0, 1.0, 2.0]), max_size=ITEMS),
            st.dictionaries(st.integers(0, ITEMS), st.sampled_from([1.0, 2.0]), max_size=3),
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 4),
)
def test_no_order_of_the_ties_is_better_or_worse(rows: list[tuple[list[float], dict[int, float]]], k: int):
    pool, truth = pool_of([len(scores) for scores, _ in rows]), truth_of([grades for _, grades in rows])
    found = values(pool, [score for scores, _ in rows for score in scores], truth, k)
    for q, (scores, grades) in enumerate(rows):
        groups = [[i for i, s in enumerate(scores) if s == level] for level in sorted(set(scores), reverse=True)]
        orders = [[i for group in each for i in group] for each in product(*map(permutations, groups))]
        item = np.full((len(orders), ITEMS), -1, np.int32)
        item[:, : len(scores)] = orders
        ranking = Ranking(item, np.where(item >= 0, 0, -np.inf).astype(np.float32))
        every = metrics.per_query(ranking, truth_of([grades] * len(orders)), [k], OF)
        for name, each in every.items():
            assert found[f"{name}_best"][q] == pytest.approx(each.max())
            assert found[f"{name}_worst"][q] == pytest.approx(each.min())
