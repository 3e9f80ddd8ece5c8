"""Covisitation: counts by hand and against a slow double loop, hops, and fits that continue one another."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import BUY, CART, KIND, VIEW, Row
from logs import log_of as logged

from recsys.errors import ConfigError
from recsys.retrieval import Covisitation, covisitation
from recsys.shop.events import MILLISECONDS_PER_DAY, EventLog
from recsys.shop.kinds import RETAIL
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop

DAY = MILLISECONDS_PER_DAY
PLAIN = {"step_power": 0.0, "age_half_life_days": None, "popularity_power": 0.0, "hop2": 0.0, "recency_power": 0.0}
ONE = {"view": 1.0, "cart": 1.0, "purchase": 1.0}

# (user, item, kind, quarter of a day): few of each, so that baskets, repeats and ties abound.
events = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), KIND, st.integers(0, 12)), min_size=1, max_size=30)
options = st.fixed_dictionaries(
    {
        "backward": st.sampled_from([0.0, 0.5, 1.0]),
        "max_steps": st.sampled_from([1, 3, 30]),
        "max_gap_days": st.sampled_from([0.3, 1.0, 90.0]),
        "max_events": st.sampled_from([1, 4, 100]),
        "step_power": st.sampled_from([0.0, 1.0]),
        "gap_half_life_days": st.sampled_from([None, 0.5]),
        "age_half_life_days": st.sampled_from([None, 1.0]),
        "popularity_power": st.sampled_from([0.0, 0.4, 1.0]),
        "neighbours": st.sampled_from([2, 200]),
        "hop2": st.sampled_from([0.0, 0.3]),
        "beam": st.sampled_from([1, 20]),
        "revisit": st.sampled_from([0.0, 1.0]),
        "seen": st.sampled_from(["keep", "drop_bought", "drop_touched"]),
    }
)


def log_of(rows: list[Row], unit: int = DAY // 4) -> EventLog:
    return logged(rows, unit)


def fitted(log: EventLog, **kwargs) -> Covisitation:
    retriever = Covisitation(**kwargs)
    retriever.fit(Shop.of(log))
    return retriever


def dense(retriever: Covisitation, n_items: int) -> np.ndarray:
    return retriever.matrix.matrix(n_items).toarray()


def counted_slowly(log: EventLog, r: Covisitation) -> np.ndarray:
    """M by a double loop over every user's events, as the docstring of `Covisitation` says."""
    counts: defaultdict[tuple[int, int], float] = defaultdict(float)
    leads, is_led_to = (log.kinds.weights(weights) for weights in (r.from_weights, r.to_weights))
    for user in range(log.n_users):
        mine = np.flatnonzero(log.user == user)
        for j, later in enumerate(mine):
            for earlier in mine[max(j - r.max_events, 0) : j]:
                a, b, gap = log.item[earlier], log.item[later], log.time[later] - log.time[earlier]
                steps = len(set(log.time[mine][(log.time[mine] >= log.time[earlier]) & (log.time[mine] < log.time[later])]))
                if a == b or steps > r.max_steps or gap > r.max_gap_days * DAY:
                    continue
                weight = max(steps, 1) ** -r.step_power
                weight *= 1 if r.gap_half_life_days is None else 0.5 ** (gap / DAY / r.gap_half_life_days)
                age = (log.time[-1] - log.time[later]) / DAY
                weight *= 1 if r.age_half_life_days is None else 0.5 ** (age / r.age_half_life_days)
                kind_a, kind_b = log.kind[earlier], log.kind[later]
                counts[a, b] += weight * leads[kind_a] * is_led_to[kind_b]
                back = 1.0 if steps == 0 else r.backward
                counts[b, a] += back * weight * leads[kind_b] * is_led_to[kind_a]
    matrix = np.zeros((log.n_items, log.n_items))
    for (a, b), count in counts.items():
        matrix[a, b] = count
    with np.errstate(divide="ignore", invalid="ignore"):
        matrix = np.nan_to_num(matrix * matrix.sum(axis=0) ** -r.popularity_power, nan=0.0, posinf=0.0)
        matrix = np.nan_to_num(matrix / matrix.sum(axis=1, keepdims=True))
    return matrix


class TestCounts:
    def test_kinds_and_steps_by_hand(self) -> None:
        log = log_of([(0, 0, VIEW, 0), (0, 1, CART, 4), (0, 2, BUY, 8)])
        r = fitted(log, **(PLAIN | {"step_power": 1.0, "backward": 0.5}))
        forward = [[0, 3, 5 / 2], [0, 0, 5], [0, 0, 0]]
        backward = [[0, 0, 0], [1, 0, 0], [1 / 2, 3, 0]]
        counts = np.array(forward) + 0.5 * np.array(backward)
        np.testing.assert_allclose(dense(r, 3), counts / counts.sum(axis=1, keepdims=True), rtol=1e-6)

    def test_gap_and_age_halve_by_hand(self) -> None:
        """Item 0 leads to 1 after a day, two days before the end; to 2 after two days, at the end."""
        log = log_of([(0, 0, VIEW, 0), (0, 1, VIEW, 4), (1, 0, VIEW, 4), (1, 2, VIEW, 12)])
        r = fitted(log, **(PLAIN | {"backward": 0.0, "gap_half_life_days": 1.0, "age_half_life_days": 2.0}))
        first, second = 1 / 2 * 1 / 2, 1 / 4
        np.testing.assert_allclose(dense(r, 3)[0], [0, first / (first + second), second / (first + second)], rtol=1e-6)

    def test_a_basket_pairs_both_ways_even_when_reading_forward_only(self) -> None:
        r = fitted(log_of([(0, 0, BUY, 0), (0, 1, BUY, 0), (0, 2, BUY, 1)]), **(PLAIN | {"backward": 0.0}))
        np.testing.assert_allclose(dense(r, 3), [[0, 0.5, 0.5], [0.5, 0, 0.5], [0, 0, 0]])

    def test_view_to_buy_counts_nothing_else(self) -> None:
        log = log_of([(0, 0, VIEW, 0), (0, 1, VIEW, 1), (0, 2, BUY, 2), (0, 3, BUY, 3)])
        kinds = {"from_weights": {"view": 1.0}, "to_weights": {"purchase": 1.0}, "backward": 0.0}
        assert np.argwhere(dense(fitted(log, **(PLAIN | kinds)), 4)).tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]

    @settings(deadline=None)
    @given(events, options)
    def test_as_the_double_loop(self, rows: list[Row], chosen: dict) -> None:
        log = log_of(rows)
        r = fitted(log, **(chosen | {"neighbours": 200}))
        np.testing.assert_allclose(dense(r, log.n_items), counted_slowly(log, r), rtol=1e-5, atol=1e-9)

    @settings(deadline=None)
    @given(events, st.integers(1, 3))
    def test_the_heaviest_neighbours_are_kept(self, rows: list[Row], k: int) -> None:
        log = log_of(rows)
        some, every = (dense(fitted(log, neighbours=n), log.n_items) for n in (k, 200))
        for row in range(log.n_items):
            order = sorted(range(log.n_items), key=lambda b: (-every[row, b], b))
            expected = np.zeros(log.n_items)
            expected[order[:k]] = every[row, order[:k]]
            np.testing.assert_array_equal(some[row], expected)


class TestRetrieval:
    def test_two_hops_reach_what_one_does_not(self) -> None:
        """0 → 1 → 2 in different histories; the query has 0 only."""
        log = log_of([(0, 0, VIEW, 0), (0, 1, VIEW, 1), (1, 1, VIEW, 0), (1, 2, VIEW, 1), (2, 0, VIEW, 2)])
        one = PLAIN | {"backward": 0.0, "revisit": 0.0}
        queries = Queries.at(log, np.array([2], np.int32), 9 * DAY)
        assert fitted(log, **one).retrieve(queries, 3).item.tolist() == [[1, -1, -1]]
        both = fitted(log, **(one | {"hop2": 0.5})).retrieve(queries, 3)
        assert both.item.tolist() == [[1, 2, -1]]
        np.testing.assert_allclose(both.score[0, :2], [1, 0.5])

    @settings(deadline=None)
    @given(events, options)
    def test_as_dense_algebra(self, rows: list[Row], chosen: dict) -> None:
        log = log_of(rows)
        r = fitted(log, **(chosen | {"recency_power": 0.0, "query_weights": ONE, "query_half_life_days": None}))
        users = np.array([-1, *range(log.n_users)], dtype=np.int32)
        queries = Queries.at(log, users, 100 * DAY)
        interest = np.zeros((len(users), log.n_items))
        np.add.at(interest, (queries.row, queries.item), 1.0)
        m = dense(r, log.n_items).astype(np.float64)
        if r.hop2:
            hop = (interest @ m).astype(np.float32)
            for row in range(len(users)):
                for b in sorted(range(log.n_items), key=lambda b: (-hop[row, b], b))[: r.beam]:
                    interest[row, b] += np.float32(r.hop2) * hop[row, b]
        expected = interest @ (m + r.revisit * np.eye(log.n_items))
        gone = r.excluded(queries)
        expected[gone >> 32, gone & 0xFFFFFFFF] = 0
        ranking = r.retrieve(queries, log.n_items)
        for row in range(len(users)):
            found = ranking.item[row][ranking.item[row] >= 0]
            assert set(found) == set(np.flatnonzero(expected[row].astype(np.float32) > 0))
            np.testing.assert_allclose(ranking.score[row, : len(found)], expected[row, found], rtol=1e-4)

    def test_an_unknown_user_and_an_empty_log_get_nothing(self) -> None:
        log = log_of([(0, 0, VIEW, 0), (0, 1, VIEW, 1)])
        assert (fitted(log).retrieve(Queries.at(log, np.array([-1], np.int32), DAY), 3).item == -1).all()
        nothing = Shop.of(log).before(0).log
        queries = Queries.at(log, np.array([0], np.int32), DAY)
        assert (fitted(nothing).retrieve(queries, 3).item == -1).all()


class TestContinuedFit:
    @settings(deadline=None)
    @given(events, options, st.lists(st.integers(0, 13), min_size=1, max_size=4))
    def test_is_a_fresh_fit_to_the_last_digit(self, rows: list, chosen: dict, cutoffs: list[int]) -> None:
        log = log_of(rows)
        continued = Covisitation(**chosen)
        for cutoff in cutoffs:
            past = Shop.of(log).before(cutoff * DAY // 4).log
            continued.fit(Shop.of(past))
            fresh = fitted(past, **chosen)
            for name, array in fresh.state().items():
                np.testing.assert_array_equal(continued.state()[name], array, err_msg=name)

    def test_counts_only_what_is_new(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(0)
        rows = [(int(u), int(i), VIEW, t) for t, (u, i) in enumerate(rng.integers(0, 9, size=(60, 2)))]
        log = log_of(rows)
        r = fitted(Shop.of(log).before(40 * DAY // 4).log)
        counted = []
        from recsys.retrieval import _pairs as pairs

        plain = pairs.pairs_back
        monkeypatch.setattr(pairs, "pairs_back", lambda first, *rest: counted.append(first) or plain(first, *rest))
        r.fit(Shop.of(log))
        other = log_of([(u, i // 2, k, t) for u, i, k, t in rows])
        r.fit(Shop.of(other))
        assert counted == [40, 0]

    def test_blocks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(1)
        draws = rng.integers(0, [5, 9, 3, 40], size=(200, 4)).tolist()
        log = log_of([(user, item, RETAIL.names[kind], time) for user, item, kind, time in draws])
        whole = fitted(log).state()
        monkeypatch.setattr(covisitation, "BLOCK_PAIRS", 7)
        for name, array in fitted(log).state().items():
            np.testing.assert_array_equal(whole[name], array)


def test_a_half_life_that_float64_cannot_hold_is_refused() -> None:
    log = log_of([(0, 0, VIEW, 0), (0, 1, VIEW, 40_000)])
    with pytest.raises(ConfigError, match=r"age_half_life_days: wanted at least 10 for a log of 10000 days, found 1"):
        fitted(log, age_half_life_days=1.0)
