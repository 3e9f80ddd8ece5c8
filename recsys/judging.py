"""A run's judgement: the lists of every system and of each fold, what became of the targets, one summary of it all."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, PositiveInt

from recsys import targets
from recsys.component import Component, component
from recsys.datasets import Dataset
from recsys.evaluation import beyond, coalitions, diagnosis, metrics, ties, verdict
from recsys.evaluation.coalitions import Found
from recsys.evaluation.evidence import Evidence, Past, contains
from recsys.evaluation.measured import FINAL, FIRST, KINDS, Measured
from recsys.evaluation.statistics import Interval, bootstrap, mean_intervals, minimum_detectable_effect
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import History, Popularity, Retriever
from recsys.retrieval.base import Seen
from recsys.retrieval.random import Random
from recsys.shop.pools import MAX_RANK, CandidatePool, Ranking
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop
from recsys.shop.splits import Task
from recsys.timing import Timings

Depths = Annotated[list[PositiveInt], Field(min_length=1)]
Names = Annotated[list[str], Field(min_length=1)]
PerQuery = dict[str, npt.NDArray[np.float64]]

BLOCK = 1024
"""Queries whose sources' lists are held uncut at once."""
TIMED = 500
"""Queries on which each source is timed."""


@component
class Evaluation(Component):
    """What is measured, and the baselines that are measured on the same queries."""

    metrics: Names = Field(default_factory=lambda: list(metrics.BUILT_IN))
    """What is measured of every system's lists: names of `metrics.BUILT_IN`, or dotted paths of functions of one's own."""
    ks: Depths = Field(default_factory=lambda: list(metrics.CUTOFFS))
    """Lengths of the lists that are judged."""
    shown: Names | None = None
    """Metrics with k that the tables show, the leading one first: what verdicts, comparisons and sweeps speak of.

    None stands for NDCG, HitRate, MRR and Recall, as far as they are measured, and the metrics of one's own, all at 10, or at
    the largest of `ks` where 10 is not among them.
    """
    candidate_ks: Depths = Field(default_factory=lambda: list(metrics.POOL_CUTOFFS))
    """Depths of the candidate recall curve."""
    baselines: dict[str, Retriever] = Field(
        default_factory=lambda: {"popularity": Popularity(), "history": History(), "random": Random()}
    )
    """Retrievers whose own order is judged beside the two stages."""

    def __post_init__(self) -> None:
        self.functions = metrics.load(self.metrics)
        """What is measured, by name."""
        self.measured = Measured.of({field.name: getattr(self, field.name) for field in fields(self)})  # type: ignore[arg-type]
        """The names of what is measured."""

    @property
    def k(self) -> int:
        """Length of the lists that diagnosis and verdict speak of, that of the leading metric."""
        return self.measured.k


@dataclass(frozen=True, eq=False)
class JudgedFold:
    """One fold's lists and values."""

    test: Task
    lists: dict[str, Ranking]
    """Every system's lists."""
    accuracy: PerQuery
    """Accuracy of every system, a value a query under flat names."""
    other: PerQuery
    """Revisit and discovery apart, beyond accuracy, and ties; NaN where a query is not asked."""
    overall: dict[str, float]
    """Figures of all lists together."""
    evidence: Evidence
    targets: pd.DataFrame
    """What became of each target, see `recsys.targets`."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """All folds together, clustered by user."""

    measured: Measured
    accuracy: PerQuery
    figures: dict[str, float]
    """Every figure by its flat name: means over the pooled queries."""
    intervals: dict[str, Interval]
    """Of every figure that is a mean."""
    verdict: verdict.Verdict
    stage: npt.NDArray[np.str_]
    """What became of each query, one of `diagnosis.STAGES`."""
    document: dict[str, Any]
    """The diagnosis as plain values, for `diagnosis.json`."""

    def flat(self) -> dict[str, float]:
        """Figures with `interval/<name>/low`, `interval/<name>/high`, and `mde/<name>` for the metrics that are shown."""
        result = dict(self.figures)
        for name, each in self.intervals.items():
            result |= {f"interval/{name}/low": each.low, f"interval/{name}/high": each.high}
            if name in self.accuracy and self.measured.is_shown(name):
                result[f"mde/{name}"] = minimum_detectable_effect(each)
        return result


def judge_fold(
    evaluation: Evaluation, recommender: TwoStageRecommender, dataset: Dataset, test: Task, timings: Timings, number: int = 0
) -> JudgedFold:
    """Ask every system the fold's queries. The recommender has to be fitted at the fold's cutoff."""
    depth, queries, truth = max(evaluation.ks), test.queries, test.truth
    budget, retriever = recommender.candidates, recommender.retriever
    past = dataset.before(queries.time)
    with timings("baselines"):
        answers: dict[str, Ranking] = {}
        for name, baseline in evaluation.baselines.items():
            baseline.fit(past)
            answers[name] = baseline.retrieve(queries, max(depth, budget))
    lists = {name: ranking.top(depth) for name, ranking in answers.items()}
    pool = recommender.pool(queries)
    lists[FIRST] = pool.retrieved(depth)
    described = recommender.describe(pool, queries)
    with timings("rank"):
        score = recommender.ranker.score(described)
        ranked = pool.order(score, depth + 1)
        lists[FINAL] = ranked.top(depth)
    with timings("targets"):
        placed = targets.table(dataset.log, test, described, score, ranked, recommender.ranker, evaluation.k, number)
    deepest = max(*evaluation.candidate_ks, 2 * budget)
    deep = recommender.pool(queries, deepest)
    with timings("counterfactuals"):
        added = {
            name: baseline
            for name, baseline in evaluation.baselines.items()
            if name not in pool.sources and not isinstance(baseline, Random)
        }
        reached = _keeping(retriever, queries, test, pool, budget)
        parts = [_coalitions(retriever, added, block, right, budget) for block, right in _blocks(queries, truth)]
        found = Found.concat([part for part, _ in parts])
        reached |= {f"adding {name}": np.concatenate([more[name] for _, more in parts]) for name in added}
        seconds = _seconds(retriever, pool, queries, budget)
    with timings("metrics"):
        accuracy: PerQuery = {}
        for system, ranking in lists.items():
            of_system = metrics.per_query(ranking, truth, evaluation.ks, evaluation.functions, past)
            accuracy |= {f"{system}/{name}": each for name, each in of_system.items()}
        within = [k for k in evaluation.candidate_ks if k <= budget] or [budget]
        recall = metrics.candidate_recall(pool, truth, within)
        if deeper := [k for k in evaluation.candidate_ks if k > budget]:
            recall |= metrics.candidate_recall(deep, truth, deeper)
        accuracy |= {f"candidates/{name}": each for name, each in recall.items()}
        accuracy["candidates/count"] = np.diff(pool.indptr).astype(np.float64)
        shop = Past.of(past, queries.time)
        other, overall = _beyond(lists, test, shop, evaluation.k)
        evidence = Evidence.collect(
            shop,
            queries,
            truth,
            pool,
            deep,
            lists[FINAL],
            budget=budget,
            depth=deepest,
            reached=reached,
            seconds=seconds,
            found=found,
            fold=number,
        )
        apart = _apart(evaluation, lists, test, past)
        of = {name: metrics.RELEVANCE[name] for name in evaluation.measured.diagnosed}
        tied = ties.values(pool, score, ranked, truth, evaluation.k, of)
        apart |= {f"ties/{name}": each for name, each in tied.items()}
    return JudgedFold(test, lists, accuracy, apart | other, overall, evidence, placed)


def summarise(evaluation: Evaluation, folds: Sequence[JudgedFold], seed: int) -> Judgement:
    """Pool the folds: every mean is over all their queries, every interval draws all queries of a user together."""
    measured, k, of = evaluation.measured, evaluation.k, evaluation.measured.diagnosed
    evidence = Evidence.concat([fold.evidence for fold in folds])
    accuracy, other = (_pooled([getattr(fold, name) for fold in folds]) for name in ("accuracy", "other"))
    diagnosed = diagnosis.values(evidence, k, of)
    reached = {f"{FINAL}/{name}": each for name, each in diagnosis.reached(evidence, k, of).items()}
    values = accuracy | reached | other | diagnosed
    table = np.stack(list(values.values()), axis=1)
    found = dict(zip(values, mean_intervals(table, evidence.user, seed), strict=True))
    for name, (ratio, weight) in diagnosis.efficiency(evidence, diagnosed, k, of).items():
        [found[name]] = bootstrap(ratio, evidence.user, weights=weight, seed=seed)
    for system in measured.systems:
        name = f"beyond/{system}"
        ratio, weight = beyond.lift(other[f"{name}/popularity"], other[f"{name}/own_popularity"])
        [found[f"{name}/{beyond.LIFT}"]] = bootstrap(ratio, evidence.user, bounds=None, weights=weight, seed=seed)
    document = diagnosis.document(evidence, diagnosed, found, k, of)
    intervals = {name: each for name, each in found.items() if np.isfinite(each.value)}
    figures = {name: each.value for name, each in intervals.items()}
    overall = {name: float(np.mean([fold.overall[name] for fold in folds])) for name in folds[0].overall}
    figures |= {name: value for name, value in overall.items() if np.isfinite(value)}
    figures |= _queries(folds, evidence)
    if len(folds) > 1:
        for i, fold in enumerate(folds):
            means = metrics.mean(fold.accuracy)
            figures |= {f"fold/{i}/{name}": each for name, each in means.items() if measured.is_shown(name)}
            figures[f"fold/{i}/queries/count"] = float(len(fold.test.queries))
    judged = verdict.of(evidence, diagnosed, k, seed)
    document |= {"verdict": judged.document(), "beyond": _beyond_rows(intervals, overall), "ties": _ties(found)}
    stage = np.array(list(diagnosis.STAGES))[diagnosis.stage(evidence, k)]
    return Judgement(measured, accuracy, figures, intervals, judged, stage, document)


def _pooled(folds: Sequence[PerQuery]) -> PerQuery:
    return {name: np.concatenate([fold[name] for fold in folds]) for name in folds[0]}


def _queries(folds: Sequence[JudgedFold], evidence: Evidence) -> dict[str, float]:
    result = {
        "queries/count": float(len(evidence)),
        "queries/users": float(len(np.unique(evidence.user))),
        "queries/share_of_targets_revisited": float(evidence.revisit.mean()),
        "queries/with_revisit_target": float(evidence.any(evidence.revisit).sum()),
        "queries/with_discovery_target": float(evidence.any(~evidence.revisit).sum()),
    }
    for reason in folds[0].test.funnel:
        name = f"queries/{reason.strip('()').replace(' ', '_')}"
        result[name] = float(sum(fold.test.funnel[reason] for fold in folds))
    return result


def _apart(evaluation: Evaluation, lists: Mapping[str, Ranking], test: Task, past: Shop) -> PerQuery:
    """Revisit targets (items in the query's history) and discovery targets, each among the queries that have one."""
    functions = {name: (metrics.BUILT_IN | evaluation.functions)[name] for name in evaluation.measured.apart}
    revisit = metrics.revisit(test.queries, test.truth)
    result: PerQuery = {}
    for kind, mask in zip(KINDS, (revisit, ~revisit), strict=True):
        part = metrics.split_truth(test.truth, mask)
        for system, ranking in lists.items():
            of_system = metrics.per_query(ranking, part, [evaluation.k], functions, past)
            for name, each in of_system.items():
                result[f"{system}/{kind}/{name}"] = np.where(part.count > 0, each, np.nan)
    return result


def _beyond(lists: Mapping[str, Ranking], test: Task, shop: Past, k: int) -> tuple[PerQuery, dict[str, float]]:
    empty = Ranking(np.full((len(test.queries), 0), -1, np.int32), np.zeros((len(test.queries), 0), np.float32))
    expected = lists.get("popularity", empty).top(k)
    values: PerQuery = {}
    overall: dict[str, float] = {}
    for system, ranking in lists.items():
        each = beyond.per_query(ranking.top(k), test.queries, test.truth, shop, expected)
        values |= {f"beyond/{system}/{name}": value for name, value in each.items()}
        whole = beyond.of_all_lists(ranking.top(k), shop)
        overall |= {f"beyond/{system}/{name}": value for name, value in whole.items()}
    return values, overall


def _beyond_rows(intervals: Mapping[str, Interval], overall: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for name, interval in intervals.items():
        if name.startswith("beyond/"):
            _, system, what = name.split("/")
            rows.setdefault(system, {})[what] = diagnosis.plain(interval)
    for name, value in overall.items():
        _, system, what = name.split("/")
        rows.setdefault(system, {})[what] = {"value": value} if np.isfinite(value) else None
    return rows


def _ties(found: Mapping[str, Interval]) -> dict[str, Any]:
    return {name.removeprefix("ties/"): diagnosis.plain(each) for name, each in found.items() if name.startswith("ties/")}


def _keeping(
    retriever: Retriever, queries: Queries, test: Task, pool: CandidatePool, budget: int
) -> dict[str, npt.NDArray[np.bool_]]:
    """Targets in the pool if no seen item were dropped."""
    if all(leaf.seen == "keep" for name, leaf in _leaves(retriever).items() if name in pool.sources):
        return {}
    return {"keeping seen items": contains(_keeping_seen(retriever).pool(queries, budget), test.truth)}


def _blocks(queries: Queries, truth: Truth) -> Iterator[tuple[Queries, Truth]]:
    for start in range(0, max(len(queries), 1), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(queries)), dtype=np.int64)
        yield queries.take(rows), truth.take(rows)


def _coalitions(
    retriever: Retriever, added: Mapping[str, Retriever], queries: Queries, truth: Truth, budget: int
) -> tuple[Found, dict[str, npt.NDArray[np.bool_]]]:
    """What coalitions of the sources find, and what all of them find with one source more, of weight 1, within the budget.

    That source obeys the laxest of their rules on seen items, and is asked for as many items as they are.
    """
    union, ordering = retriever.union(queries, budget), retriever.ordering
    depth = budget if ordering.depth == MAX_RANK else max(budget, ordering.depth)
    policies = {leaf.seen for name, leaf in _leaves(retriever).items() if name in union.sources}
    more = {}
    for name, source in added.items():
        other = source.twin()
        other.seen = next(seen for seen in get_args(Seen) if seen in policies)
        wider = union.beside(name, other.retrieve(queries, depth))
        everybody = np.array([(1 << len(wider.sources)) - 1])
        [more[name]] = coalitions.members_find(wider, ordering.beside(1.0), truth, budget, everybody)
    return coalitions.found(union, ordering, truth, budget), more


def _leaves(retriever: Retriever) -> dict[str, Retriever]:
    """The retrievers that a composed one is made of, at any depth, by name; itself where it is not composed."""
    result: dict[str, Retriever] = {}
    for field in fields(retriever):  # type: ignore[arg-type]
        value = getattr(retriever, field.name)
        parts = (
            value.items()
            if isinstance(value, dict)
            else [("", part) for part in (value if isinstance(value, list) else [value])]
        )
        for name, part in parts:
            if isinstance(part, Retriever):
                inner = _leaves(part)
                result |= inner if len(inner) > 1 else {str(name) or part.name: next(iter(inner.values()))}
    return result or {retriever.name: retriever}


def _keeping_seen(retriever: Retriever) -> Retriever:
    """A twin that drops no seen item."""
    other = retriever.twin()
    for part in (other, *_leaves(other).values()):
        part.seen = "keep"
    return other


def _seconds(retriever: Retriever, pool: CandidatePool, queries: Queries, budget: int) -> dict[str, float]:
    """Seconds that each source needs for the queries, measured on some of them."""
    sample = queries.take(np.arange(min(TIMED, len(queries)), dtype=np.int64))
    result = {}
    for name, leaf in _leaves(retriever).items():
        if name in pool.sources:
            start = time.perf_counter()
            leaf.retrieve(sample, budget)
            result[name] = (time.perf_counter() - start) * len(queries) / len(sample)
    return result
