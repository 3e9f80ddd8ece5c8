"""A shop where everybody buys one thing that is known beforehand, with one stage broken at a time."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from logs import BUY, VIEW, log_of

from recsys.component import component
from recsys.datasets.base import Dataset, Funnel
from recsys.features import FeatureMatrix, FeatureSet
from recsys.judging import Evaluation, Judgement, judge_fold, summarise
from recsys.ranking import Examples, Ranker, RetrievalOrder
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import History, Popularity, Retriever
from recsys.retrieval.random import Random
from recsys.retrieval.union import Hybrid
from recsys.shop.catalogue import Catalogue
from recsys.shop.customers import Customers
from recsys.shop.pools import Float32, Ranking
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop
from recsys.shop.splits import Rolling, Split
from recsys.timing import Timings

DAY = 86_400_000
GROUPS, SIZE, VIEWS = 40, 10, 6


@component
class SameGroup(Retriever):
    """All items of the group of the query's first item: what a good item-to-item source would find here."""

    name: ClassVar[str] = "group"

    def fit(self, past: Shop) -> None:
        log = past.log
        self.group = log.items.ids[: log.n_items].astype(np.int64) // SIZE

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        wanted = self.group[queries.item[queries.indptr[:-1]]]
        row, item = np.nonzero(wanted[:, None] == self.group[None, :])
        forbidden = np.isin((row.astype(np.int64) << 32) | item, self.excluded(queries))
        row, item = row[~forbidden], item[~forbidden].astype(np.int32)
        return Ranking.from_rows(row, item, -item.astype(np.float32), len(queries), k)


@component
class Dice(Ranker):
    """A ranker that learned nothing."""

    learns: ClassVar[bool] = False
    reads: ClassVar[bool] = False

    def fit(self, windows: Sequence[Examples]) -> None: ...

    def score(self, features: FeatureMatrix) -> Float32:
        return np.random.default_rng(0).random(len(features.pool)).astype(np.float32)


@component
class Indifferent(Dice):
    """A ranker that cannot tell candidates apart."""

    def score(self, features: FeatureMatrix) -> Float32:
        return np.zeros(len(features.pool), dtype=np.float32)


def shop(n_users: int = 400, cold: float = 0.0) -> Dataset:
    """Each user views items of one group, and then buys one of them (7 of 10) or another of the group.

    A share of the users buys something that enters the shop only after the cutoff, on day 10.
    """
    rng = np.random.default_rng(7)
    rows = []
    for user in range(n_users):
        group = rng.integers(GROUPS)
        viewed = group * SIZE + rng.integers(0, SIZE, VIEWS)
        rows += [(user, item, VIEW, 1 + day) for day, item in enumerate(viewed)]
        bought = rng.choice(viewed) if rng.random() < 0.7 else group * SIZE + rng.integers(SIZE)
        rows.append((user, 10_000 + user if rng.random() < cold else bought, BUY, 11))
    log = log_of([(user, item, kind, day * DAY + i) for i, (user, item, kind, day) in enumerate(rows)])
    empty = Catalogue.empty(log.items, log.item_born), Customers.empty(log.users, log.user_born)
    return Dataset(log, *empty, "shop", Funnel(), "made up")


def union(*names: str, seen: str = "keep") -> Hybrid:
    definitions = {"history": History(), "group": SameGroup(), "random": Random()}
    return Hybrid(sources=list(names), definitions=definitions, fallback=[], seen=seen)


def judged(
    dataset: Dataset, retriever: Retriever, ranker: Ranker | None = None, candidates: int = 40, split: Split | None = None
) -> Judgement:
    split = split or Split(cutoff="1970-01-11", horizon="5d", target="next", label_cutoffs=0, cold_items="keep")
    features = FeatureSet(families=[], definitions={})
    recommender = TwoStageRecommender(retriever, features, ranker or RetrievalOrder(), candidates)
    evaluation = Evaluation(
        ks=[10], candidate_ks=[10, 100], baselines={"history": History(), "popularity": Popularity(), "random": Random()}
    )
    folds = []
    for number, fold in enumerate(split.folds(dataset)):
        test = split.test_task(dataset, fold.test)
        recommender.fit(dataset, test.window.cutoff)
        folds.append(judge_fold(evaluation, recommender, dataset, test, Timings(), number))
    return summarise(evaluation, folds, seed=0)


CASES = {
    "the history source is missing": (
        lambda: judged(shop(), Hybrid(sources=["random"], definitions={"random": Random()}, fallback=[])),
        "retrieval",
        "adding history",
    ),
    "the ranker draws lots": (
        lambda: judged(shop(), union("history", "group", "random"), Dice()),
        "ranking",
        "a perfect ranker",
    ),
    "the ranker draws lots from a poor pool": (lambda: judged(shop(), union("history", "random"), Dice()), "ranking", None),
    "half the items are new": (lambda: judged(shop(cold=0.5), union("history", "group")), "cold", None),
    "seen items are dropped": (
        lambda: judged(shop(), union("history", "group", seen="drop_touched")),
        "retrieval",
        "keeping seen items",
    ),
    "the budget is tiny": (
        lambda: judged(shop(), union("history", "group"), candidates=2),
        "retrieval",
        "doubling the candidates to 4",
    ),
    "there are few queries": (lambda: judged(shop(n_users=9), union("history", "random"), Dice()), "data", None),
    "next to nothing is lost": (lambda: judged(shop(), union("history", "group"), candidates=10), "data", None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_names_what_was_broken(case: str):
    make, bound, largest = CASES[case]
    found = make().verdict
    assert found.bound == bound, found.text
    if largest:
        assert max(found.levers, key=lambda lever: lever.gain.value).name == largest
        assert largest in found.text
    assert "\n" not in found.text


def test_a_verdict_gives_numbers_with_intervals_and_what_the_queries_resolve():
    found = judged(shop(), union("group", seen="drop_touched")).verdict
    lever = found.levers[1]
    assert f"{lever.gain.value:.3f} [{lever.gain.low:.3f}, {lever.gain.high:.3f}]" in found.text
    assert found.text.endswith(f"400 queries resolve no change below {found.resolution:.3f}")


def test_the_gain_of_keeping_seen_items_is_what_a_run_that_keeps_them_has():
    dropped, kept = (judged(shop(), union("history", "group", seen=seen)) for seen in ("drop_touched", "keep"))
    gain = next(lever.gain.value for lever in dropped.verdict.levers if lever.name == "keeping seen items")
    ceiling = "ceiling/hit_rate_at_10"
    assert gain == pytest.approx(kept.figures[ceiling] - dropped.figures[ceiling], abs=1e-12)


def test_the_gain_of_a_perfect_ranker_is_the_distance_to_the_ceiling():
    run = judged(shop(), union("history", "group", "random"), Dice())
    assert run.verdict.levers[0].gain.value == pytest.approx(
        run.figures["ceiling/hit_rate_at_10"] - run.figures["two_stage/hit_rate_at_10"]
    )


def test_judging_leaves_the_retriever_as_it_was():
    retriever = union("history", "group", seen="drop_touched")
    judged(shop(n_users=30), retriever)
    assert retriever.seen == "drop_touched"
    assert {retriever.definitions[name].seen for name in ("history", "group")} == {"drop_touched"}


def test_the_same_seed_gives_the_same_judgement():
    first, second = (judged(shop(n_users=60), union("history", "group", "random"), Dice()).flat() for _ in range(2))
    assert first == second


def test_folds_are_pooled_by_query_and_clustered_by_user():
    days = {"cutoff": "1970-01-06", "horizon": "1d", "test_step": "1d", "test_cutoffs": 3}
    split = Rolling(**days, target_events=["view"], label_cutoffs=0, cold_items="keep")
    run = judged(shop(n_users=50), union("history", "random"), Dice(), split=split)
    flat = run.flat()
    assert flat["queries/count"] == 150
    assert flat["queries/users"] == 50
    for name in ("two_stage/ndcg_at_10", "history/hit_rate_at_10", "candidates/recall_at_10"):
        folds = [flat[f"fold/{i}/{name}"] for i in range(3)]
        assert flat[name] == pytest.approx(np.mean(folds))
        assert flat[f"interval/{name}/low"] <= flat[name] <= flat[f"interval/{name}/high"]
    assert run.document["folds"] == 3
    assert sum(row["share"]["value"] for row in run.document["waterfall"]) == pytest.approx(1)


def test_every_mean_has_its_interval():
    run = judged(shop(n_users=50), union("history", "group", "random"), Dice())
    flat = run.flat()
    means = [name for name in flat if not name.startswith(("interval/", "mde/", "queries/"))]
    whole = {name for name in means if name.endswith(("/coverage", "/gini"))}
    assert len(whole) == 10
    assert all(flat[f"interval/{name}/low"] <= flat[name] <= flat[f"interval/{name}/high"] for name in set(means) - whole)
    assert {name.removeprefix("mde/") for name in flat if name.startswith("mde/")} >= {"two_stage/ndcg_at_10"}


def test_the_values_of_the_sources_add_up_to_candidate_recall():
    run = judged(shop(n_users=100), union("history", "group", "random"))
    values = [run.figures[f"attribution/{name}/shapley"] for name in ("history", "group", "random")]
    assert sum(values) == pytest.approx(run.figures["ceiling/hit_rate_at_10"])
    assert {row["name"]: row["seconds"] > 0 for row in run.document["attribution"]["sources"]} == dict.fromkeys(
        ("history", "group", "random"), True
    )


def test_a_ranker_that_tells_nothing_apart_is_as_good_as_retrieval_and_its_ties_are_told():
    figures = judged(shop(), union("history", "group"), Indifferent()).figures
    assert figures["two_stage/ndcg_at_10"] == figures["retrieval/ndcg_at_10"] > 0
    assert figures["ties/share_at_10"] == 1
    assert figures["ties/ndcg_at_10_worst"] < figures["two_stage/ndcg_at_10"]
    assert figures["ties/ndcg_at_10_best"] == figures["ceiling/ndcg_at_10"] > figures["two_stage/ndcg_at_10"]


def recall(*names: str, **options) -> float:
    return judged(shop(), union(*names, **options), candidates=10).figures["candidates/recall_at_10"]


def test_what_a_source_is_worth_is_what_runs_with_fewer_sources_say():
    found = judged(shop(), union("random", "history", "group"), candidates=10).figures
    whole = recall("random", "history", "group")
    left = {"history": ("random", "group"), "group": ("random", "history"), "random": ("history", "group")}
    for name, others in left.items():
        assert found[f"attribution/{name}/solo"] == pytest.approx(recall(name), abs=1e-12)
        assert found[f"attribution/{name}/leave_one_out"] == pytest.approx(whole - recall(*others), abs=1e-12)
    second = (recall("random", "history") - recall("random")) / 6 + (recall("history", "group") - recall("group")) / 6
    by_hand = recall("history") / 3 + second + (whole - recall("random", "group")) / 3
    assert found["attribution/history/shapley"] == pytest.approx(by_hand, abs=1e-12)


def test_adding_a_source_is_what_a_run_with_it_and_the_same_budget_has():
    """Random items take places from the good ones: the lever says so."""
    run = judged(shop(), union("group", "random"), candidates=10)
    gains = {lever.name: lever.gain.value for lever in run.verdict.levers}
    gained = recall("group", "random", "history") - recall("group", "random")
    assert gains["adding history"] == pytest.approx(gained, abs=1e-12)
