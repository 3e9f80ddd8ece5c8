"""One trial, as a job of Hydra: a config judged on one validation window after the other."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import optuna
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from recsys.catalogue import Catalogue
from recsys.component import construct
from recsys.datasets import Dataset
from recsys.events import EventLog
from recsys.experiment import Parts
from recsys.recommender import TwoStageRecommender
from recsys.splits import Fold
from recsys.tracking import home
from recsys.tuning import validation
from recsys.tuning.space import override_key
from recsys.tuning.study import open_storage


@dataclass(frozen=True)
class Outcome:
    """What a trial came to: COMPLETE with a value for each objective, or PRUNED."""

    state: str
    values: tuple[float, ...] = ()


def run(config: DictConfig) -> Outcome:
    """Judge the config of the job, telling the study each fold's value as it comes, until the study says to stop."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    sweep, parts = plain["sweep"], Parts.of(plain)
    told = sweep["trial"]
    storage = open_storage(storage_url(sweep), sweep["heartbeat"], sweep["grace"], sweep["retries"])
    study = optuna.load_study(study_name=told["study"], storage=storage, pruner=instantiate(sweep["pruner"]))
    trial_id = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(told["study"]), told["number"])
    frozen, objectives = storage.get_trial(trial_id), told["objectives"]
    dataset, split = json.dumps(plain["dataset"]), json.dumps(plain["split"])
    log, folds = folded(dataset, split, *fold_settings(sweep))
    recommender = TwoStageRecommender(parts.retriever, parts.features, parts.ranker, plain["candidates"], parts.cache)
    about = {"study": told["study"], "trial": told["number"], "objectives": objectives}
    params = {override_key(name): value for name, value in frozen.params.items()}
    start, found = time.perf_counter(), []
    with parts.tracking.run(f"trial {told['number']}", params, about) as tracked:
        for step, fold in enumerate(folds):
            values = _judge(parts, recommender, loaded(dataset).catalogue, log, fold)
            found.append([values[name] for name in objectives])
            for name, value in zip(objectives, found[-1], strict=True):
                tracked.curve(f"fold/{name}", [step], [value])
            if len(objectives) == 1:
                storage.set_trial_intermediate_value(trial_id, step, found[-1][0])
                if step + 1 < len(folds) and study.pruner.prune(study, storage.get_trial(trial_id)):
                    outcome = Outcome(TrialState.PRUNED.name)
                    break
        else:
            outcome = Outcome(TrialState.COMPLETE.name, tuple(float(mean) for mean in np.mean(found, axis=0)))
            tracked.metrics(dict(zip(objectives, outcome.values, strict=True)))
        tracked.metrics({"seconds/trial": time.perf_counter() - start})
        tracked.tag("state", outcome.state)
    return outcome


def storage_url(sweep: Mapping[str, Any]) -> str:
    """Where the studies are: `sweep.storage`, by default SQLite in the project folder."""
    return str(sweep["storage"] or f"sqlite:///{home() / 'optuna.db'}")


def _judge(parts: Parts, recommender: TwoStageRecommender, catalogue: Catalogue, log: EventLog, fold: Fold) -> dict[str, float]:
    split = parts.split
    labels = [split.label_task(log, window) for window in fold.labels] if parts.ranker.learns else []
    recommender.fit(log, catalogue, fold.test.cutoff, labels)
    task = split.test_task(log, fold.test)
    return validation.judge(recommender, task, parts.evaluation.ks, parts.evaluation.candidate_ks)


def fold_settings(sweep: Mapping[str, Any]) -> tuple[int, str | None, int | None]:
    """How many validation windows, how far apart, with how many label windows each."""
    return sweep["folds"], sweep["fold_step"], sweep["label_cutoffs"]


@lru_cache(maxsize=1)
def folded(dataset: str, split: str, count: int, step: str | None, labels: int | None) -> tuple[EventLog, list[Fold]]:
    """The log before the test cutoff and the validation folds, for settings as JSON."""
    return validation.validation_folds(construct(json.loads(split), "split"), loaded(dataset).log, count, step, labels)


@lru_cache(maxsize=1)
def loaded(dataset: str) -> Dataset:
    """The dataset of these settings (JSON), read once a process: all trials of a study are on the same data."""
    made: Dataset = construct(json.loads(dataset), "dataset").load()
    return made
