from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from logs import BUY, CART, KIND, VIEW, kinds_of

from recsys.shop import ragged
from recsys.shop.events import EventLog, days
from recsys.shop.identity import Vocabulary
from recsys.shop.pairs import pair_key
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop

EVENT = st.tuples(st.integers(0, 6), st.integers(0, 8), KIND, st.integers(0, 20))
EVENTS = st.lists(EVENT, min_size=1, max_size=40)
CATALOGUE = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 20)), max_size=12)
COUNTS = hnp.arrays(np.int64, st.integers(0, 12), elements=st.integers(0, 5))


def build(events, catalogue=(), own_id=lambda n: n * 7 + 3):
    user, item, kind, time = ([*column] for column in zip(*events, strict=True))
    ids, born = np.array(catalogue, dtype=np.int64).reshape(-1, 2).T
    return EventLog.build(
        np.array([own_id(int(u)) for u in user]),
        np.array([own_id(int(i)) for i in item]),
        kind,
        np.array(time),
        np.array([own_id(int(i)) for i in ids], dtype=np.int64) if len(ids) else None,
        born if len(ids) else None,
    )


def own(log):
    """The log's events under their own ids."""
    return list(zip(log.users.ids[log.user], log.items.ids[log.item], kinds_of(log), log.time, strict=True))


def assert_same(a, b):
    for name in ("user", "item", "kind", "time", "user_born", "item_born"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    np.testing.assert_array_equal(a.users.ids, b.users.ids)
    np.testing.assert_array_equal(a.items.ids, b.items.ids)


@pytest.fixture
def log():
    """Three events, and two catalogue rows: z is on the shelf before any event, x was bought before it was listed."""
    return EventLog.build(
        np.array(["b", "a", "a"], dtype=object),
        np.array(["x", "y", "x"], dtype=object),
        [VIEW, BUY, CART],
        np.array([30, 10, 20]),
        np.array(["z", "x"], dtype=object),
        np.array([5, 25]),
    )


def test_numbers_follow_first_appearance(log):
    assert list(log.users.ids) == ["a", "b"]
    assert list(log.items.ids) == ["z", "y", "x"]
    assert list(log.user_born) == [10, 30]
    assert list(log.item_born) == [5, 10, 20]


def test_events_are_sorted_by_time(log):
    assert own(log) == [("a", "y", BUY, 10), ("a", "x", CART, 20), ("b", "x", VIEW, 30)]
    assert [str(column.dtype) for column in (log.user, log.item, log.kind, log.time)] == ["int32", "int32", "int8", "int64"]


def test_before_excludes_its_own_time(log):
    past = Shop.of(log).before(20).log
    assert own(past) == [("a", "y", BUY, 10)]
    assert (past.n_users, past.n_items) == (1, 2)
    assert Shop.of(log).before(5).log.n_items == 0
    assert Shop.of(log).before(6).log.n_items == 1


def test_between_includes_its_start_and_excludes_its_end(log):
    assert own(log.between(10, 30)) == [("a", "y", BUY, 10), ("a", "x", CART, 20)]
    assert len(log.between(30, 10)) == 0


def test_views_share_memory(log):
    assert np.shares_memory(Shop.of(log).before(20).log.time, log.time)


def test_by_user_lists_each_users_events_oldest_first(log):
    indptr, order = log.by_user
    assert list(indptr) == [0, 2, 3]
    assert list(order) == [0, 1, 2]


def test_where_keeps_the_numbers(log):
    views = log.where(log.has_role("view"))
    assert own(views) == [("b", "x", VIEW, 30)]
    assert views.n_items == log.n_items


@given(EVENTS, CATALOGUE, st.randoms())
def test_row_order_does_not_matter(events, catalogue, random):
    shuffled, listed = random.sample(events, len(events)), random.sample(catalogue, len(catalogue))
    a, b = build(events, catalogue), build(shuffled, listed)
    assert_same(a, b)
    assert a.fingerprint == b.fingerprint


@given(EVENTS, CATALOGUE)
def test_building_keeps_every_event(events, catalogue):
    log = build(events, catalogue)
    assert sorted(own(log)) == sorted((u * 7 + 3, i * 7 + 3, k, t) for u, i, k, t in events)


@given(EVENTS, CATALOGUE, st.integers(0, 21))
def test_the_past_is_what_a_log_without_a_future_would_be(events, catalogue, t):
    past = [e for e in events if e[3] < t]
    listed = [row for row in catalogue if row[1] < t]
    if past:
        assert_same(build(events, catalogue)._before(t), build(past, listed))
    else:
        assert len(build(events, catalogue)._before(t)) == 0


@given(EVENTS, st.integers(0, 21), st.integers(0, 21))
def test_before_and_between_share_out_the_events(events, a, b):
    log, (a, b) = build(events), sorted((a, b))
    assert own(Shop.of(log).before(b).log) == own(Shop.of(log).before(a).log) + own(log.between(a, b))


@given(EVENTS, EVENTS)
def test_fingerprints_are_equal_only_for_the_same_events(a, b):
    assert (build(a).fingerprint == build(b).fingerprint) == (sorted(a) == sorted(b))


def test_fingerprint_sees_the_own_ids():
    events = [(0, 0, VIEW, 1), (1, 1, VIEW, 2)]
    assert build(events).fingerprint != build(events, own_id=lambda n: n * 7 + 4).fingerprint


@pytest.mark.parametrize("ids", [np.array([30, 10, 20]), np.array(["b", "ü", "17"], dtype=object)])
def test_vocabulary_goes_there_and_back(ids):
    vocabulary = Vocabulary(ids)
    assert list(vocabulary.numbers(ids)) == [0, 1, 2]
    assert list(vocabulary.numbers(list(ids[::-1]))) == [2, 1, 0]


def test_vocabulary_reads_text_as_integers_where_ids_are_integers():
    vocabulary = Vocabulary(np.array([10, 20]))
    assert list(vocabulary.numbers(["20", "10", "x", None, "10.5", 20, "30"])) == [1, 0, -1, -1, -1, 1, -1]


def test_vocabulary_reads_integers_as_text_where_ids_are_text():
    assert list(Vocabulary(np.array(["10", "a"], dtype=object)).numbers([10, "a", 1])) == [0, 1, -1]


def test_vocabulary_does_not_round_large_ids():
    large = 2**53
    vocabulary = Vocabulary(np.array([large, large + 1]))
    assert list(vocabulary.numbers([str(large + 1), "not an id"])) == [1, -1]


@given(st.lists(st.integers(-(2**62), 2**62), unique=True, max_size=8), st.integers(0, 8))
def test_a_prefix_does_not_know_the_rest(ids, size):
    whole = Vocabulary(np.array(ids, dtype=np.int64))
    prefix = whole.prefix(min(size, len(ids)))
    assert list(prefix.ids) == ids[: len(prefix)]
    expected = [n if n < len(prefix) else -1 for n in range(len(ids))]
    assert list(prefix.numbers(ids)) == expected
    assert list(prefix.numbers([str(i) for i in ids])) == expected


@pytest.mark.parametrize("user", [np.array(["u1", "u2"], dtype=object), pd.array(["u1", "u2"], dtype="str"), np.array([1, 2])])
def test_ids_can_be_saved_as_parquet(user, tmp_path):
    log = EventLog.build(user, np.array([1, 1]), [VIEW, VIEW], np.array([1, 2]))
    assert isinstance(log.users.ids, np.ndarray)
    pq.write_table(pa.table({"id": log.users.ids}), tmp_path / "users.parquet")
    assert pq.read_table(tmp_path / "users.parquet")["id"].to_pylist() == list(user)


def test_days_in_milliseconds():
    assert (days(1), days(0.5)) == (86_400_000, 43_200_000)


@given(EVENTS, st.lists(st.integers(-1, 8), max_size=6), st.integers(0, 21))
def test_a_query_sees_its_own_users_past(events, users, t):
    history = build(events)._before(t)
    users = np.array([u for u in users if u < history.n_users], dtype=np.int32)
    queries = Queries.at(history, users, t)
    seen = [
        list(zip(queries.item[a:b], kinds_of(queries)[a:b], queries.event_time[a:b], strict=True))
        for a, b in pairwise(queries.indptr)
    ]
    everything = list(zip(history.user, history.item, kinds_of(history), history.time, strict=True))
    assert seen == [[event[1:] for event in everything if event[0] == user] for user in users]
    assert list(queries.row) == [row for row, events in enumerate(seen) for _ in events]


def test_queries_refuse_a_history_that_reaches_into_the_future(log):
    with pytest.raises(ValueError, match=r"shop\.before"):
        Queries.at(log, np.array([0], dtype=np.int32), 30)
    assert len(Queries.at(Shop.of(log).before(30).log, np.array([0], dtype=np.int32), 30)) == 1


def test_queries_can_be_taken(log):
    queries = Queries.at(log, np.array([0, -1, 1], dtype=np.int32), 31).take(np.array([2, 0]))
    assert list(queries.user) == [1, 0]
    assert list(queries.indptr) == [0, 1, 3]
    assert list(queries.event_time) == [30, 10, 20]


@given(st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 9)), st.integers(1, 4), max_size=15))
def test_grades_are_those_of_the_pairs(grades):
    pairs = sorted(grades)
    counts = np.bincount([row for row, _ in pairs], minlength=5)
    truth = Truth(
        ragged.from_counts(counts),
        np.array([item for _, item in pairs], dtype=np.int32),
        np.array([grades[pair] for pair in pairs], dtype=np.float32),
    )
    row, item = (part.ravel() for part in np.mgrid[0:5, -1:10])
    expected = [grades.get((r, i), 0) for r, i in zip(row.tolist(), item.tolist(), strict=True)]
    assert truth.grade_of(row, item).tolist() == expected
    assert truth.count.tolist() == counts.tolist()
    backwards = truth.take(np.arange(5)[::-1])
    assert backwards.grade_of(4 - row, item).tolist() == expected


def test_truth_of_grids():
    truth = Truth(np.array([0, 1, 1]), np.array([4], dtype=np.int32), np.array([2.0], dtype=np.float32))
    assert truth.grade_of(np.array([[0], [1]]), np.array([[4, 3, -1], [4, 3, -1]])).tolist() == [[2, 0, 0], [0, 0, 0]]


def test_pair_keys_ascend_by_row_then_item():
    keys = [pair_key(np.int64(row), np.int64(item)) for row in (0, 1, 70_000) for item in (0, 1, 2**31 - 1)]
    assert keys == sorted(set(keys))


def test_ragged_known_rows():
    indptr = ragged.from_counts(np.array([2, 0, 3]))
    assert list(indptr) == [0, 2, 2, 5]
    assert list(ragged.row_numbers(indptr)) == [0, 0, 2, 2, 2]
    assert list(ragged.within_row(indptr)) == [0, 1, 0, 1, 2]
    taken, positions = ragged.take(indptr, np.array([2, -1, 0]))
    assert list(taken) == [0, 3, 3, 5]
    assert list(positions) == [2, 3, 4, 0, 1]


@given(st.lists(st.lists(st.sampled_from([-1.5, -0.0, 0.0, 2.0, np.inf, -np.inf, np.nan]), max_size=6), max_size=6))
def test_ragged_rows_sort_as_numpy_sorts(rows):
    values = np.array([value for row in rows for value in row], dtype=np.float32)
    indptr = ragged.from_counts(np.array([len(row) for row in rows], dtype=np.int64))
    np.testing.assert_array_equal(ragged.descending(indptr, values), np.lexsort((-values, ragged.row_numbers(indptr))))


@given(COUNTS)
def test_ragged_pointers_from_counts_and_from_rows_agree(counts):
    indptr = ragged.from_counts(counts)
    assert list(ragged.from_sorted(ragged.row_numbers(indptr), len(counts))) == list(indptr)


@given(COUNTS, st.data())
def test_ragged_take_is_list_indexing(counts, data):
    indptr = ragged.from_counts(counts)
    rows = data.draw(st.lists(st.integers(-1, len(counts) - 1), max_size=10))
    taken, positions = ragged.take(indptr, np.array(rows, dtype=np.int64))
    lists = [list(range(indptr[r], indptr[r + 1])) if r >= 0 else [] for r in rows]
    assert [list(positions[a:b]) for a, b in pairwise(taken)] == lists
