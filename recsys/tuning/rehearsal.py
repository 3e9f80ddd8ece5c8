"""A dry sweep: data, windows, spaces and storage, checked and shown as far as the first trial's windows; no trial, no study."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from recsys import dry
from recsys.dry import estimate
from recsys.dry.estimate import Work
from recsys.errors import DataError
from recsys.experiment import Parts, check_values
from recsys.redaction import hide
from recsys.report import terminal
from recsys.shop.windows import plural
from recsys.tuning.settings import SweepSettings
from recsys.tuning.study import try_storage
from recsys.tuning.trial import data_settings, fold_settings, folded, loaded, storage_url

FIRST_STAGE = ("retriever", "candidates")
"""Parts that are fitted again in each trial that changes them."""


@dataclass(frozen=True)
class Stage:
    """One study of the sweep: how much it may vary, and its config."""

    name: str
    over: tuple[str, ...]
    objectives: tuple[str, ...]
    parameters: int
    config: Mapping[str, Any]


def tell(console: Console, base: Mapping[str, Any], settings: SweepSettings, stages: Sequence[Stage]) -> None:
    """Show what the sweep would do. Raises as the sweep would before its first trial and its trials would before a fit."""
    began = time.perf_counter()
    check_values(base)
    dataset = loaded(*data_settings(base)[:2])
    console.print(terminal.counts(f"\n{dataset.name}", dataset.summary()))
    past, folds, line = folded(*data_settings(base), *fold_settings(settings))
    work, most = Work(seconds=estimate.START), 0.0
    for stage in stages:
        parts, candidates = Parts.of(stage.config), stage.config["candidates"]
        rows = [dry.asked(parts.split, past, fold, parts.ranker.learns, "validation") for fold in folds]
        if stage is stages[-1]:
            tests = dry.test_folds(console, parts, dataset)
            console.print(f"\n{line}", highlight=False)
            console.print(dry.timeline(dataset.log, [row for fold in rows for row in fold], "validation windows"))
            for fold in tests:
                work += dry.of_fold(parts, candidates, fold).times(2)
                most = max(
                    most, estimate.gigabytes(len(dataset.log), dry.learned(parts, fold) * candidates, dry.columns(parts))
                )
        if parts.ranker.learns and not all(any(row.queries for row in fold[:-1]) for fold in rows):
            raise DataError(f"sweep: the ranker of {stage.name} learns from label windows, and none of a fold's asks anybody")
        for fold in rows:
            once = dry.of_fold(parts, candidates, fold, settings.label_queries)
            if set(FIRST_STAGE).isdisjoint(stage.over):  # found in the cache from the second trial on
                taught = sum(min(row.queries, settings.label_queries or row.queries) for row in fold[:-1])
                work += once + estimate.second_stage(parts.ranker, taught, candidates).times(settings.trials - 1)
            else:
                work += once.times(settings.trials)
    try_storage(storage_url(settings), settings.heartbeat, settings.grace, settings.retries)
    console.print()
    for stage in stages:
        told = f"{plural(settings.trials, 'trial')} on {plural(len(folds), 'window')}, {plural(stage.parameters, 'parameter')}"
        told = f"{stage.name}: {told} of {', '.join(stage.over)}, for {', '.join(stage.objectives)}"
        console.print(told, highlight=False, soft_wrap=True)
    console.print("the defaults and the winner meet the test window once", highlight=False)
    console.print(f"studies in {hide(storage_url(settings))}", highlight=False, soft_wrap=True)
    dry.tell_estimate(console, work, most)
    console.print(f"No trial was run and no study made; this took {time.perf_counter() - began:.1f} s.", highlight=False)
