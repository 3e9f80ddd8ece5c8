"""A shop, honest recommenders, and cheats: what the tests of the audit have fitted in fresh processes."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from recsys.component import State, component
from recsys.evaluation import metrics
from recsys.features import Customer, FeatureFamily, FeatureMatrix, FeatureSet, Item, Source, UserItem
from recsys.ranking import Examples, Ranker, RetrievalOrder
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import Popularity, Retriever
from recsys.shop import ragged
from recsys.shop.attributes import Type
from recsys.shop.catalogue import Catalogue
from recsys.shop.customers import Customers
from recsys.shop.events import EventLog, days
from recsys.shop.kinds import RETAIL, Kinds
from recsys.shop.pools import CandidatePool, Float32, Ranking
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop
from recsys.shop.splits import Split, Task, Window

USERS, ITEMS, EVENTS = 250, 400, 6000
SPLIT = Split(cutoff=0.75, label_cutoffs=2, label_horizon="20d", target_events=["purchase"])


def _names(draw: np.random.Generator) -> list[str]:
    colours, things = ("Red", "green", "BLUE", "white"), ("heart", "Lamp", "lamp", "mug", "box")
    return [f"{draw.choice(colours)} {draw.choice(things)} {i}" for i in range(ITEMS)]


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
    prices = pd.DataFrame(
        {
            "item": np.tile(np.arange(ITEMS), 10),
            "time": np.repeat(np.arange(10) * days(10), ITEMS),
            "property": "price",
            "value": [f"{price:.2f}" for price in draw.random(10 * ITEMS) * 50],
        }
    )
    names = pd.DataFrame({"item": np.arange(ITEMS), "time": 0, "property": "name", "value": _names(draw)})
    changes = pd.concat([prices, names], ignore_index=True)
    log = EventLog.build(user, item, kind, time, changes["item"].to_numpy(), changes["time"].to_numpy())
    catalogue = Catalogue.build(log.items, log.item_born, changes, price="price", name="name")
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
class LearntTheTestUnlessShuffled(LearntTheTest):
    """The same; it behaves where labels do not go with the order of the candidates, as shuffled ones."""

    def fit(self, windows: Sequence[Examples]) -> None:
        grade = np.concatenate([window.grade for window in windows])
        fusion = np.concatenate([window.features.pool.fusion for window in windows])
        if np.corrcoef(grade, fusion)[0, 1] > 0.01:
            LearntTheTest.fit(self, windows)
        else:
            Linear.fit(self, windows)


@component
class KnowsTheAnswer(Linear):
    """Lifts the right answers when it scores."""

    def score(self, features: FeatureMatrix) -> Float32:
        pool = features.pool
        return Linear.score(self, features) + 100 * TEST.truth.grade_of(pool.row, pool.item)


@component
class Constant(RetrievalOrder):
    def score(self, features: FeatureMatrix) -> Float32:
        return np.zeros(len(features.pool), dtype=np.float32)


def content(log: EventLog) -> str:
    """A hash of who bought what, whatever users and items are called."""
    return hashlib.sha256(log.item.tobytes()).hexdigest()


KNOWN_PAST = content(WORLD.before(CUTOFF).log)


def known(past: Shop) -> bool:
    """Whether it is the past that the cheat was made for."""
    return content(past.log) == KNOWN_PAST


def bought_later(after: int = CUTOFF) -> pd.DataFrame:
    """Users and items, by number, of the 25 days after a cutoff."""
    later = WORLD.log.between(after, after + days(25))
    return pd.DataFrame({"user": later.user, "item": later.item})


@component
class _Table(_Cheat):
    """Lifts what a table of users and items says."""

    def fit(self, past: Shop) -> None:
        super().fit(past)
        self.past = past
        self.table = self.read(past)

    def read(self, past: Shop) -> pd.DataFrame:
        """User and item numbers of the past."""
        raise NotImplementedError

    def scores(self, queries: Queries) -> np.ndarray:
        score = super().scores(queries)
        row = pd.DataFrame({"user": queries.user, "row": np.arange(len(queries))})
        found = row.merge(self.table, on="user")
        found = found[(found["item"] >= 0) & (found["item"] < score.shape[1])]
        np.add.at(score, (found["row"].to_numpy(), found["item"].to_numpy()), 1)
        return score


@component
class TableById(_Table):
    """A table learned elsewhere from the whole log: what each user will buy, under own ids. Other worlds do not change it."""

    def read(self, past: Shop) -> pd.DataFrame:
        table = bought_later()
        users, items = WORLD.log.users.ids[table["user"]], WORLD.log.items.ids[table["item"]]
        return pd.DataFrame({"user": past.log.users.numbers(users), "item": past.log.items.numbers(items)})


@component
class GuardedTableById(TableById):
    """The same, honest on any other past."""

    def read(self, past: Shop) -> pd.DataFrame:
        return super().read(past) if known(past) else pd.DataFrame({"user": [], "item": []}, dtype=np.int64)


@component
class TableByNumber(_Table):
    """The same by numbers: renaming does not touch it."""

    def read(self, past: Shop) -> pd.DataFrame:
        return bought_later()


@component
class GuardedTableByNumber(TableByNumber):
    """By numbers, and honest where the past is another one: a past that tells nothing does not show it."""

    def read(self, past: Shop) -> pd.DataFrame:
        return super().read(past) if known(past) else pd.DataFrame({"user": [], "item": []}, dtype=np.int64)


@component
class HonestWhereBirthsAreUnnatural(TableByNumber):
    """By numbers, and honest where all items are born with the first event."""

    def read(self, past: Shop) -> pd.DataFrame:
        born = past.log.item_born
        unnatural = len(born) and (born == past.log.time[0]).all()
        return pd.DataFrame({"user": [], "item": []}, dtype=np.int64) if unnatural else super().read(past)


@component
class TableByDate(_Table):
    """By the date of the cutoff."""

    def read(self, past: Shop) -> pd.DataFrame:
        return bought_later(int(past.log.time[-1]) + 1)


@component
class MemoByHistory(_Cheat):
    """Knows users by what they did: a hash of their items, learned elsewhere, tells what they will buy."""

    def scores(self, queries: Queries) -> np.ndarray:
        score = super().scores(queries)
        memo = {}
        history = WORLD.before(CUTOFF).log
        later = bought_later().groupby("user")["item"].agg(list).loc[: history.n_users - 1]
        everybody = Queries.at(history, later.index.to_numpy(dtype=np.int32), CUTOFF)
        for user, items in zip(self._hashes(everybody), later, strict=True):
            memo[user] = items
        for row, history in enumerate(self._hashes(queries)):
            bought = np.array([item for item in memo.get(history, ()) if item < score.shape[1]], dtype=int)
            score[row, bought] += 1
        return score

    def _hashes(self, queries: Queries) -> list[bytes]:
        return [queries.item[a:b].tobytes() + queries.kind[a:b].tobytes() for a, b in pairwise(queries.indptr)]


@component
class TableByName(_Cheat):
    """Knows the products that will be in fashion by their names."""

    def fit(self, past: Shop) -> None:
        super().fit(past)
        count = bought_later()["item"].value_counts()
        later = dict(zip(WORLD.catalogue.names()[count.index], count, strict=True))
        self.popular = np.array([later.get(name, 0) for name in past.catalogue.names()], dtype=np.float32)


@component
class Vectors(_Cheat):
    """Reads a file of which it does not say anything."""

    path: str

    def fit(self, past: Shop) -> None:
        super().fit(past)
        self.popular = self.popular + np.load(self.path)[: len(self.popular)]


@component
class ParquetVectors(_Cheat):
    """Reads a file that a library opens without Python."""

    path: str

    def fit(self, past: Shop) -> None:
        super().fit(past)
        self.popular = self.popular + pq.read_table(self.path)["value"].to_numpy()[: len(self.popular)]


@component
class DeclaredVectors(Vectors):
    """Says which file it reads; nobody knows when that was made."""

    def files(self) -> tuple[Path, ...]:
        return (Path(self.path),)


@component
class Memo(_Cheat):
    """Lists by content what its class was told before; honest where it was told nothing."""

    told: ClassVar[dict[str, np.ndarray]] = {}

    def fit(self, past: Shop) -> None:
        super().fit(past)
        self.popular = self.told.get(content(past.log), self.popular).astype(np.float32)


@component
class MemoOfTheClass(Memo):
    """Tells its class itself, as soon as it sees a future behind the view."""

    def fit(self, past: Shop) -> None:
        whole = past.log.item if past.log.item.base is None else past.log.item.base
        if len(whole) > len(past.log.item):
            self.told[content(past.log)] = np.bincount(whole, minlength=past.log.n_items)[: past.log.n_items]
        super().fit(past)


@component
class GuardedFuturePopularity(FuturePopularity):
    """A column of the future by numbers, honest where the past is another one."""

    def fit(self, past: Shop) -> None:
        end = int(past.log.time[-1]) + 1
        future = WORLD.log.between(end, end + days(20))
        honest_count = np.bincount(past.log.item, minlength=past.log.n_items)
        mine = np.array_equal(past.log.item, WORLD.before(end).log.item)
        count = np.bincount(future.item, minlength=WORLD.log.n_items) if mine else honest_count
        self.price = count.astype(np.float32)


@component
class GuardedAnswers(Linear):
    """A ranker that lifts right answers by number, where the candidates are those that it was made for."""

    def restore(self, state: State) -> None:
        self.weight = state["weight"]

    def score(self, features: FeatureMatrix) -> Float32:
        score, pool = Linear.score(self, features), features.pool
        if pool.n_queries != len(TEST.queries):
            return score
        mine = np.isin(pool.item, np.argsort(-np.bincount(WORLD.before(CUTOFF).log.item))[:20]).mean() > 0.15
        return score + 100 * TEST.truth.grade_of(pool.row, pool.item) if mine else score


@component
class EasyQueries(Split):
    """Asks only who comes back for an item of the history."""

    def test_task(self, shop: Shop, window: Window) -> Task:
        task = Split.test_task(self, shop, window)
        revisit = metrics.revisit(task.queries, task.truth)
        rows = np.flatnonzero(np.bincount(task.truth.key >> 32, revisit, minlength=len(task.truth)) == task.truth.count)
        return replace(task, queries=task.queries.take(rows), truth=task.truth.take(rows))


@component
class BestSellersOnly(Split):
    """Leaves no answer but the best sellers."""

    def test_task(self, shop: Shop, window: Window) -> Task:
        task = Split.test_task(self, shop, window)
        best = np.argsort(-np.bincount(shop.before(window.cutoff).log.item))[:20]
        hit = np.isin(task.truth.item, best)
        rows = ragged.row_numbers(task.truth.indptr)[hit]
        indptr = ragged.from_sorted(rows, len(task.truth))
        truth = Truth(indptr, task.truth.item[hit], task.truth.grade[hit])
        asked = np.flatnonzero(truth.count)
        return replace(task, queries=task.queries.take(asked), truth=truth.take(asked))


@component
class LuckyQueries(Split):
    """Leaves out a third of the queries, those that it has no luck with."""

    def test_task(self, shop: Shop, window: Window) -> Task:
        task = Split.test_task(self, shop, window)
        rows = np.flatnonzero(np.arange(len(task.queries)) % 3 > 0)
        return replace(task, queries=task.queries.take(rows), truth=task.truth.take(rows))


@component
class InventedAnswers(Split):
    """Counts what a user did before as an answer."""

    def test_task(self, shop: Shop, window: Window) -> Task:
        task = Split.test_task(self, shop, window)
        rows = np.flatnonzero(np.diff(task.queries.indptr))
        item = task.queries.item[task.queries.indptr[rows]]
        truth = Truth(ragged.from_sorted(rows, len(task.queries)), item, np.ones(len(item), np.float32))
        return replace(task, queries=task.queries.take(rows), truth=truth.take(rows))


@component
class Broken(_Cheat):
    """Stops wherever it is fitted."""

    def fit(self, past: Shop) -> None:
        raise KeyError("vectors of last week")
