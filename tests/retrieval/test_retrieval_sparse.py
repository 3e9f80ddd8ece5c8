"""Sparse rows: products, pruning and ties against plain sorting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import VIEW, queries_of

from recsys.retrieval import sparse
from recsys.retrieval._recent import RecentItems
from recsys.retrieval.sparse import SparseRows

N = 6
# Few distinct weights, so that ties abound; all sums are exact.
weights = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 2.0, -1.0])
square = st.lists(st.lists(weights, min_size=N, max_size=N), min_size=N, max_size=N).map(np.array)


def rows_of(matrix: np.ndarray) -> SparseRows:
    row, item = np.nonzero(matrix)
    return SparseRows.from_sorted(row, item, matrix[row, item], len(matrix))


def best(row: np.ndarray, k: int, allowed: np.ndarray) -> list[int]:
    return sorted((i for i in range(len(row)) if row[i] > 0 and allowed[i]), key=lambda i: (-row[i], i))[:k]


@settings(deadline=None)
@given(square, square, square, st.integers(0, 8), st.sampled_from([0.0, 1.0]))
def test_products_are_dense_algebra_and_a_sort(a: np.ndarray, b: np.ndarray, gone: np.ndarray, k: int, own: float) -> None:
    ranking = rows_of(a).times_top(rows_of(b), k, own, rows_of(gone))
    expected = a @ (b + own * np.eye(N))
    for row in range(N):
        items = best(expected[row], k, gone[row] == 0)
        assert ranking.item[row].tolist() == items + [-1] * (k - len(items))
        assert ranking.score[row, : len(items)].tolist() == expected[row, items].tolist()
        assert (ranking.score[row, len(items) :] == -np.inf).all()


@settings(deadline=None)
@given(square, st.integers(1, 8))
def test_pruning_is_a_sort(a: np.ndarray, k: int) -> None:
    a = np.abs(a)
    pruned = rows_of(a).pruned(k)
    for row in range(N):
        assert pruned.item[pruned.indptr[row] : pruned.indptr[row + 1]].tolist() == best(a[row], k, np.ones(N))


def test_an_item_that_the_matrix_does_not_know_is_ignored() -> None:
    query = SparseRows(np.array([0, 2]), np.array([0, 9], np.int32), np.array([1.0, 5.0], np.float32))
    ranking = query.times_top(rows_of(np.array([[0.0, 2.0], [0.0, 0.0]])), 3, own=1.0)
    assert ranking.item.tolist() == [[1, 0, -1]]


def test_many_rows_over_threads_and_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 3, size=(n, 40)) * (rng.random((n, 40)) < 0.1) for n in (3000, 40))
    whole = rows_of(a).times_top(rows_of(b), 5)
    for row, items in zip(a @ b, whole.item.tolist(), strict=True):
        assert [i for i in items if i >= 0] == best(row, 5, np.ones(40))
    monkeypatch.setattr(sparse, "RESULT_ROWS", 700)
    parts, expected = rows_of(a).times_pruned(rows_of(b), 5), SparseRows.from_ranking(whole)
    for name, array in expected.state().items():
        np.testing.assert_array_equal(parts.state()[name], array)


def test_recent_items_share_the_place_of_their_basket() -> None:
    histories = [[], [(7, VIEW, 1), (3, VIEW, 1), (9, VIEW, 5), (7, VIEW, 5), (4, VIEW, 8)], [(7, VIEW, 2)]]
    queries = queries_of(histories, now=9)
    recent = RecentItems.of(queries)
    assert list(zip(recent.row.tolist(), recent.item.tolist(), strict=True)) == [(1, 3), (1, 4), (1, 7), (1, 9), (2, 7)]
    assert recent.newest.tolist() == [1, 8, 5, 5, 2]
    assert recent.rank.tolist() == [3, 0, 1, 2, 0]
    assert recent.place.tolist() == [2, 0, 1, 1, 0]
    assert recent.item[recent.of_event].tolist() == queries.item.tolist()
