"""One run: data, fold, two stages, metrics, tracking, outputs. The only place where all of them meet."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, PositiveInt
from rich.console import Console

from recsys.cache import NoCache
from recsys.component import Component, component, construct
from recsys.datasets import Dataset, Source
from recsys.errors import ConfigError, nearest
from recsys.evaluation import metrics
from recsys.features import FeatureSet
from recsys.pools import Ranking
from recsys.ranking import Ranker
from recsys.recommender import TwoStageRecommender
from recsys.redaction import redact
from recsys.report import plots, terminal
from recsys.retrieval import Retriever
from recsys.splits import Split, Task
from recsys.stages import Stages
from recsys.tracking import Run, Tracker, ui_command

Depths = Annotated[list[PositiveInt], Field(min_length=1)]
PerQuery = dict[str, npt.NDArray[np.float64]]

TABLE = ("hit_rate_at_10", "ndcg_at_10", "mrr_at_10", "recall_at_10")
"""Columns of the table that a run prints; all metrics are in `metrics.json`."""


@component
class Evaluation(Component):
    """What is measured, and the baselines that are measured on the same queries."""

    ks: Depths = Field(default_factory=lambda: list(metrics.CUTOFFS))
    """Lengths of the lists that are judged."""
    candidate_ks: Depths = Field(default_factory=lambda: list(metrics.POOL_CUTOFFS))
    """Depths of the candidate recall curve."""
    baselines: dict[str, Retriever]
    """Retrievers whose own order is judged beside the two stages."""


@dataclass(frozen=True)
class Parts:
    """The configured objects of a run, all checked before any data is read."""

    dataset: Source
    split: Split
    retriever: Retriever
    features: FeatureSet
    ranker: Ranker
    evaluation: Evaluation
    tracking: Tracker
    cache: NoCache

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Parts":
        """Make every part that the resolved config names. Raises `ConfigError` for what does not fit."""
        kinds = cls.__annotations__
        parts = {name: construct(config[name], name) for name in kinds}
        for name, kind in kinds.items():
            if not isinstance(parts[name], kind):
                raise ConfigError(f"{name}: wanted a {kind.__name__}, found {config[name]!r}")
        return cls(**parts)


def run(config: DictConfig) -> dict[str, float]:
    """Do the run that the config describes; gives the flat metrics, which `metrics.json` holds as well.

    Raises `ConfigError` and `DataError` for what the user can mend.
    """
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    parts = Parts.of(plain)
    _check_numbers(plain)
    console = Console()
    folder = Path(plain["output_dir"]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(redact(plain), sort_keys=False, allow_unicode=True))
    with parts.tracking.run(run_name(plain), plain, _tags()) as tracked:
        result = _run(parts, plain, folder, tracked, Stages(console))
    _point_latest(folder)
    console.print(f"\nOutputs  {folder}")
    if tracked.uri:
        console.print(f"MLflow   {tracked.url}", soft_wrap=True, highlight=False)
        console.print(f"Compare  {ui_command(tracked.uri)}", soft_wrap=True, highlight=False)
    objective = plain["optimized_metric"]
    if objective not in result:
        raise ConfigError(f"optimized_metric: no metric is called {objective!r}.{nearest(objective, result)}")
    return result


def run_name(config: Mapping[str, Any]) -> str:
    """A name for people: what was composed, and on which data."""
    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    names = [str(chosen.get(group) or config[group]["_target_"].rpartition(".")[2]) for group in ("retriever", "ranker")]
    features = chosen.get("features")
    return " · ".join([*names, *([str(features)] if features else []), str(chosen.get("dataset") or "dataset")])


def _run(parts: Parts, config: Mapping[str, Any], folder: Path, tracked: Run, stages: Stages) -> dict[str, float]:
    console = stages.console or Console()
    with stages("load"):
        dataset = parts.dataset.load()
    console.print(terminal.counts(f"\n{dataset.name}", dataset.summary()))
    tracked.dataset(dataset)
    log, catalogue = dataset.log, dataset.catalogue
    with stages("split"):
        fold = parts.split.fold(log)
        test = parts.split.test_task(log, fold.test)
        labels = [parts.split.label_task(log, window) for window in fold.labels] if parts.ranker.learns else []
    console.print(terminal.counts(f"\ntest window {fold.test}", test.funnel))
    if fold.test.end > log.time[-1] + 1:
        console.print("[yellow]The test window reaches past the last event: what happens after that cannot count.[/]")

    recommender = TwoStageRecommender(parts.retriever, parts.features, parts.ranker, config["candidates"], parts.cache)
    recommender.fit(log, catalogue, fold.test.cutoff, labels, stages)
    per_query, lists = _judge(parts.evaluation, recommender, dataset, test, stages)
    result = {name: float(np.mean(values)) for name, values in per_query.items()}
    result |= _apart(lists, test)
    result["queries/count"] = float(len(test.queries))
    for reason, count in test.funnel.items():
        result[f"queries/{reason.strip('()').replace(' ', '_')}"] = float(count)

    shown = [name for name in TABLE if f"two_stage/{name}" in result]
    console.print(terminal.results(result, list(lists), shown, len(test.queries)))
    depths = [k for k in parts.evaluation.candidate_ks if f"candidates/recall_at_{k}" in result]
    recall = [result[f"candidates/recall_at_{k}"] for k in depths]
    console.print("Candidate recall  " + "  ".join(f"@{k} {r:.4f}" for k, r in zip(depths, recall, strict=True)))

    with stages("save"):
        recommender.save(folder / "model")
        _write_lists(lists["two_stage"], dataset, test, folder / "recommendations.parquet")
        _write_per_query(per_query, dataset, test, folder / "per_query.parquet")
    result |= {f"seconds/{name.replace(' ', '_')}": round(spent, 3) for name, spent in stages.seconds.items()}
    draft = folder / "metrics.json.part"
    draft.write_text(json.dumps(result, indent=2) + "\n")
    draft.rename(folder / "metrics.json")

    tracked.metrics(result)
    tracked.curve("candidates/recall_at_k", depths, recall)
    tracked.figure(plots.recall_curve(depths, recall, config["candidates"]), "recall_curve.png")
    if parts.ranker.curve:
        tracked.curve("ranker/validation_ndcg_at_10", range(1, len(parts.ranker.curve) + 1), parts.ranker.curve)
    if gain := parts.ranker.importance():
        tracked.figure(plots.importance(gain), "feature_importance.png")
        tracked.json(gain, "feature_importance.json")
    for name in ("metrics.json", "per_query.parquet", "recommendations.parquet"):
        tracked.artifact(folder / name)
    tracked.model(folder / "model")
    return result


def _judge(
    evaluation: Evaluation, recommender: TwoStageRecommender, dataset: Dataset, test: Task, stages: Stages
) -> tuple[PerQuery, dict[str, Ranking]]:
    """Values a query under flat names, and the lists of every system."""
    depth, queries, truth = max(evaluation.ks), test.queries, test.truth
    lists: dict[str, Ranking] = {}
    with stages("baselines"):
        for name, baseline in evaluation.baselines.items():
            baseline.fit(dataset.log.before(queries.time), dataset.catalogue.before(queries.time))
            lists[name] = baseline.retrieve(queries, depth)
    pool = recommender.pool(queries)
    deeper = [k for k in evaluation.candidate_ks if k > recommender.candidates]
    retriever = recommender.retriever
    with stages("retrieve"):
        deep = retriever.pool(queries, max(deeper)) if deeper else pool
    lists["retrieval"] = pool.retrieved(depth)
    described = recommender.describe(pool, queries)
    with stages("rank"):
        lists["two_stage"] = pool.order(recommender.ranker.score(described), depth)
    with stages("metrics"):
        values: PerQuery = {}
        for system, ranking in lists.items():
            of_system = metrics.per_query(ranking, truth, evaluation.ks)
            values |= {f"{system}/{name}": each for name, each in of_system.items()}
        within = [k for k in evaluation.candidate_ks if k <= recommender.candidates] or [recommender.candidates]
        recall = metrics.candidate_recall(pool, truth, within)
        if deeper:
            recall |= metrics.candidate_recall(deep, truth, deeper)
        values |= {f"candidates/{name}": each for name, each in recall.items()}
        values["candidates/count"] = np.diff(pool.indptr).astype(np.float64)
    return values, lists


def _apart(lists: Mapping[str, Ranking], test: Task) -> dict[str, float]:
    """Revisit targets (items in the query's history) and discovery targets, each among the queries that have one."""
    revisit = metrics.revisit(test.queries, test.truth)
    result = {"queries/share_of_targets_revisited": float(revisit.mean())}
    for kind, mask in (("revisit", revisit), ("discovery", ~revisit)):
        part = metrics.split_truth(test.truth, mask)
        asked = part.count > 0
        result[f"queries/with_{kind}_target"] = float(asked.sum())
        for system, ranking in lists.items():
            of_system = metrics.mean(metrics.per_query(ranking, part, [10]), where=asked)
            names = ("hit_rate_at_10", "ndcg_at_10", "recall_at_10")
            result |= {f"{system}/{kind}/{name}": of_system[name] for name in names if asked.any()}
    return result


def _write_lists(lists: Ranking, dataset: Dataset, test: Task, path: Path) -> None:
    row, place = np.nonzero(lists.item >= 0)
    columns = {
        "user": dataset.log.users.ids[test.queries.user[row]],
        "rank": (place + 1).astype(np.int16),
        "item": dataset.log.items.ids[lists.item[row, place]],
        "score": lists.score[row, place],
    }
    pd.DataFrame(columns).to_parquet(path, index=False)


def _write_per_query(values: PerQuery, dataset: Dataset, test: Task, path: Path) -> None:
    columns = {
        "user": dataset.log.users.ids[test.queries.user],
        "history_events": np.diff(test.queries.indptr),
        "targets": test.truth.count,
        **values,
    }
    pd.DataFrame(columns).to_parquet(path, index=False)


def _check_numbers(config: Mapping[str, Any]) -> None:
    for name, least in (("seed", 0), ("candidates", 1)):
        value = config[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name}: wanted a whole number of at least {least}, found {value!r}")


def _tags() -> dict[str, object]:
    if not HydraConfig.initialized():
        return {}
    hydra = HydraConfig.get()
    chosen = {group: name for group, name in hydra.runtime.choices.items() if "/" not in group and name}
    return {"overrides": list(hydra.overrides.task), **chosen}


def _point_latest(folder: Path) -> None:
    """Let `latest`, beside the run folders (and above those of a multirun), point at this one."""
    multirun = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    root = folder.parent.parent if multirun else folder.parent
    draft = root / f".latest-{os.getpid()}"
    with suppress(OSError):
        draft.unlink(missing_ok=True)
        draft.symlink_to(os.path.relpath(folder, root), target_is_directory=True)
        draft.replace(root / "latest")
