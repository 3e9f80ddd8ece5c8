"""One run: data, fold, two stages, metrics, tracking, outputs. The only place where all of them meet."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from recsys import runs
from recsys.ablation import without
from recsys.cache import NoCache
from recsys.component import construct
from recsys.datasets import Dataset, Loader, kept
from recsys.errors import ConfigError, DataError, nearest
from recsys.evaluation.measured import FINAL, UNFORETOLD
from recsys.features import FeatureSet
from recsys.judging import Evaluation, JudgedFold, Judgement, judge_fold, summarise
from recsys.ranking import Ranker
from recsys.recommender import TwoStageRecommender
from recsys.redaction import redact
from recsys.report import page, plots, run_table, terminal
from recsys.retrieval import Retriever
from recsys.shop.kinds import named
from recsys.shop.splits import Fold, Rolling, Split, Window
from recsys.shop.windows import TEST_CUTOFFS
from recsys.timing import Timings
from recsys.tracking import Run, Tracker, ui_command

KEPT = (
    "metrics.json",
    "run.json",
    "diagnosis.json",
    "report.html",
    "per_query.parquet",
    "targets.parquet",
    "recommendations.parquet",
)
"""Files of the run folder that are artifacts of the tracked run too."""

BY_HAND = ("retriever.", "features.", "ranker.", "candidates=")
"""How the overrides begin that tell runs of the same parts from each other."""


@dataclass(frozen=True)
class Parts:
    """The configured objects of a run, all checked before any data is read."""

    dataset: Loader
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
        known = parts["dataset"].event_kinds()
        for name in parts:
            for key, kind in named(parts[name], name):
                known.check([kind], key)
        parts["features"].check(known)
        return cls(**parts)


def run(config: DictConfig) -> float:
    """Do the run that the config describes; gives the metric that `optimized_metric` names. All are in `metrics.json`.

    Raises `ConfigError` and `DataError` for what the user can mend.
    """
    plain = without(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    parts = Parts.of(plain)
    check_values(plain)
    objective = objective_of(parts, plain)
    console = Console()
    folder = Path(plain["output_dir"]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(redact(plain), sort_keys=False, allow_unicode=True))
    settings = {name: value for name, value in plain.items() if name != "output_dir"}  # that differs between any two runs
    with parts.tracking.run(run_name(plain), settings, {"output_dir": folder, **_tags()}) as tracked:
        measured = parts.evaluation.measured
        about = run_table.about(measured, parts.evaluation.functions)
        parts.tracking.describe(about, run_table.columns(measured, plain["candidates"]))
        result = _run(parts, plain, objective, folder, tracked, Timings(console))
    _point_latest(folder)
    console.print(f"\nOutputs  {folder}")
    if tracked.uri:
        console.print(f"MLflow   {tracked.url}", soft_wrap=True, highlight=False)
        console.print(f"Table    {tracked.table}", soft_wrap=True, highlight=False)
        console.print(f"Compare  {ui_command(tracked.uri)}", soft_wrap=True, highlight=False)
    if objective not in result:
        raise DataError(f"optimized_metric: {objective} is not defined on this data; the run is whole in {folder}")
    return result[objective]


def objective_of(parts: Parts, config: Mapping[str, Any]) -> str:
    """The name in `optimized_metric`; None stands for the leading metric of the two stages.

    Raises `ConfigError` for a metric that no run of this config logs.
    """
    measured, split = parts.evaluation.measured, parts.split
    leading, wanted = f"{FINAL}/{measured.leading}", config["optimized_metric"]
    if wanted is None:
        return leading
    folds = (split.test_cutoffs or TEST_CUTOFFS) if isinstance(split, Rolling) else 1
    known = measured.logged(config["candidates"], parts.retriever.labels, folds)
    if wanted not in known and not str(wanted).startswith(UNFORETOLD):
        alike = nearest(str(wanted), (name for name in known if not name.startswith(("interval/", "mde/"))))
        raise ConfigError(f"optimized_metric: this run logs no metric called {wanted!r}.{alike} null stands for {leading}.")
    return str(wanted)


def run_name(config: Mapping[str, Any]) -> str:
    """A name for people: what was composed, on which data, and what was set of the two stages by hand."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    chosen = hydra.runtime.choices if hydra else {}
    names = [str(chosen.get(group) or config[group]["_target_"].rpartition(".")[2]) for group in ("retriever", "ranker")]
    features = chosen.get("features")
    if features:
        names.append(str(features))
    names.append(str(chosen.get("dataset") or "dataset"))
    overrides = [text.lstrip("+") for text in (hydra.overrides.task if hydra else [])]
    set_by_hand = [text for text in overrides if text.startswith(BY_HAND)]
    names += [text.removeprefix("retriever.").removeprefix("features.").removeprefix("ranker.") for text in set_by_hand]
    if config.get("drop"):
        names.append(f"without {config['drop']}")
    return " · ".join(names)


def _run(
    parts: Parts, config: Mapping[str, Any], objective: str, folder: Path, tracked: Run, timings: Timings
) -> dict[str, float]:
    console = timings.console or Console()
    with timings("load"):
        dataset = kept.load(parts.dataset, parts.cache)
    console.print(terminal.counts(f"\n{dataset.name}", dataset.summary()))
    tracked.dataset(dataset)
    with timings("split"):
        folds = parts.split.folds(dataset)
    for note in dict.fromkeys(note for fold in folds for note in fold.notes):
        console.print(f"[yellow]{note}[/]", highlight=False)
    judged: list[JudgedFold] = []
    recommender = TwoStageRecommender(parts.retriever, parts.features, parts.ranker, config["candidates"], parts.cache)
    for i, fold in enumerate(folds):
        with timings("split"):
            test = parts.split.test_task(dataset, fold.test)
            labels = [parts.split.label_task(dataset, window) for window in fold.labels] if parts.ranker.learns else []
        console.print(terminal.counts(f"\ntest window {fold.test}", test.funnel))
        if fold.test.end > dataset.log.time[-1] + 1:
            console.print("[yellow]The test window reaches past the last event: what happens after that cannot count.[/]")
        recommender.fit(dataset, fold.test.cutoff, labels, timings)
        judged.append(judge_fold(parts.evaluation, recommender, dataset, test, timings, i))
    with timings("statistics"):
        judgement = summarise(parts.evaluation, judged, config["seed"])
    result, measured = judgement.flat(), judgement.measured

    console.print(terminal.results(judgement.intervals, measured.systems, measured.shown, int(result["queries/count"])))
    depths = [k for k in parts.evaluation.candidate_ks if f"candidates/recall_at_{k}" in result]
    recall = [judgement.intervals[f"candidates/recall_at_{k}"] for k in depths]
    console.print(terminal.curve("\nCandidate recall", depths, recall))
    console.print(f"\n{judgement.verdict}", style="bold", markup=False)

    about = runs.describe(run_name(config), tracked, dataset, [fold.test for fold in judged], parts.ranker)
    curve, gain = parts.ranker.curve, parts.ranker.importance()
    if config["refit"]:
        _refit(parts, recommender, dataset, folds[-1], timings)
    about["model"] = {"cutoff": recommender.cutoff, "refit": config["refit"]}
    with timings("save"):
        recommender.save(folder / "model")
        _write_lists(judged, dataset, folder / "recommendations.parquet")
        _write_per_query(judged, judgement, dataset, folder / "per_query.parquet")
        pd.concat([fold.targets for fold in judged]).to_parquet(folder / "targets.parquet", index=False)
        (folder / "run.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n")
        (folder / "diagnosis.json").write_text(json.dumps(judgement.document, indent=2, ensure_ascii=False) + "\n")
    result |= {f"seconds/{name.replace(' ', '_')}": round(spent, 3) for name, spent in timings.seconds.items()}
    draft = folder / "metrics.json.part"
    draft.write_text(json.dumps(result, indent=2) + "\n")
    draft.rename(folder / "metrics.json")
    page.write(runs.RunFolder(folder))

    tracked.metrics(run_table.headline(result, measured, objective))
    tracked.tag("verdict", judgement.verdict.text)
    tracked.describe(judgement.verdict.text)
    tracked.curve("candidates/recall_at_k", depths, [each.value for each in recall])
    tracked.figure(plots.recall_curve(depths, recall, config["candidates"]), "recall_curve.png")
    if curve:
        tracked.curve("ranker/early_stopping_ndcg", range(1, len(curve) + 1), curve)
    if gain:
        tracked.figure(plots.importance(gain), "feature_importance.png")
        tracked.json(gain, "feature_importance.json")
    for name in KEPT:
        tracked.artifact(folder / name)
    tracked.model(folder / "model", _for_serving)
    return result


def _for_serving(model: Path, folder: Path) -> None:
    """Write MLflow's own files for the saved model; what serves it loads slowly, and only a tracked run needs it."""
    from recsys.serving import endpoint

    endpoint.describe(model, folder)


def _refit(parts: Parts, recommender: TwoStageRecommender, dataset: Dataset, newest: Fold, timings: Timings) -> None:
    """Fit at the end of the log. The label windows of the newest fold move there with the cutoff."""
    end = int(dataset.log.time[-1]) + 1
    later = end - newest.test.cutoff
    windows = [Window(label.cutoff + later, label.end + later) for label in newest.labels] if parts.ranker.learns else []
    labels = [parts.split.label_task(dataset, window) for window in windows]
    with timings("refit"):
        recommender.fit(dataset, end, labels, Timings())
        _ = recommender.retriever, recommender.features  # both are fitted when they are first wanted


def _write_lists(judged: Sequence[JudgedFold], dataset: Dataset, path: Path) -> None:
    frames = []
    for i, fold in enumerate(judged):
        lists = fold.lists[FINAL]
        row, place = np.nonzero(lists.item >= 0)
        columns = {
            "fold": np.full(len(row), i, dtype=np.int32),
            "cutoff": np.full(len(row), fold.test.window.cutoff),
            "user": dataset.log.users.ids[fold.test.queries.user[row]],
            "rank": (place + 1).astype(np.int16),
            "item": dataset.log.items.ids[lists.item[row, place]],
            "score": lists.score[row, place],
        }
        frames.append(pd.DataFrame(columns))
    pd.concat(frames).to_parquet(path, index=False)


def _write_per_query(judged: Sequence[JudgedFold], judgement: Judgement, dataset: Dataset, path: Path) -> None:
    frames = []
    for i, fold in enumerate(judged):
        columns = {
            "fold": np.full(len(fold.test.queries), i, dtype=np.int32),
            "cutoff": np.full(len(fold.test.queries), fold.test.window.cutoff),
            "user": dataset.log.users.ids[fold.test.queries.user],
            "history_events": np.diff(fold.test.queries.indptr),
            "targets": fold.test.truth.count,
            **fold.accuracy,
        }
        frames.append(pd.DataFrame(columns))
    pd.concat(frames).assign(stage=judgement.stage).to_parquet(path, index=False)


def check_values(config: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a value of no group that does not fit."""
    for name, least in (("seed", 0), ("candidates", 1)):
        value = config[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name}: wanted a whole number of at least {least}, found {value!r}")
    for name in ("refit", "dry"):
        if not isinstance(config[name], bool):
            raise ConfigError(f"{name}: wanted true or false, found {config[name]!r}")


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
