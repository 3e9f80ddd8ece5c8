"""User kNN: by hand, and against a plain reading of its formula."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import BUY, KIND, VIEW, Row, kinds_of, queries_of
from logs import log_of as logged

from recsys.retrieval import UserKNN
from recsys.shop.events import MILLISECONDS_PER_DAY, EventLog
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop

DAY = MILLISECONDS_PER_DAY
WEIGHTS = {"view": 1.0, "addtocart": 3.0, "transaction": 5.0}
"""By the names of the kinds, where the default goes by role."""

# (user, item, kind, half days)
events = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), KIND, st.integers(0, 12)), min_size=1, max_size=50)


def log_of(rows: list[Row]) -> EventLog:
    return logged(rows, DAY // 2)


def fitted(log: EventLog, **options: object) -> UserKNN:
    model = UserKNN(**options)
    model.fit(Shop.of(log))
    return model


def slowly(log: EventLog, time: int, half_life: float, own: float, k: int) -> list[dict[int, float]]:
    """Scores of every item for every user of the log, as the docstring says them."""

    def taste(user: int, now: int) -> dict[int, float]:
        days: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)
        for u, i, kind, at in zip(log.user, log.item, kinds_of(log), log.time, strict=True):
            if u == user:
                days[int(i), int(at // DAY)].append((WEIGHTS[kind], int(at)))
        total: dict[int, float] = defaultdict(float)
        for (item, _), met in days.items():
            age = (now - max(at for _, at in met)) / DAY
            total[item] += max(weight for weight, _ in met) * 2 ** (-age / half_life)
        return dict(total)

    users = range(log.n_users)
    stored = {u: taste(u, int(log.time[-1]) + 1) for u in users}
    idf = {i: math.log((log.n_users + 1) / sum(i in v for v in stored.values())) for i in range(log.n_items)}

    def cosine(a: dict[int, float], b: dict[int, float]) -> float:
        length = math.sqrt(sum((v * idf[i]) ** 2 for i, v in a.items()) * sum((v * idf[i]) ** 2 for i, v in b.items()))
        return sum(v * b.get(i, 0) * idf[i] ** 2 for i, v in a.items()) / length if length else 0.0

    answers = []
    for u in users:
        mine = taste(u, time)
        like = sorted(((cosine(mine, v), -n) for n, v in stored.items() if n != u and len(v) > 1), reverse=True)[:k]
        near = [(c, stored[-n]) for c, n in like if c > 0]
        whole = sum(c * sum(v.values()) for c, v in near)
        score: dict[int, float] = defaultdict(float)
        for item, value in mine.items():
            score[item] += own * value / sum(mine.values())
        for c, v in near:
            for item, value in v.items():
                score[item] += (1 - own) * c * value / whole
        answers.append({item: value for item, value in score.items() if value > 0})
    return answers


@settings(max_examples=60, deadline=None)
@given(rows=events, half_life=st.sampled_from([0.5, 30.0]), own=st.sampled_from([0.0, 0.3, 1.0]))
def test_as_the_formula_says(rows: list[Row], half_life: float, own: float) -> None:
    log = log_of(rows)
    time = int(log.time[-1]) + DAY
    queries = Queries.at(log, np.arange(log.n_users, dtype=np.int32), time)
    ranking = fitted(log, half_life_days=half_life, own=own, weights=WEIGHTS).retrieve(queries, 10)
    for row, wanted in enumerate(slowly(log, time, half_life, own, k=300)):
        found = dict(zip(ranking.item[row][: ranking.length[row]].tolist(), ranking.score[row].tolist(), strict=False))
        assert found.keys() == wanted.keys()
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-7)


def test_by_hand() -> None:
    # Users 0 and 1 bought item 0; user 1 bought item 1 as well. User 2 shares nothing, user 3 has one item only.
    log = log_of([(0, 0, BUY, 0), (1, 0, BUY, 0), (1, 1, BUY, 0), (2, 2, BUY, 0), (2, 3, BUY, 0), (3, 0, BUY, 0)])
    queries = Queries.at(log, np.array([0], dtype=np.int32), DAY)
    ranking = fitted(log, own=0.4, half_life_days=1e9).retrieve(queries, 5)
    assert ranking.item[0].tolist() == [0, 1, -1, -1, -1]
    np.testing.assert_allclose(ranking.score[0][:2], [0.4 + 0.6 / 2, 0.6 / 2], rtol=1e-6)


def test_only_the_newest_users_of_an_item_and_the_nearest_vote() -> None:
    rows = [(0, 0, BUY, 0)] + [(u, i, BUY, u) for u in (1, 2, 3) for i in (0, u)]
    log = log_of(rows)
    queries = Queries.at(log, np.array([0], dtype=np.int32), 10 * DAY)
    everybody = fitted(log, own=0.0).retrieve(queries, 10)
    newest = fitted(log, own=0.0, sample_size=1).retrieve(queries, 10)
    assert set(everybody.item[0][everybody.item[0] >= 0]) == {0, 1, 2, 3}
    assert set(newest.item[0][newest.item[0] >= 0]) == {0, 3}
    assert fitted(log, own=0.0, k=1).retrieve(queries, 10).length[0] == 2


def test_a_stranger_with_a_history_of_the_moment_has_neighbours_too() -> None:
    log = log_of([(1, 0, BUY, 0), (1, 1, BUY, 0), (2, 2, BUY, 0), (2, 3, BUY, 0)])
    stranger = queries_of([[(0, VIEW, DAY)]], now=2 * DAY)
    assert fitted(log).retrieve(stranger, 5).item[0].tolist() == [0, 1, -1, -1, -1]
