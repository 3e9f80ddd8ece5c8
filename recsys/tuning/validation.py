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
from recsys.shop import windows
from recsys.shop.pools import Ranking
from recsys.shop.shop import Shop
from recsys.shop.splits import Fold, Split, Task
from recsys.shop.windows import Window, milliseconds, moment, span
from recsys.timing import Timings

LATENCY = "latency_ms"
BEYOND = f"beyond/{FINAL}/"
SMALLER = (LATENCY, f"{BEYOND}gini", f"{BEYOND}popularity_lift")
"""Metrics that are the better the smaller."""


def validation_folds(
    split: Split, shop: Shop, count: int | None = None, step: str | None = None, labels: int | None = None
) -> tuple[Shop, list[Fold], str]:
    """The shop before the oldest test cutoff, `count` folds on it, newest first, and what was taken in one line.

    Their windows are as long as the test window, `step` apart, each with `labels` label windows. What is None is chosen by what
    the log has room for, see `windows.spread`: three folds, without overlap where at least two fit so; shorter ones where not
    one of that length fits; none that asks nobody. Raises `ConfigError` for given values that do not fit, and for a log too
    short.
    """
    test = split.folds(shop)[0].test
    past, given = shop.before(test.cutoff), _distance(step)
    first, before = int(past.log.time[0]), test.cutoff - int(past.log.time[0])
    if labels is not None:
        labels = labels if split.label_cutoffs is None else min(labels, split.label_cutoffs)
        split = replace(split, label_cutoffs=labels)  # type: ignore[type-var]
    wanted, usual = count or windows.VALIDATION_WINDOWS, test.length
    for length in (usual, windows.shortened(before, 3, split.lead)):
        room = before - length - split.lead(length) - 1
        fitting, distance = windows.spread(room, length, count, windows.VALIDATION_WINDOWS, given) if length else (0, 1)
        if not fitting or fitting < (count or 1):
            continue
        cutoffs = [test.cutoff - length - i * distance for i in range(fitting)]
        folds = [_fold(split, past, cutoff, length) for cutoff in cutoffs if cutoff <= past.log.time[-1]]
        kept = [fold for fold in folds if split.asks(past, fold)]
        if count and len(kept) < count:
            asking = [fold.test.cutoff for fold in kept]
            empty = next(Window(cutoff, cutoff + length) for cutoff in cutoffs if cutoff not in asking)
            raise ConfigError(f"sweep.folds: nobody is asked in the validation window {empty}, or in its label windows")
        if kept:
            overlap = distance if given is None and distance < length else None
            reason = f"the log before the cutoff has {span(before)}"
            if len(kept) < fitting:
                reason += ", and the others ask nobody"
            return past, kept, windows.taken("validation window", length, len(kept), usual, wanted, reason, overlap)
    if count:
        raise ConfigError(
            f"sweep.folds: {windows.plural(count, 'validation window')} of {span(usual)} do not fit before the test cutoff,"
            f" where the log has {span(before)}; give fewer (null: as many as fit), a fold_step or a shorter split.horizon"
        )
    raise ConfigError(
        f"sweep.folds: no validation window fits that asks somebody: before the test cutoff ({moment(test.cutoff)}) the log has"
        f" {windows.plural(len(past.log), 'event')} in {span(before)} from {moment(first)} on"
    )


def _distance(step: str | None) -> int | None:
    try:
        distance = None if step is None else milliseconds(step)
    except ValueError:
        distance = 0
    if distance is not None and distance <= 0:
        raise ConfigError(f"sweep.fold_step: wanted a span such as 28d or 12h, found {step!r}")
    return distance


def _fold(split: Split, past: Shop, cutoff: int, length: int) -> Fold:
    at = pd.Timestamp(cutoff, unit="ms").isoformat(timespec="milliseconds")
    return replace(split, cutoff=at, horizon=f"{length}ms").fold(past)  # type: ignore[type-var]


def names(evaluation: Evaluation, candidates: int) -> list[str]:
    """The metrics that `judge` can give."""
    systems = [f"{system}/{name}" for system in (FINAL, FIRST) for name in evaluation.measured.names]
    recall = [f"candidates/recall_at_{k}" for k in evaluation.candidate_ks if k <= candidates]
    return [
        *systems,
        *recall,
        "candidates/count",
        *(f"{BEYOND}{name}" for name in (*beyond.PER_QUERY, beyond.LIFT, *beyond.OF_ALL)),
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
    timings: Timings | None = None,
) -> dict[str, float]:
    """Means over the queries, as a run gives them; beyond accuracy where one of the `wanted` metrics is of that kind.

    `latency_ms` is what one query took, the first stage as measured when it was made.
    """
    timings, ks = timings or Timings(), evaluation.ks
    pool = recommender.pool(task.queries)
    features = recommender.describe(pool, task.queries)
    with timings("rank"):
        ranked = pool.order(recommender.ranker.score(features), max(ks))
    seconds = timings.last + sum(recommender.seconds.values())
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
    ratio, weight = beyond.lift(each["popularity"], each["own_popularity"])
    means[beyond.LIFT] = np.nansum(ratio * weight) / weight.sum() if weight.any() else np.nan
    return {f"{BEYOND}{name}": float(value) for name, value in (means | beyond.of_all_lists(lists, shop)).items()}
