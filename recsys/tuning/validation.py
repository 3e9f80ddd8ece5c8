"""What trials are judged on: windows before the test cutoff, and their metrics."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from recsys.errors import ConfigError
from recsys.evaluation import metrics
from recsys.events import EventLog
from recsys.recommender import TwoStageRecommender
from recsys.splits import Fold, Split, Task

TIMES = ("latency_ms",)
"""Metrics that are the better the smaller."""


def validation_folds(
    split: Split, log: EventLog, count: int, step: str | None = None, labels: int | None = None
) -> tuple[EventLog, list[Fold]]:
    """The log before the oldest test cutoff, and `count` folds on it, newest first, with windows as long as the test window.

    `step` is the distance between their cutoffs; by default they do not overlap. Each has at most `labels` label windows.
    Raises `ConfigError` for a log too short.
    """
    test = split.folds(log)[0].test
    past = log.before(test.cutoff)
    length = test.end - test.cutoff
    distance = length if step is None else int(pd.Timedelta(step) / pd.Timedelta(1, "ms"))
    if distance <= 0:
        raise ConfigError(f"sweep.fold_step: wanted a span longer than nothing, found {step!r}")
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


def names(ks: Sequence[int], candidate_ks: Sequence[int], candidates: int) -> list[str]:
    """The metrics that `judge` gives."""
    systems = [f"{system}/{name}" for system in ("two_stage", "retrieval") for name in metrics.names(ks)]
    return [*systems, *(f"candidates/recall_at_{k}" for k in candidate_ks if k <= candidates), "candidates/count", *TIMES]


def judge(recommender: TwoStageRecommender, task: Task, ks: Sequence[int], candidate_ks: Sequence[int]) -> dict[str, float]:
    """Means over the queries. `latency_ms` is what one query took, the first stage as measured when it was made."""
    pool = recommender.pool(task.queries)
    features = recommender.describe(pool, task.queries)
    start = time.perf_counter()
    ranked = pool.order(recommender.ranker.score(features), max(ks))
    seconds = time.perf_counter() - start + sum(recommender.seconds.values())
    values = {f"two_stage/{name}": each for name, each in metrics.per_query(ranked, task.truth, ks).items()}
    values |= {f"retrieval/{k}": v for k, v in metrics.per_query(pool.retrieved(max(ks)), task.truth, ks).items()}
    if within := [k for k in candidate_ks if k <= recommender.candidates]:
        values |= {f"candidates/{name}": each for name, each in metrics.candidate_recall(pool, task.truth, within).items()}
    values["candidates/count"] = np.diff(pool.indptr).astype(np.float64)
    return metrics.mean(values) | {"latency_ms": 1000 * seconds / max(len(task.queries), 1)}
