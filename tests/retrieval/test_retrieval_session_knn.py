"""Session kNN: by hand, and against a plain reading of its formula."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import BUY, KIND, VIEW, Row, kinds_of
from logs import log_of as logged

from recsys.retrieval import SessionKNN
from recsys.retrieval.session_knn import decay
from recsys.shop.events import MILLISECONDS_PER_DAY, EventLog
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop

DAY = MILLISECONDS_PER_DAY
MINUTE = 60_000
Event = tuple[int, int, str]
"""Time, item, kind."""
ONE = {"view": 1.0, "cart": 1.0, "purchase": 1.0}
PLAIN = {
    "position": "same",
    "match": "same",
    "norm": "query",
    "age_scale_days": None,
    "distance_scale": None,
    "idf_weight": 0.0,
    "weights": ONE,
    "boost": 0.0,
    "reminders": 0.0,
    "extend": 0,
}

# (user, item, kind, ten minutes): sessions break where three steps are exceeded.
events = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), KIND, st.integers(0, 25)), min_size=1, max_size=40)
options = st.fixed_dictionaries(
    {
        "k": st.sampled_from([1, 3, 300]),
        "sample_size": st.sampled_from([1, 2, 1000]),
        "extend": st.sampled_from([0, 2, 50]),
        "session_items": st.sampled_from([1, 3, 100]),
        "position": st.sampled_from(["same", "div", "linear", "log", "quadratic", "exp"]),
        "match": st.sampled_from(["same", "linear", "exp"]),
        "norm": st.sampled_from(["query", "cosine"]),
        "age_scale_days": st.sampled_from([None, 0.1]),
        "distance_scale": st.sampled_from([None, 1.0]),
        "idf_weight": st.sampled_from([0.0, 2.0]),
        "boost": st.sampled_from([0.0, 0.5]),
        "reminders": st.sampled_from([0.0, 0.7]),
        "reminder_sessions": st.sampled_from([1, 2]),
        "seen": st.sampled_from(["keep", "drop_bought", "drop_touched"]),
    }
)


def log_of(rows: list[Row], unit: int = 10 * MINUTE) -> EventLog:
    return logged(rows, unit)


def fitted(log: EventLog, **kwargs) -> SessionKNN:
    retriever = SessionKNN(**kwargs)
    retriever.fit(Shop.of(log))
    return retriever


def sessions_of(history: list[Event], pause: float) -> list[list[Event]]:
    """(time, item, kind) of one user, oldest first, cut where the pause is exceeded."""
    cut: list[list[Event]] = []
    for event in history:
        if not cut or event[0] - cut[-1][-1][0] > pause:
            cut.append([])
        cut[-1].append(event)
    return cut


def places(session: list[Event]) -> dict[int, tuple[int, int]]:
    """Newest time and place (newer distinct times) of each item."""
    last = {item: time for time, item, _ in sorted(session)}
    times = sorted(set(last.values()), reverse=True)
    return {item: (time, times.index(time)) for item, time in last.items()}


def scored_slowly(log: EventLog, r: SessionKNN, user: int) -> dict[int, float]:
    pause = r.session_minutes * MINUTE
    known, kind_of = [], kinds_of(log)
    weight_of = dict(zip(log.kinds.names, log.kinds.weights(r.weights), strict=True))
    for other in range(log.n_users):
        mine = [(int(log.time[e]), int(log.item[e]), kind_of[e]) for e in np.flatnonzero(log.user == other)]
        known += [(other, session) for session in sessions_of(mine, pause)]
    own = [session for other, session in known if other == user]
    order = sorted(range(len(known)), key=lambda n: (-known[n][1][-1][0], n))
    known = [known[n] for n in order if len(places(known[n][1])) > 1]
    held = {i: [n for n, (_, session) in enumerate(known) if i in places(session)] for i in range(log.n_items)}

    everything = places([event for session in own for event in session])
    newest_first = sorted(everything, key=lambda i: (-everything[i][0], i))
    query = [i for n, i in enumerate(newest_first) if (i in places(own[-1]) or n < r.extend) and n < r.session_items]
    length = max(everything[i][1] for i in query) + 1

    def of_place(kind: str, i: int, scale: float) -> float:
        return float(decay(kind, np.array([everything[i][1]]), np.array([length]), scale)[0])

    end = max((session[-1][0] for _, session in known), default=0)
    likeness, matched = {}, {}
    for i in query:
        for n in held[i][: r.sample_size]:
            matched.setdefault(n, i)
            likeness[n] = likeness.get(n, 0.0) + of_place(r.position, i, r.position_scale)
    for n in likeness:
        other, session = known[n]
        likeness[n] /= len(query) if r.norm == "query" else math.sqrt(len(query) * len(places(session)))
        if r.age_scale_days is not None:
            likeness[n] *= math.exp(-(end - session[-1][0]) / DAY / r.age_scale_days)
        likeness[n] *= 1 + r.boost * (other == user)
    score: dict[int, float] = {}
    for n in sorted(likeness, key=lambda n: (-np.float32(likeness[n]), n))[: r.k]:
        at = places(known[n][1])
        for i, (_, place) in at.items():
            distance = 1.0 if r.distance_scale is None else math.exp(-abs(place - at[matched[n]][1]) / r.distance_scale)
            weight = max(weight_of[kind] for _, item, kind in known[n][1] if item == i)
            gain = 1 + r.idf_weight * math.log(len(known) / len(held[i]))
            match = of_place(r.match, matched[n], r.match_scale)
            score[i] = score.get(i, 0.0) + likeness[n] * match * distance * gain * weight
    best = max(score.values(), default=0.0) or 1.0
    for ago, session in reversed(list(enumerate(reversed(own)))):
        if ago < r.reminder_sessions:
            for i in places(session):
                first = min(a for a, s in enumerate(reversed(own)) if i in places(s))
                if ago == first:
                    score[i] = score.get(i, 0.0) + r.reminders * best / (1 + ago)
    dropped = {i for session in own for _, i, kind in session if r.seen == "drop_touched" or kind == BUY}
    return {i: s for i, s in score.items() if s > 0 and (r.seen == "keep" or i not in dropped)}


@settings(deadline=None, max_examples=150)
@given(events, options)
def test_as_a_plain_reading_of_the_formula(rows: list[Row], chosen: dict) -> None:
    log = log_of(rows)
    r = fitted(log, **chosen)
    users = np.arange(log.n_users, dtype=np.int32)
    ranking = r.retrieve(Queries.at(log, users, 100 * DAY), log.n_items)
    for user in users:
        expected = scored_slowly(log, r, user)
        found = {int(i): float(s) for i, s in zip(ranking.item[user], ranking.score[user], strict=True) if i >= 0}
        if r.k < len(r.sessions):
            continue  # equal likeness up to rounding may choose other neighbours
        assert found == pytest.approx(expected, rel=1e-4)


def test_neighbours_by_hand() -> None:
    """Newest session of user 0: items 1, 2. Users 1 and 2 share both and one of them, user 3 none."""
    user_1, user_2 = [(1, 1, VIEW, 0), (1, 2, VIEW, 1), (1, 5, VIEW, 2)], [(2, 2, VIEW, 20), (2, 6, BUY, 21)]
    user_3, user_0 = [(3, 7, VIEW, 30), (3, 8, VIEW, 31)], [(0, 9, VIEW, 0), (0, 1, VIEW, 60), (0, 2, VIEW, 61)]
    log = log_of([*user_1, *user_2, *user_3, *user_0])
    number = {int(own): n for n, own in enumerate(log.items.ids)}
    queries = Queries.at(log, np.array([0], np.int32) + log.users.numbers([0]), DAY)
    ranking = fitted(log, **PLAIN).retrieve(queries, 9)
    # sim: user 1 and the session itself 2/2, user 2 1/2. Item 2 is in all three, 1 in two, 5 and 6 in one.
    expected = {number[2]: 2.5, number[1]: 2.0, number[5]: 1.0, number[6]: 0.5}
    found = [i for i in ranking.item[0].tolist() if i >= 0]
    assert found == list(expected)
    assert ranking.score[0, :4].tolist() == list(expected.values())
    assert number[9] in fitted(log, **(PLAIN | {"reminders": 1.0})).retrieve(queries, 9).item[0]
    one = fitted(log, **(PLAIN | {"k": 1})).retrieve(queries, 9).item[0].tolist()
    assert sorted(i for i in one if i >= 0) == sorted([number[1], number[2]]), "the newest of two that are as like"


def test_the_newest_sessions_with_an_item_are_sampled() -> None:
    late = [(u, 1 + u, VIEW, 10 * u + 1) for u in range(4)]
    log = log_of([*((u, 0, VIEW, 10 * u) for u in range(4)), *late, (9, 0, VIEW, 90)])
    queries = Queries.at(log, log.users.numbers([9]), DAY)
    items = fitted(log, **(PLAIN | {"sample_size": 2})).retrieve(queries, 9).item[0]
    assert sorted(log.items.ids[items[items >= 0]].tolist()) == [0, 3, 4]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("same", [1, 1, 1]),
        ("div", [1, 3 / 4, 1 / 4]),
        ("linear", [1, 0.9, 0.7]),
        ("log", [1 / math.log10(1.7), 1 / math.log10(2.7), 1 / math.log10(4.7)]),
        ("quadratic", [1, 9 / 16, 1 / 16]),
        ("exp", [1, math.exp(-1 / 2), math.exp(-3 / 2)]),
    ],
)
def test_decay(kind, expected: list[float]) -> None:
    np.testing.assert_allclose(decay(kind, np.array([0, 1, 3]), np.array([4, 4, 4]), 2.0), expected)


def test_an_empty_log_and_an_unknown_user_get_nothing() -> None:
    log = log_of([(0, 0, VIEW, 0), (0, 1, VIEW, 1)])
    assert (fitted(log).retrieve(Queries.at(log, np.array([-1], np.int32), DAY), 3).item == -1).all()
    assert (fitted(Shop.of(log).before(0).log).retrieve(Queries.at(log, np.array([0], np.int32), DAY), 3).item == -1).all()
