"""The audit: honest recommenders pass, and every cheat that we could think of is caught."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from recsys.audit._chance import among_random, edge, hits_beyond_chance, percentile
from recsys.audit.certificate import Check, certificate, verdict
from recsys.audit.leakage import audit
from recsys.audit.worlds import scrambled_future, uninformative_past, without_future
from recsys.component import State, component
from recsys.features import Customer, FeatureFamily, FeatureMatrix, FeatureSet, Item, Source, UserItem
from recsys.ranking import Examples, LambdaRank, Ranker, RetrievalOrder
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import ALS, History, Popularity, Retriever
from recsys.shop import ragged
from recsys.shop.attributes import Type
from recsys.shop.catalogue import Catalogue, CategoryTree
from recsys.shop.customers import Customers
from recsys.shop.events import EventLog, days
from recsys.shop.kinds import RETAIL, Kinds
from recsys.shop.pools import CandidatePool, Float32, Ranking
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop
from recsys.shop.splits import Split, Task, Window

USERS, ITEMS, EVENTS = 250, 400, 6000
SPLIT = Split(cutoff=0.75, label_cutoffs=2, label_horizon="20d", target_events=["purchase"])


def shop(seed: int = 0) -> Shop:
    """Users who come back to a few items of their own, over 100 days, with a price that changes."""
    draw = np.random.default_rng(seed)
    user = draw.integers(0, USERS, EVENTS)
    own = draw.zipf(1.3, EVENTS) % 4
    fashion = (draw.zipf(1.2, EVENTS) * 17) % ITEMS
    item = np.where(draw.random(EVENTS) < 0.5, fashion, (user * 7 + own * 31) % ITEMS)
    user = np.where((draw.random(EVENTS) < 0.2) & (np.arange(EVENTS) > EVENTS * 0.8), user + USERS, user)
    kind = draw.choice(RETAIL.names, EVENTS, p=[0.6, 0.2, 0.2])
    time = np.sort(draw.integers(0, days(100), EVENTS))
    changes = pd.DataFrame(
        {
            "item": np.tile(np.arange(ITEMS), 10),
            "time": np.repeat(np.arange(10) * days(10), ITEMS),
            "property": "price",
            "value": [f"{price:.2f}" for price in draw.random(10 * ITEMS) * 50],
        }
    )
    log = EventLog.build(user, item, kind, time, changes["item"].to_numpy(), changes["time"].to_numpy())
    catalogue = Catalogue.build(log.items, log.item_born, changes, price="price")
    return Shop(log, catalogue, customers(log, np.random.default_rng(seed + 1)))


def customers(log: EventLog, draw: np.random.Generator) -> Customers:
    """A country that says which items its people come back to, an age, a few words, and a plan that changes."""
    users = log.users.ids
    answers = {
        "country": [f"country {user % 7}" for user in users],
        "age": [str(age) for age in draw.integers(18, 90, len(users))],
        "about": [" ".join(draw.choice(["tea", "maps", "dogs", "boats"], 2)) for _ in users],
    }
    rows = [pd.DataFrame({"user": users, "time": 0, "property": name, "value": texts}) for name, texts in answers.items()]
    for time in (days(30), days(70), days(90)):
        plan = draw.choice(["free", "silver", f"gold since {time}"], len(users))
        rows.append(pd.DataFrame({"user": users, "time": time, "property": "plan", "value": plan}))
    types: dict[str, Type] = {"country": "category", "age": "number", "about": "words", "plan": "category"}
    return Customers.build(log.users, log.user_born, pd.concat(rows), types)


WORLD = shop()
FOLD = SPLIT.fold(WORLD)
CUTOFF = FOLD.test.cutoff
TEST = SPLIT.test_task(WORLD, FOLD.test)
"""What the cheats read behind the back of the flow, as a module-level global can."""


@component
class Price(FeatureFamily):
    """Honest: the price as of the cutoff."""

    def __post_init__(self) -> None:
        self.price = np.empty(0, dtype=np.float32)

    def columns(self, sources: tuple[str, ...], kinds: Kinds) -> tuple[str, ...]:
        return ("price",)

    def fit(self, past: Shop) -> None:
        self.price = self.read(past.catalogue)

    def read(self, catalogue: Catalogue) -> Float32:
        return catalogue.price

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        out[:, 0] = self.price[pool.item]


@component
class Linear(Ranker):
    """Ridge regression of the grades: a ranker that is fitted in no time."""

    def __post_init__(self) -> None:
        self.weight = np.empty(0)

    def fit(self, windows: Sequence[Examples]) -> None:
        values = np.concatenate([_filled(window.features) for window in windows]).astype(np.float64)
        grade = np.concatenate([window.grade for window in windows])
        self.weight = np.linalg.solve(values.T @ values + np.eye(values.shape[1]), values.T @ grade)

    def score(self, features: FeatureMatrix) -> Float32:
        return (_filled(features) @ self.weight).astype(np.float32)

    def state(self) -> State:
        return {"weight": self.weight}


def _filled(features: FeatureMatrix) -> Float32:
    return np.nan_to_num(features.values, nan=0.0)


TREES = {"trees": 20, "early_stopping": 10, "threads": 1, "min_data_in_leaf": 10, "leaves": 7}


def honest(retriever: Retriever | None = None, ranker: Ranker | None = None, **cheats: FeatureFamily) -> TwoStageRecommender:
    families: dict[str, FeatureFamily] = {
        "source": Source(),
        "user_item": UserItem(),
        "item": Item(),
        "price": Price(),
        "customer": Customer(),
        **cheats,
    }
    features = FeatureSet(families=list(families), definitions=families)
    return TwoStageRecommender(
        retriever or Popularity(),
        features,
        ranker or Linear(),
        candidates=60,
    )


def failures(build: Callable[[], TwoStageRecommender], split: Split = SPLIT) -> dict[str, str]:
    checks, _, _ = audit(WORLD, split, build)
    return {check.name: check.finding for check in checks if check.outcome == "fail"}


@pytest.mark.parametrize(
    "build",
    [
        lambda: honest(ALS(factors=8, iterations=3, threads=1)),
        lambda: honest(ranker=LambdaRank(**TREES)),
        lambda: honest(History(), RetrievalOrder()),
        lambda: honest(Popularity(window_days=None, seen="drop_touched"), RetrievalOrder()),
    ],
)
def test_honest_recommenders_pass(build: Callable[[], TwoStageRecommender]) -> None:
    checks, lists, task = audit(WORLD, SPLIT, build)
    assert [check for check in checks if check.outcome == "fail"] == []
    assert lists is not None
    assert len(lists) == len(task.queries)
    assert "no leak found" in verdict(checks)


@component
class _Cheat(Retriever):
    """Proposes what `wanted` gives: (row, item, score) of each proposal; then popular items."""

    name: ClassVar[str] = "cheat"

    def fit(self, past: Shop) -> None:
        log = past.log
        self.log = log
        self.popular = np.bincount(log.item, minlength=log.n_items).astype(np.float32)

    def scores(self, queries: Queries) -> np.ndarray:
        return np.tile(self.popular / self.popular.max(), (len(queries), 1))

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        score = self.scores(queries)
        row, item = np.divmod(np.arange(score.size), score.shape[1])
        return Ranking.from_rows(row, item.astype(np.int32), score.ravel().astype(np.float32), len(queries), k)


@component
class GlobalLog(_Cheat):
    """Looks up what its users will do in a log that it holds in a global."""

    def scores(self, queries: Queries) -> np.ndarray:
        score = super().scores(queries)
        future = WORLD.log.between(queries.time, queries.time + days(20))
        for row, user in enumerate(queries.user):
            bought = future.item[future.user == user]
            score[row, bought[bought < score.shape[1]]] += 1
        return score


@component
class GlobalPopularity(_Cheat):
    """Popular in the future, by a global."""

    def fit(self, past: Shop) -> None:
        log = past.log
        end = int(log.time[-1]) + 1
        future = WORLD.log.between(end, end + days(20))
        self.popular = np.bincount(future.item, minlength=WORLD.log.n_items)[: log.n_items].astype(np.float32)


@component
class BehindTheView(_Cheat):
    """Reads the whole log from which the past is a view."""

    def fit(self, past: Shop) -> None:
        log = past.log
        whole = log.item if log.item.base is None else log.item.base
        self.popular = np.bincount(whole, minlength=log.n_items)[: log.n_items].astype(np.float32)


@component
class WholeVocabulary(_Cheat):
    """Reads the ids of items to come, which a prefix of the vocabulary shares."""

    def fit(self, past: Shop) -> None:
        log = past.log
        super().fit(past)
        self.popular = self.popular + np.float32(len(log.users._all))
        self.popular[len(log.users._all) % log.n_items] += 1000


@component
class Dice(_Cheat):
    """Does not leak, but draws without a seed: nothing can be shown of it."""

    def fit(self, past: Shop) -> None:
        log = past.log
        self.popular = np.random.default_rng().random(log.n_items).astype(np.float32)


@component
class InjectedTruth(Popularity):
    """Adds the truth to the pool as candidates that no source proposed."""

    def pool(self, queries: Queries, k: int) -> CandidatePool:
        pool = Popularity.pool(self, queries, k)
        if queries.time != CUTOFF:
            return pool
        row = ragged.row_numbers(TEST.truth.indptr)
        known = TEST.truth.item < WORLD.before(CUTOFF).log.n_items
        missing = known & ~np.isin(TEST.truth.key, pool.key)
        rows, items = np.r_[pool.row, row[missing]], np.r_[pool.item, TEST.truth.item[missing]]
        order = np.lexsort((items, rows))
        more = int(missing.sum())
        return CandidatePool(
            ragged.from_sorted(rows[order], pool.n_queries),
            items[order],
            pool.sources,
            np.hstack([pool.rank, np.zeros((1, more), np.int16)])[:, order],
            np.hstack([pool.score, np.full((1, more), np.nan, np.float32)])[:, order],
            np.r_[pool.fusion, np.zeros(more, np.float32)][order],
        )


@pytest.mark.parametrize(
    ("cheat", "found_by"),
    [
        (GlobalLog, "lists from an uninformative past"),
        (GlobalPopularity, "lists from an uninformative past"),
        (BehindTheView, "future deleted"),
        (WholeVocabulary, "future deleted"),
        (InjectedTruth, "injected candidates"),
        (Dice, "same seed, same result"),
    ],
)
@pytest.mark.parametrize("ranker", [Linear, RetrievalOrder])
def test_retrievers_that_cheat_are_caught(cheat: type[Retriever], found_by: str, ranker: type[Ranker]) -> None:
    assert found_by in failures(lambda: honest(cheat(), ranker()))


@component
class FuturePopularity(Price):
    """Counts the events of an item after the cutoff too: its view's base is the whole log."""

    def fit(self, past: Shop) -> None:
        log = past.log
        self.price = np.bincount(log.item.base if log.item.base is not None else log.item, minlength=log.n_items).astype(
            np.float32
        )


@component
class GlobalFuturePopularity(FuturePopularity):
    """The same by a global variable, out of reach for what changes the data."""

    def fit(self, past: Shop) -> None:
        future = WORLD.log.between(CUTOFF, FOLD.test.end)
        self.price = np.bincount(future.item, minlength=WORLD.log.n_items).astype(np.float32)


@component
class CentredWindow(FuturePopularity):
    """Events of an item from a week before the cutoff to a week after it."""

    def fit(self, past: Shop) -> None:
        log = past.log
        item, time = (a if a.base is None else a.base for a in (log.item, log.time))
        near = np.abs(time - int(log.time[-1])) < days(7)
        self.price = np.bincount(item[near], minlength=WORLD.log.n_items).astype(np.float32)


@component
class CentredInTraining(FuturePopularity):
    """A centred window at the label cutoffs alone: nothing after the test cutoff, but the labels leak into training."""

    def fit(self, past: Shop) -> None:
        log = past.log
        item, time = (a if a.base is None else a.base for a in (log.item, log.time))
        near = (np.abs(time - int(log.time[-1])) < days(7)) & (time < CUTOFF)
        self.price = np.bincount(item[near], minlength=WORLD.log.n_items).astype(np.float32)


@component
class FuturePrice(Price):
    """The last price of all, not the last one before the cutoff."""

    def read(self, catalogue: Catalogue) -> Float32:
        item, value = (a if a.base is None else a.base for a in (catalogue.owner, catalogue.value))
        price = np.zeros(catalogue.n_items, dtype=np.float32)
        known = item < catalogue.n_items
        price[item[known]] = value[known]
        return price


@component
class FuturePlan(Price):
    """The last text of each customer, not the last one before the cutoff."""

    def fit(self, past: Shop) -> None:
        owner, value = (a if a.base is None else a.base for a in (past.customers.owner, past.customers.value))
        self.price = np.zeros(past.log.n_items, dtype=np.float32)
        self.price[: len(owner)] = (owner * 1000 + value)[-len(self.price) :][: len(owner)]


@component
class TruthItself(Price):
    """1 for the right answer."""

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        bought = WORLD.log.between(queries.time, queries.time + days(20))
        out[:, 0] = np.isin(queries.user[pool.row] * 1000 + pool.item, bought.user * 1000 + bought.item)


@pytest.mark.parametrize(
    ("cheat", "found_by"),
    [
        (FuturePopularity, "future deleted"),
        (FuturePopularity, "future scrambled"),
        (GlobalFuturePopularity, "features from an uninformative past"),
        (CentredWindow, "future deleted"),
        (CentredInTraining, "label window scrambled"),
        (FuturePrice, "future deleted"),
        (FuturePlan, "future deleted"),
        (TruthItself, "features from an uninformative past"),
    ],
)
def test_features_that_cheat_are_caught(cheat: type[FeatureFamily], found_by: str) -> None:
    found = failures(lambda: honest(cheat=cheat()))
    assert found_by in found
    if "uninformative" in found_by:
        assert "cheat__" in found[found_by]
    else:
        assert "feature" in found[found_by]


@component
class LabelsOfTheTest(Split):
    """Teaches the ranker the test's answers under the name of an older window."""

    def label_task(self, shop: Shop, window: Window) -> Task:
        task = self._task(shop, FOLD.test, "window", ["purchase"], 1)
        history = shop.before(window.cutoff).log
        known = task.queries.user < history.n_users
        users = task.queries.user[known]
        return replace(
            task, window=window, queries=Queries.at(history, users, window.cutoff), truth=task.truth.take(known.nonzero()[0])
        )


@component
class LateLabels(Split):
    """Label windows that reach into the test window."""

    def fold(self, log: EventLog):  # type: ignore[no-untyped-def]
        fold = Split.fold(self, log)
        return replace(fold, labels=(Window(CUTOFF - days(10), CUTOFF + days(10)),))


@pytest.mark.parametrize("split", [LabelsOfTheTest, LateLabels])
def test_labels_of_the_test_window_are_caught(split: type[Split]) -> None:
    settings = {name: value for name, value in SPLIT.settings().items() if name != "_target_"}
    assert "training labels" in failures(honest, split(**settings))


@component
class LearntTheTest(Linear):
    """Learns the test window instead of what it is given, by globals."""

    def fit(self, windows: Sequence[Examples]) -> None:
        recommender = honest()
        recommender.retriever.fit(WORLD.before(CUTOFF))
        recommender.features.fit(WORLD.before(CUTOFF))
        pool = recommender.retriever.pool(TEST.queries, 60)
        Linear.fit(self, [Examples(recommender.features.compute(pool, TEST.queries), TEST.truth)])


@component
class KnowsTheAnswer(Linear):
    """Lifts the right answers when it scores."""

    def score(self, features: FeatureMatrix) -> Float32:
        pool = features.pool
        return Linear.score(self, features) + 100 * TEST.truth.grade_of(pool.row, pool.item)


@pytest.mark.parametrize(
    ("cheat", "found_by"),
    [(LearntTheTest, "shuffled labels"), (KnowsTheAnswer, "features from an uninformative past")],
)
def test_rankers_that_cheat_are_caught(cheat: type[Ranker], found_by: str) -> None:
    found = failures(lambda: honest(ranker=cheat()))
    assert found_by in found


@component
class Constant(RetrievalOrder):
    def score(self, features: FeatureMatrix) -> Float32:
        return np.zeros(len(features.pool), dtype=np.float32)


def test_a_result_that_rests_on_ties_is_told() -> None:
    checks, _, _ = audit(WORLD, SPLIT, lambda: honest(ranker=Constant()))
    ties = next(check for check in checks if check.name == "ties")
    assert ties.outcome == "warn"
    assert ties.evidence["best"]["hit_rate"] > ties.evidence["worst"]["hit_rate"] == 0
    assert "look at: ties" in verdict(checks)


def test_the_past_of_a_world_without_future_is_the_same_past() -> None:
    gone = without_future(WORLD, CUTOFF)
    for world in (gone, scrambled_future(WORLD, CUTOFF)):
        assert world.before(CUTOFF).log.fingerprint == WORLD.before(CUTOFF).log.fingerprint
        assert np.array_equal(world.before(CUTOFF).catalogue.price, WORLD.before(CUTOFF).catalogue.price, equal_nan=True)
        assert world.before(CUTOFF).customers.fingerprint == WORLD.before(CUTOFF).customers.fingerprint
    assert gone.log.time.max() < CUTOFF
    assert gone.log.item.base is None
    assert len(gone.catalogue) == len(WORLD.before(CUTOFF).catalogue)


def test_a_scrambled_future_is_another_future() -> None:
    log = scrambled_future(WORLD, CUTOFF).log
    future = log.time >= CUTOFF
    assert future.sum() == (WORLD.log.time >= CUTOFF).sum()
    assert (log.item[future] == WORLD.log.item[future]).mean() < 0.05
    assert (np.diff(log.time) >= 0).all()


def test_the_uninformative_past_keeps_users_and_times_and_exchanges_items() -> None:
    past, log = WORLD.before(CUTOFF).log, uninformative_past(WORLD, CUTOFF).log
    assert np.array_equal(log.user, past.user)
    assert np.array_equal(log.time, past.time)
    assert np.array_equal(np.sort(np.bincount(log.item, minlength=log.n_items)), np.sort(np.bincount(past.item)))
    assert (log.item == past.item).mean() < 0.05


def test_other_worlds_have_other_customers() -> None:
    whole, past = WORLD.customers, WORLD.before(CUTOFF).customers
    gone, scrambled = without_future(WORLD, CUTOFF).customers, scrambled_future(WORLD, CUTOFF).customers
    assert gone.owner.base is None
    assert (len(gone), len(gone.texts), gone.n_users) == (len(past), len(past.texts), past.n_users)
    later = whole.time >= CUTOFF
    assert later.any()
    assert (scrambled.value[later] == whole.value[later]).mean() < 0.5
    moved = uninformative_past(WORLD, CUTOFF).customers
    assert np.array_equal(np.sort(moved.value), np.sort(past.value))
    assert (moved.latest("country") == past.latest("country")).mean() < 0.3
    assert (np.diff(moved.time) >= 0).all()
    assert (moved.time >= moved.born[moved.owner]).all()


def test_the_future_has_other_categories() -> None:
    draw = np.random.default_rng(0)
    log = EventLog.build(np.arange(50) % 5, np.arange(50) % 10, ["transaction"] * 50, np.arange(50) + 1)
    names = np.array(["a", "b", "c", "d", "e", "f"])
    rows = pd.DataFrame({"item": np.arange(10), "time": np.arange(10) * 5, "property": "c", "value": draw.choice(names, 10)})
    rows["time"] = np.maximum(rows["time"], log.item_born[log.items.numbers(rows["item"].to_numpy())])
    tree = CategoryTree.build([*names, "top", "unused"], [*["top"] * 4, "unused", "unused", None, None])
    world = Shop.of(log, Catalogue.build(log.items, log.item_born, rows, tree, category="c"))
    past = world.before(15).catalogue
    for other in (without_future(world, 15), scrambled_future(world, 15)):
        seen = other.before(15).catalogue
        assert list(seen.tree.category.ids) == list(past.tree.category.ids)
        assert list(seen.tree.parent) == list(past.tree.parent)
        assert list(seen.category) == list(past.category)
        assert other.catalogue.whole_tree is not None
        assert list(other.catalogue.whole_tree.category.ids) != list(tree.category.ids)


def test_percentiles_worked_by_hand() -> None:
    row = np.array([0, 0, 0, 1, 1, 1, 1, 2])
    value = np.array([3.0, 1.0, 2.0, 5.0, 5.0, np.nan, 9.0, 4.0])
    assert percentile(row, value).tolist() == [1, 0, 0.5, 0.5, 0.5, 0, 1, 0.5]


def test_edge_is_the_exact_standard_score() -> None:
    row = np.repeat(np.arange(2), 3)
    auc, z = edge(row, np.array([0.0, 1, 2, 0, 1, 2]), np.array([2, 5]))
    assert auc == 1
    assert z == pytest.approx(1 / np.sqrt(2 / 6))  # percentiles 0, ½, 1 have the variance 1/6, twice


def test_hits_are_compared_with_the_same_truth_of_other_items() -> None:
    rows = np.arange(100)
    truth = Truth(np.arange(101), (rows * 20).astype(np.int32), np.ones(100, np.float32))
    hit, by_chance, p = hits_beyond_chance(truth.key, truth, 2000)
    assert (hit, p) == (100, pytest.approx(1 / 20_499))
    assert by_chance == pytest.approx(1, abs=0.2)  # 1 of 100 numbers of a block, 100 times
    same_list = np.sort(np.concatenate([(rows << 32) | item for item in range(0, 2000, 7)]))
    assert hits_beyond_chance(same_list, truth, 2000)[2] > 0.01


def test_chance_raises_few_false_alarms() -> None:
    draw = np.random.default_rng(5)
    p = []
    for seed in range(200):
        item = np.sort(draw.integers(0, 500, 80)).astype(np.int32)
        truth = Truth(np.arange(81), item, np.ones(80, np.float32))
        popular = draw.choice(500, 10, replace=False)
        keys = np.sort(np.concatenate([(np.arange(80) << 32) | i for i in popular]))
        p.append(hits_beyond_chance(keys, truth, 500, seed)[2])
    assert np.mean(np.array(p) < 0.05) <= 0.09


def test_among_random_items_each_target_stands_once() -> None:
    row, item, chosen = among_random(TEST.truth, WORLD.log.n_items, each=10)
    keys = (row << 32) | item
    assert (np.diff(keys) > 0).all()
    assert np.isin(keys[chosen], TEST.truth.key).all()
    assert np.isin(np.delete(keys, chosen), TEST.truth.key).sum() == 0
    assert len(np.unique(item[chosen])) == len(chosen)


def test_a_certificate_says_what_failed() -> None:
    checks = [Check("past", "pass", "fine"), Check("future deleted", "fail", "the lists are not the same")]
    values = certificate(checks, {"config_hash": "abc"})
    assert values["clean"] is False
    assert values["verdict"] == "LEAKS: the lists are not the same"
    assert values["config_hash"] == "abc"
    assert [check["outcome"] for check in values["checks"]] == ["pass", "fail"]
