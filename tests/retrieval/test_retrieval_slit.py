"""SLIT: against a plain reading of its formula, and what it learns of an order in time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import BUY, KIND, VIEW, Row, kinds_of
from logs import log_of as logged

from recsys.component import construct
from recsys.errors import ConfigError
from recsys.retrieval import EASE, SLIT
from recsys.shop.events import MILLISECONDS_PER_DAY, EventLog
from recsys.shop.kinds import RETAIL
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop

DAY = MILLISECONDS_PER_DAY
WEIGHTS = {"view": 0.2, "cart": 0.6, "purchase": 1.0}
OF_KIND = dict(zip(RETAIL.names, WEIGHTS.values(), strict=True))
SMALL = {"horizon_days": 4.0, "step_days": 2.0, "min_users": 1, "neighbours": 50}

# (user, item, kind, half days)
events = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), KIND, st.integers(0, 40)), min_size=1, max_size=60)


def log_of(rows: list[Row]) -> EventLog:
    return logged(rows, DAY // 2)


def fitted(log: EventLog, **options: object) -> SLIT:
    model = SLIT(**options)
    model.fit(Shop.of(log))
    return model


def slowly(log: EventLog, time: int, regularization: float, half_life: float, normalisation: float) -> np.ndarray:
    """Scores of every item for every user of the log, as the docstring says them."""
    now, n = int(log.time[-1]) + 1, log.n_items
    horizon = max(min(4 * DAY, (now - int(log.time[0])) // 3), 1)

    def happened(user: int, first: int, end: int, target: bool) -> list[tuple[int, str, int]]:
        rows = zip(log.user, log.item, kinds_of(log), log.time, strict=True)
        return [(int(i), k, int(t)) for u, i, k, t in rows if u == user and first <= t < end and (k != VIEW or not target)]

    def x(user: int, at: int) -> np.ndarray:
        total = np.zeros(n)
        for item, kind, when in happened(user, 0, at, target=False):
            total[item] += OF_KIND[kind] * 2 ** (-(at - when) / DAY / half_life)
        root = np.sqrt(total)
        return root / root.sum() ** normalisation if root.any() else root

    def taken(user: int, first: int, end: int) -> np.ndarray:
        marked = np.zeros(n)
        marked[[item for item, _, _ in happened(user, first, end, target=True)]] = 1
        return marked

    def popularity(until: int) -> np.ndarray:
        each = [taken(user, until - horizon, until) for user in range(log.n_users)]
        return sum(each) / max(sum(marked.any() for marked in each), 1)

    rows, cutoff = [], now - horizon
    while cutoff - horizon >= log.time[0]:
        for user in range(log.n_users):
            y = taken(user, cutoff, cutoff + horizon)
            if happened(user, 0, cutoff, target=False) and y.any():
                rows.append((x(user, cutoff), y - popularity(cutoff), 1 / np.sqrt(y.sum())))
        cutoff -= 2 * DAY
    B, c = np.zeros((n, n)), np.zeros(n)
    if rows:
        X, Y, w = (np.array(part) for part in zip(*rows, strict=True))
        beta = (w[:, None] * X * Y).sum() / (w[:, None] * X * X).sum()
        X1 = np.column_stack([X, np.ones(len(X))])
        penalty = np.diag([*[regularization] * n, 0.0])
        solution = np.linalg.solve(X1.T @ (w[:, None] * X1) + penalty, X1.T @ (w[:, None] * (Y - beta * X)))
        B, c = solution[:n] + beta * np.eye(n), solution[n]
    return np.array([x(user, time) @ B + c + popularity(now) for user in range(log.n_users)])


@settings(deadline=None, max_examples=60)
@given(events, st.sampled_from([0.5, 40.0]), st.sampled_from([3.0, 365.0]), st.sampled_from([0.0, 0.3, 1.0]))
def test_scores_are_those_of_the_formula(
    rows: list[Row], regularization: float, half_life: float, normalisation: float
) -> None:
    log = log_of(rows)
    time = int(log.time[-1]) + DAY
    model = fitted(log, regularization=regularization, half_life_days=half_life, normalisation=normalisation, **SMALL)
    ranking = model.retrieve(Queries.at(log, np.arange(log.n_users, dtype=np.int32), time), log.n_items)
    expected = slowly(log, time, regularization, half_life, normalisation)
    for user, scores in enumerate(expected):
        found = ranking.item[user][ranking.item[user] >= 0]
        np.testing.assert_allclose(ranking.score[user, : len(found)], scores[found], atol=2e-4)
        assert (np.delete(scores, found) < 2e-4).all(), "an item with a good score is not proposed"


def in_turn() -> EventLog:
    """A hundred customers, one a day: each buys one of ten even items and, two weeks later, the odd one after it."""
    return log_of([(user, 2 * (user % 10) + late, BUY, 2 * (user + 14 * late)) for user in range(100) for late in (0, 1)])


def test_what_follows_is_not_what_came_before() -> None:
    """EASE knows that the two go together; which of them follows the other is told by what followed."""
    log = in_turn()
    numbers = log.items.numbers(np.arange(20))
    even, odd = numbers[::2], numbers[1::2]
    links = fitted(log, horizon_days=15, step_days=1, regularization=1.0).matrix.matrix(log.n_items).toarray()
    assert links[even, odd].min() > 0.3
    assert links[odd, even].max() < 0.1
    ease = EASE(regularization=1.0)
    ease.fit(Shop.of(log))
    together = ease.matrix.matrix(log.n_items).toarray()
    np.testing.assert_allclose(together[even, odd], together[odd, even], rtol=0.3)


@pytest.mark.parametrize("faithful", [True, False])
def test_with_a_high_penalty_all_items_are_come_back_to_alike(faithful: bool) -> None:
    rng = np.random.default_rng(0)
    user, item, time = rng.integers(0, [[8], [8], [80]], size=(3, 400))
    log = log_of([(u, u if faithful and rng.random() < 0.7 else i, BUY, t) for u, i, t in zip(user, item, time, strict=True)])
    links = fitted(log, regularization=1e7, horizon_days=7, step_days=2).matrix.matrix(log.n_items).toarray()[:-1]
    np.testing.assert_allclose(links, np.eye(log.n_items) * links[0, 0], atol=1e-3)
    assert (links[0, 0] > 0.1) == faithful


def test_a_visitor_is_answered_with_what_is_bought_of_late() -> None:
    rows = [(user, 0, BUY, user) for user in range(40)] + [(user, 1, BUY, 100 + user) for user in range(40)]
    log = log_of([*rows, (41, 2, BUY, 130)])
    ranking = fitted(log, min_users=1, horizon_days=15).retrieve(Queries.at(log, np.array([-1], np.int32), 100 * DAY), 2)
    assert ranking.item.tolist() == [[1, 2]]


def test_histories_that_say_nothing_leave_what_is_popular() -> None:
    views = [(user, user % 3, VIEW, user) for user in range(30)]
    log = log_of([*views, *((user, user % 2, BUY, 60 + user) for user in range(30))])
    model = fitted(log, weights={"purchase": 1.0}, step_days=1, min_users=1)
    ranking = model.retrieve(Queries.at(log, np.array([0, -1], np.int32), 50 * DAY), 3)
    assert np.isfinite(model.matrix.weight).all()
    assert ranking.item[1].tolist()[:2] == [0, 1]


def test_beyond_its_memory_bound_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"retriever.max_items.*30000.*found 30001"):
        construct({"_target_": "recsys.retrieval.SLIT", "max_items": 30_001}, "retriever")
