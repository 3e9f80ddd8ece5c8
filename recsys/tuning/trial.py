"""One trial, as a job of Hydra: a config judged on one validation window after the other."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import optuna
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from recsys.component import construct
from recsys.datasets import Dataset, kept
from recsys.errors import DataError
from recsys.experiment import Parts
from recsys.ranking.boosting import Boosted
from recsys.recommender import TwoStageRecommender
from recsys.shop.shop import Shop
from recsys.shop.splits import Fold, Task
from recsys.timing import Timings
from recsys.tracking import Run, Tracker, home
from recsys.tuning import validation
from recsys.tuning.settings import SweepSettings
from recsys.tuning.space import override_key
from recsys.tuning.study import RANKER_SECONDS, open_storage


@dataclass(frozen=True)
class Outcome:
    """What a trial came to: COMPLETE with a value for each objective, or PRUNED."""

    state: str
    values: tuple[float, ...] = ()


def run(config: DictConfig) -> Outcome:
    """Judge the config of the job, telling the study each fold's value as it comes, until the study says to stop.

    The trial is tracked from its first moment: one whose config cannot be built is kept with its error as well.
    """
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    told, settings = plain["sweep"]["trial"], SweepSettings.of(plain["sweep"])
    storage = open_storage(storage_url(settings), settings.heartbeat, settings.grace, settings.retries)
    study = optuna.load_study(study_name=told["study"], storage=storage, pruner=instantiate(plain["sweep"]["pruner"]))
    trial_id = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(told["study"]), told["number"])
    params = {override_key(name): value for name, value in storage.get_trial(trial_id).params.items()}
    tracker: Tracker = construct(plain["tracking"], "tracking")

    def stop(step: int, value: float, last: bool) -> bool:
        storage.set_trial_intermediate_value(trial_id, step, value)
        return not last and study.pruner.prune(study, storage.get_trial(trial_id))

    timings, start = Timings(), time.perf_counter()
    about = {"study": told["study"], "trial": told["number"], "objectives": told["objectives"]}
    with tracker.run(f"trial {told['number']}", params, about) as tracked:
        try:
            outcome = _judged(plain, settings, stop, tracked, timings)
        except Exception:
            tracked.tag("state", TrialState.FAIL.name)
            raise
        learning = timings.seconds.get("ranker fit", 0.0)
        ranker = learning + timings.seconds["rank"] if learning else 0.0
        storage.set_trial_user_attr(trial_id, RANKER_SECONDS, ranker)
        tracked.metrics({"seconds/ranker": ranker, "seconds/trial": time.perf_counter() - start})
        tracked.tag("state", outcome.state)
    return outcome


def _judged(
    plain: Mapping[str, Any], settings: SweepSettings, stop: Callable[[int, float, bool], bool], tracked: Run, timings: Timings
) -> Outcome:
    """Judge fold after fold, the newest as step 1; with one objective `stop` hears each value and may end the trial."""
    parts, objectives = Parts.of(plain), plain["sweep"]["trial"]["objectives"]
    if isinstance(parts.ranker, Boosted) and not settings.refit_ranker:
        parts.ranker.refit = False
    data = data_settings(plain)
    shop, folds, _ = folded(*data, *fold_settings(settings))
    recommender = TwoStageRecommender(parts.retriever, parts.features, parts.ranker, plain["candidates"], parts.cache)
    found: list[list[float]] = []
    for step, fold in enumerate(folds, start=1):
        windows = fold.labels if parts.ranker.learns else ()
        labels = [sampled(parts.split.label_task(shop, window), settings.label_queries, plain["seed"]) for window in windows]
        recommender.fit(shop, fold.test.cutoff, labels, timings)
        task = parts.split.test_task(shop, fold.test)
        values = validation.judge(recommender, task, parts.evaluation, objectives, timings)
        if undefined := [name for name in objectives if not math.isfinite(values[name])]:
            raise DataError(f"sweep.objectives: {', '.join(undefined)} is not defined on this data")
        found.append([values[name] for name in objectives])
        for name, value in zip(objectives, found[-1], strict=True):
            tracked.curve(f"fold/{name}", [step], [value])
        if len(objectives) == 1 and stop(step, found[-1][0], step == len(folds)):
            return Outcome(TrialState.PRUNED.name)
    means = tuple(float(mean) for mean in np.mean(found, axis=0))
    tracked.metrics(dict(zip(objectives, means, strict=True)))
    return Outcome(TrialState.COMPLETE.name, means)


def sampled(task: Task, most: int | None, seed: int) -> Task:
    """The task with `most` of its queries at most, the same ones in every trial."""
    if most is None or most >= len(task.queries):
        return task
    rows = np.sort(np.random.default_rng(seed).permutation(len(task.queries))[:most])
    return replace(task, queries=task.queries.take(rows), truth=task.truth.take(rows))


def storage_url(settings: SweepSettings) -> str:
    """Where the studies are: `sweep.storage`, by default SQLite in the project folder, which is made if it is missing."""
    if settings.storage:
        return settings.storage
    home().mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{home() / 'optuna.db'}"


def data_settings(plain: Mapping[str, Any]) -> tuple[str, str, str]:
    """The settings of dataset, cache and split, as JSON."""
    return json.dumps(plain["dataset"]), json.dumps(plain["cache"]), json.dumps(plain["split"])


def fold_settings(settings: SweepSettings) -> tuple[int | None, str | None, int | None]:
    """How many validation windows, how far apart, with how many label windows each."""
    return settings.folds, settings.fold_step, settings.label_cutoffs


@lru_cache(maxsize=1)
def folded(
    dataset: str, cache: str, split: str, count: int | None, step: str | None, labels: int | None
) -> tuple[Shop, list[Fold], str]:
    """The shop before the test cutoff, the validation folds and what was taken, for settings as JSON."""
    shop = loaded(dataset, cache)
    return validation.validation_folds(construct(json.loads(split), "split"), shop, count, step, labels)


@lru_cache(maxsize=1)
def loaded(dataset: str, cache: str) -> Dataset:
    """The dataset of these settings (JSON), read once a process: all trials of a study are on the same data."""
    return kept.load(construct(json.loads(dataset), "dataset"), construct(json.loads(cache), "cache"))
