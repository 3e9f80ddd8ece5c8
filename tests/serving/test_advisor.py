from dataclasses import replace

import numpy as np
import pytest

from recsys.datasets import Dataset
from recsys.datasets.synthetic import Synthetic
from recsys.errors import NotFittedError
from recsys.features import FeatureSet, Item, Source, User, UserItem
from recsys.ranking import LambdaRank
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import ALS
from recsys.serving.advisor import Advisor, RecentEvents
from recsys.shop.events import EventLog, days
from recsys.shop.kinds import RETAIL, SIGNAL_WEIGHTS
from recsys.shop.queries import Queries
from recsys.shop.splits import Split

SPLIT = Split(cutoff="2015-08-15", horizon="28d", label_cutoffs=1)


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return Synthetic(scale=0.01, seed=3).load()


@pytest.fixture(scope="module")
def model(shop: Dataset) -> TwoStageRecommender:
    families = {"source": Source(), "user_item": UserItem(), "item": Item(), "user": User()}
    features = FeatureSet(families=list(families), definitions=families)
    fold = SPLIT.fold(shop)
    labels = [SPLIT.label_task(shop, window) for window in fold.labels]
    recommender = TwoStageRecommender(ALS(factors=8, iterations=3), features, LambdaRank(trees=20, min_data_in_leaf=5), 50)
    return recommender.fit(shop, fold.test.cutoff, labels)


@pytest.fixture(scope="module")
def advisor(model: TwoStageRecommender) -> Advisor:
    advisor = Advisor(model)
    advisor.warm_up()
    return advisor


@pytest.fixture(scope="module")
def later(shop: Dataset, model: TwoStageRecommender) -> EventLog:
    """Events after the cutoff by people and with items that the model knows."""
    log = shop.log.between(model.cutoff, model.cutoff + days(5))
    return log.where((log.user < model.history.n_users) & (log.item < model.history.n_items))


def recent(log: EventLog, users: np.ndarray) -> RecentEvents:
    return RecentEvents(np.searchsorted(users, log.user), log.items.ids[log.item], log.kind, log.time)


def lists(items: np.ndarray) -> list[list[object]]:
    return [[item for item in row if item is not None] for row in items]


def test_known_users_get_the_model_s_lists(model: TwoStageRecommender, advisor: Advisor):
    users = model.history.users.ids[np.bincount(model.history.user) > 2][:200]
    answers, expected = advisor.advise(users, 7), model.recommend(users, 7)
    assert not answers.fallback.any()
    np.testing.assert_array_equal(answers.item, expected.item)
    np.testing.assert_array_equal(answers.score, expected.score)


def test_recent_events_count_as_if_the_log_had_held_them(model: TwoStageRecommender, advisor: Advisor, later: EventLog):
    """The oracle is the same model asked with a longer log."""
    users, now = np.unique(later.user), int(later.time[-1]) + 60_000
    joined = (
        np.concatenate([getattr(log, name) for log in (model.history, later)]) for name in ("user", "item", "kind", "time")
    )
    longer = replace(model.history, **dict(zip(("user", "item", "kind", "time"), joined, strict=True)))
    queries = Queries.at(longer, users, now)
    expected = model.rank(model.pool(queries), queries, 10)
    answers = advisor.advise(model.history.users.ids[users], 10, recent(later, users), now)
    found = ~answers.fallback
    assert found.sum() > 20
    np.testing.assert_array_equal(answers.item[found], model.history.items.own(expected.item)[found])
    np.testing.assert_array_equal(answers.score[found], expected.score[found])
    alone = advisor.advise(model.history.users.ids[users], 10)
    assert (alone.item != answers.item).any(), "recent events change nothing"


def test_an_event_that_is_told_twice_or_known_already_counts_once(
    model: TwoStageRecommender, advisor: Advisor, later: EventLog
):
    users, now = np.unique(later.user), int(later.time[-1]) + 60_000
    events = recent(later, users)
    known = model.history.where(np.isin(model.history.user, users))
    again = recent(known, users)
    merged = RecentEvents(
        *(np.concatenate([getattr(e, f) for e in (events, again, events)]) for f in RecentEvents.__annotations__)
    )
    once, twice = (advisor.advise(model.history.users.ids[users], 10, each, now) for each in (events, merged))
    np.testing.assert_array_equal(once.item, twice.item)
    np.testing.assert_array_equal(once.score, twice.score)


def test_people_with_and_without_events_side_by_side(model: TwoStageRecommender, advisor: Advisor, later: EventLog):
    users, now = np.unique(later.user)[:6], int(later.time[-1]) + 60_000
    own = model.history.users.ids[users]
    log = later.where(np.isin(later.user, users[1::2]))
    mixed = advisor.advise([*own, "nobody", None], 5, recent(log, users), now, reasons=1)
    fresh = advisor.advise(own[1::2], 5, recent(log, users[1::2]), now, reasons=1)
    stored = advisor.advise(own[::2], 5, reasons=1)
    assert lists(mixed.item[1:6:2]) == lists(fresh.item)
    assert lists(mixed.item[:6:2]) == lists(stored.item)
    assert mixed.reasons[1:6:2] == fresh.reasons
    assert mixed.fallback.tolist()[6:] == [True, True]


def test_who_is_not_known_gets_what_is_popular_and_is_marked(model: TwoStageRecommender, advisor: Advisor):
    answers = advisor.advise(["a stranger", None, -5], 4, reasons=2)
    log = model.history.between(int(model.history.time[-1]) + 1 - days(28), model.cutoff)
    weight = log.weigh(SIGNAL_WEIGHTS)
    total = np.bincount(log.item, weight, minlength=model.history.n_items)
    best = np.lexsort((np.arange(len(total)), -total))[:4]
    assert answers.fallback.all()
    assert lists(answers.item) == [model.history.items.ids[best].tolist()] * 3
    assert answers.score[0].tolist() == total[best].tolist()
    assert [len(each) for each in answers.reasons] == [4, 4, 4]


def test_a_visitor_is_answered_by_events_alone(model: TwoStageRecommender, advisor: Advisor):
    item, kind = model.retriever.item[:2], RETAIL.numbers(["addtocart"] * 2)
    time, now = model.cutoff + np.array([1, 2]), model.cutoff + 9
    row = np.zeros(2, dtype=np.int64)
    answers = advisor.advise([None], 5, RecentEvents(row, model.history.items.ids[item], kind, time), now)
    query = Queries(np.array([-1], dtype=np.int32), now, np.array([0, 2]), item, kind, time, RETAIL)
    assert answers.fallback.tolist() == [False]
    np.testing.assert_array_equal(answers.item, model.history.items.own(model.rank(model.pool(query), query, 5).item))


def test_events_with_unknown_items_alone_say_nothing(model: TwoStageRecommender, advisor: Advisor):
    events = RecentEvents(np.zeros(1, np.int64), ["no such item"], RETAIL.numbers(["view"]), np.array([model.cutoff]))
    assert advisor.advise([None], 5, events).fallback.tolist() == [True]


@pytest.mark.parametrize(("event", "asked"), [(0, 0), (5, 5), (0, -1)])
def test_a_time_before_events_or_cutoff_is_refused(model: TwoStageRecommender, advisor: Advisor, event: int, asked: int):
    item = model.history.items.ids[:1]
    events = RecentEvents(np.zeros(1, np.int64), item, RETAIL.numbers(["view"]), np.array([model.cutoff + event]))
    with pytest.raises(ValueError, match="wanted a time not before the cutoff"):
        advisor.advise([None], 5, events, model.cutoff + asked)


def test_nobody_gets_nothing(advisor: Advisor):
    assert advisor.advise([], 5).item.shape == (0, 5)


def test_before_a_fit_there_is_no_advice(model: TwoStageRecommender):
    with pytest.raises(NotFittedError):
        Advisor(TwoStageRecommender(model.retriever, model.features, model.ranker))
