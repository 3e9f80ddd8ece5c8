"""What trials are judged on: windows before the test cutoff, and their metrics."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pandas as pd

from recsys.errors import ConfigError
from recsys.evaluation import beyond, metrics
from recsys.evaluation.evidence import Past
from recsys.evaluation.measured import FINAL, FIRST
from recsys.judging import Evaluation
from recsys.recommender import TwoStageRecommender
from recsys.shop.pools import Ranking
from recsys.shop.shop import Shop
from recsys.shop.splits import Fold, Split, Task, _milliseconds
from recsys.stages import Stages

LATENCY = "latency_ms"
BEYOND = f"beyond/{FINAL}/"
SMALLER = (LATENCY, f"{BEYOND}gini", f"{BEYOND}popularity_lift")
"""Metrics that are the better the smaller."""


def validation_folds(
    split: Split, shop: Shop, count: int, step: str | None = None, labels: int | None = None
) -> tuple[Shop, list[Fold]]:
    """The shop before the oldest test cutoff, and `count` folds on it, newest first, with windows as long as the test window.

    `step` is the distance between their cutoffs; by default they do not overlap. Each has at most `labels` label windows.
    Raises `ConfigError` for a log too short.
    """
    test = split.folds(shop)[0].test
    past = shop.before(test.cutoff)
    length = test.end - test.cutoff
    try:
        distance = length if step is None else _milliseconds(step)
    except ValueError:
        distance = 0
    if distance <= 0:
        raise ConfigError(f"sweep.fold_step: wanted a span such as 28d or 12h, found {step!r}")
    label_cutoffs = split.label_cutoffs if labels is None else min(labels, split.label_cutoffs)
    folds = []
    for i in range(count):
        cutoff = pd.Timestamp(test.cutoff - length - i * distance, unit="ms").isoformat(timespec="milliseconds")
        try:
            earlier = replace(  # type: ignore[type-var]
                split, cutoff=cutoff, horizon=f"{length}ms", label_cutoffs=label_cutoffs
            )
            folds.append(earlier.fold(past))
        except ConfigError as error:
            days = f"{length / 86_400_000:.1f} days"
            raise ConfigError(
                f"sweep.folds: {count} validation windows of {days} do not fit before the test cutoff; give fewer folds,"
                f" a fold_step or a shorter split.horizon ({error})"
            ) from None
    return past, folds


def names(evaluation: Evaluation, candidates: int) -> list[str]:
    """The metrics that `judge` can give."""
    systems = [f"{system}/{name}" for system in (FINAL, FIRST) for name in evaluation.measured.names]
    recall = [f"candidates/recall_at_{k}" for k in evaluation.candidate_ks if k <= candidates]
    return [
        *systems,
        *recall,
        "candidates/count",
        *(f"{BEYOND}{name}" for name in (*beyond.PER_QUERY, *beyond.OF_ALL)),
        LATENCY,
    ]


def full_name(name: str, evaluation: Evaluation, known: Collection[str]) -> str | None:
    """The metric that a short name means: `ndcg_at_10` is of `two_stage`, `long_tail_at_10` beyond accuracy."""
    meant = (name, f"{FINAL}/{name}", f"{BEYOND}{name.removesuffix(f'_at_{evaluation.k}')}")
    return next((each for each in meant if each in known), None)


def judge(
    recommender: TwoStageRecommender,
    task: Task,
    evaluation: Evaluation,
    wanted: Collection[str],
    stages: Stages | None = None,
) -> dict[str, float]:
    """Means over the queries, as a run gives them; beyond accuracy where one of the `wanted` metrics is of that kind.

    `latency_ms` is what one query took, the first stage as measured when it was made.
    """
    stages, ks = stages or Stages(), evaluation.ks
    pool = recommender.pool(task.queries)
    features = recommender.describe(pool, task.queries)
    with stages("rank"):
        ranked = pool.order(recommender.ranker.score(features), max(ks))
    seconds = stages.last + sum(recommender.seconds.values())
    past = recommender.past
    assert past is not None
    values: dict[str, metrics.Float64] = {}
    for system, lists in ((FINAL, ranked), (FIRST, pool.retrieved(max(ks)))):
        of_system = metrics.per_query(lists, task.truth, ks, evaluation.functions, past)
        values |= {f"{system}/{name}": each for name, each in of_system.items()}
    if within := [k for k in evaluation.candidate_ks if k <= recommender.candidates]:
        values |= {f"candidates/{name}": each for name, each in metrics.candidate_recall(pool, task.truth, within).items()}
    values["candidates/count"] = np.diff(pool.indptr).astype(np.float64)
    result = metrics.mean(values) | {LATENCY: 1000 * seconds / max(len(task.queries), 1)}
    if any(name.startswith(BEYOND) for name in wanted):
        result |= _beyond(past, ranked, task, evaluation)
    return result


def _beyond(past: Shop, ranked: Ranking, task: Task, evaluation: Evaluation) -> dict[str, float]:
    """Beyond accuracy, NaN where no query defines it; serendipity is over the popularity baseline, where there is one."""
    lists = ranked.top(evaluation.k)
    shop, expected = Past.of(past, task.queries.time), lists.top(0)
    if popularity := evaluation.baselines.get("popularity"):
        popularity.fit(past)
        expected = popularity.retrieve(task.queries, evaluation.k)
    each = beyond.per_query(lists, task.queries, task.truth, shop, expected)
    means = {name: np.nanmean(value) if np.isfinite(value).any() else np.nan for name, value in each.items()}
    return {f"{BEYOND}{name}": float(value) for name, value in (means | beyond.of_all_lists(lists, shop)).items()}
