"""What became of each target, worked by hand on two queries."""

import numpy as np
import pytest

from recsys import targets
from recsys.component import component
from recsys.features import FeatureMatrix
from recsys.ranking import RetrievalOrder
from recsys.shop.events import EventLog
from recsys.shop.identity import Vocabulary
from recsys.shop.kinds import RETAIL
from recsys.shop.pools import CandidatePool, Float32, Ranking
from recsys.shop.queries import Queries, Truth
from recsys.shop.splits import Task, Window


@component
class Sum(RetrievalOrder):
    """Scores a candidate by the sum of its features."""

    reads = True

    def score(self, features: FeatureMatrix) -> Float32:
        return features.values.sum(axis=1)


def case() -> tuple[EventLog, Task, FeatureMatrix]:
    """Query 0: candidates 1, 2, 4 and targets 2 and 3. Query 1: candidate 0 and target 0, which it touched before."""
    indptr, item = np.array([0, 3, 4]), np.array([1, 2, 4, 0], np.int32)
    rank = np.array([[1, 2, 0, 1], [0, 1, 2, 0]], np.int16)
    pool = CandidatePool(indptr, item, ("als", "cart"), rank, np.zeros((2, 4), np.float32), np.array([3, 2, 1, 1], np.float32))
    values = np.asfortranarray(np.array([[5, 0], [1, 3], [0, 1], [1, 1]], np.float32))
    features = FeatureMatrix(values, ("a__x", "b__y"), ("a", "b"), pool)
    past = (np.array([0], np.int32), RETAIL.numbers(["view"]), np.zeros(1, np.int64))
    queries = Queries(np.array([0, 1], np.int32), 10, np.array([0, 0, 1]), *past, RETAIL)
    truth = Truth(np.array([0, 2, 3]), np.array([2, 3, 0], np.int32), np.array([4, 4, 1], np.float32))
    born = np.zeros(5, np.int64)
    users, items = Vocabulary(np.array(["ann", "bob"], dtype=object)), Vocabulary(np.arange(100, 105))
    log = EventLog(np.array([1], np.int32), *past, users, items, born[:2], born, RETAIL)
    return log, Task(Window(10, 20), queries, truth, {}), features


def test_places_of_every_target() -> None:
    log, task, features = case()
    score = Sum().score(features)
    found = targets.table(log, task, features, score, features.pool.order(score, 20), Sum(), 10, fold=3)
    assert found["user"].tolist() == ["ann", "ann", "bob"]
    assert found["item"].tolist() == [102, 103, 100]
    assert found["fold"].tolist() == [3, 3, 3]
    assert found["revisit"].tolist() == [False, False, True]
    assert found["in_pool"].tolist() == [True, False, True]
    assert found["two_stage"].tolist() == [2, 0, 1]
    assert found["retrieval"].tolist() == [2, 0, 1]
    assert found["source/als"].tolist() == [2, 0, 1]
    assert found["source/cart"].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("k", "wanted"),
    [
        (1, {"a": 1 - 5, "b": 3 - 0}),  # the second of the list, against the last of the first 1: item 1
        (2, {"a": 1 - 0, "b": 3 - 1}),  # among the first 2, against the best after them: item 4
    ],
)
def test_margins_are_what_the_family_adds_over_the_rival(k: int, wanted: dict[str, float]) -> None:
    _, task, features = case()
    lists: Ranking = features.pool.order(Sum().score(features), 20)
    found = targets.margins(features, np.array([2, 0, 1]), lists, task.truth, Sum(), k)
    assert {family: values[0] for family, values in found.items()} == wanted
    assert np.isnan([found["a"][1:], found["b"][1:]]).all()  # no candidate; no rival


def test_a_ranker_that_reads_no_features_has_no_margins() -> None:
    _, task, features = case()
    lists = features.pool.retrieved(20)
    assert targets.margins(features, np.array([2, 0, 1]), lists, task.truth, RetrievalOrder(), 1) == {}
