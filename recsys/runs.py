"""Run folders: what a run leaves behind, and how to find it again."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import recsys
from recsys.component import construct
from recsys.datasets import Dataset
from recsys.digest import digest
from recsys.errors import ConfigError, DataError, nearest
from recsys.evaluation.measured import Measured
from recsys.ranking import Ranker
from recsys.redaction import hide
from recsys.shop.splits import Task
from recsys.tracking import Mlflow, Run, git_tags

DECIDES = ("dataset", "split", "retriever", "features", "ranker", "candidates", "seed")
"""The parts of a config that decide what a run recommends."""

FETCHED = ".fetched"
"""Folder of the runs that were copied from a tracking store."""


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. Each file is read when it is asked for; a missing one raises `DataError`, or is empty where noted."""

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config."""
        values: dict[str, Any] = yaml.safe_load(self._text("config.yaml"))
        return values

    @cached_property
    def measured(self) -> Measured:
        """The names of what the run measured. Raises `DataError` where its config does not say."""
        settings = self.config.get("evaluation")
        if not isinstance(settings, dict) or not {"ks", "candidate_ks", "baselines"} <= settings.keys():
            raise DataError(
                f"{self.path / 'config.yaml'}: wanted evaluation with ks, candidate_ks and baselines, found"
                f" {sorted(settings) if isinstance(settings, dict) else settings!r}; is this the folder of a run?"
            )
        return Measured.of(settings)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """All metrics by flat name."""
        values: dict[str, float] = json.loads(self._text("metrics.json"))
        return values

    @cached_property
    def about(self) -> dict[str, Any]:
        """`run.json`: name, ids, dataset, windows, code, what the ranker learnt; empty where the run left none."""
        return self._optional("run.json")

    @cached_property
    def diagnosis(self) -> dict[str, Any]:
        """`diagnosis.json`; empty where the run left none."""
        return self._optional("diagnosis.json")

    @cached_property
    def certificate(self) -> dict[str, Any]:
        """`certificate.json` of the audit; empty before one."""
        return self._optional("certificate.json")

    @property
    def name(self) -> str:
        """The name for people, with the folder's where two runs may share it."""
        return str(self.about.get("name") or self.path.name)

    def table(self, name: str) -> pd.DataFrame:
        """`<name>.parquet`."""
        path = self.path / f"{name}.parquet"
        if not path.is_file():
            raise DataError(f"{self.path}: wanted {path.name}, found none; the run did not end, or an older version made it")
        return pd.read_parquet(path)

    def _text(self, name: str) -> str:
        path = self.path / name
        if not path.is_file():
            raise DataError(f"{self.path}: wanted {name}, found none; is this the folder of a run that ended?")
        return path.read_text()

    def _optional(self, name: str) -> dict[str, Any]:
        path = self.path / name
        values: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return values


def find(name: str, outputs: Path) -> RunFolder:
    """The run that `name` means: a folder, `latest`, `latest~1` (the one before), a folder's name in `outputs`, an MLflow
    run id (or its first 6 or more characters), or a run's name. The newest comes first where a name is shared.

    What is not in `outputs` is fetched from the tracking store of the newest run's config. Raises `ConfigError` when there is
    no such run.
    """
    if (Path(name) / "metrics.json").is_file():
        return RunFolder(Path(name).resolve())
    runs = newest_first(outputs)
    if back := re.fullmatch(r"latest(?:~(\d+))?", name):
        place = int(back[1] or 0)
        if place >= len(runs):
            raise ConfigError(f"{name}: {outputs} holds {len(runs)} runs that ended")
        return runs[place]
    for run in runs:
        run_id = str(run.about.get("id") or "")
        if name in (run.path.name, run.name, run_id) or (len(name) >= 6 and run_id.startswith(name)):
            return run
    if runs and (fetched := _fetch(name, runs[0], outputs)):
        return fetched
    known = [run.path.name for run in runs] + [run.name for run in runs]
    raise ConfigError(f"{name}: no such run in {outputs} or its tracking store.{nearest(name, known)}")


def newest_first(outputs: Path) -> list[RunFolder]:
    """The runs below `outputs` that ended, those of multiruns included."""
    paths = [path for depth in ("*", "*/*") for path in outputs.glob(f"{depth}/metrics.json")]
    found = {path.parent.resolve() for path in paths if FETCHED not in path.parts}
    return [RunFolder(path) for path in sorted(found, key=lambda path: (path / "metrics.json").stat().st_mtime, reverse=True)]


def describe(name: str, tracked: Run, dataset: Dataset, tests: Sequence[Task], ranker: Ranker) -> dict[str, Any]:
    """What `run.json` holds: how to find the run again, what it was asked, what its ranker learnt. Secrets are hidden."""
    return {
        "format": 1,
        "name": name,
        "id": tracked.id,
        "url": tracked.url,
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.log.fingerprint,
            "source": hide(dataset.source),
            "summary": dataset.summary(),
        },
        "windows": [
            {"cutoff": test.window.cutoff, "end": test.window.end, "text": str(test.window), "funnel": test.funnel}
            for test in tests
        ],
        "code": {"version": recsys.__version__, **git_tags(Path(__file__).parent)},
        "importance": ranker.importance(),
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """Hash of what decides a run's recommendations; equal configs have equal hashes."""
    return digest({name: config.get(name) for name in DECIDES})


def tracker_of(config: Mapping[str, Any]) -> Mlflow | None:
    """The MLflow tracker that a run's config names, None where it is not kept there."""
    tracker = construct(config.get("tracking"), "tracking")
    return tracker if isinstance(tracker, Mlflow) else None


def _fetch(name: str, like: RunFolder, outputs: Path) -> RunFolder | None:
    tracker = tracker_of(like.config)
    folder = tracker.fetch(name, outputs / FETCHED) if tracker else None
    return RunFolder(folder) if folder else None


def remove_empty(*folders: Path) -> None:
    """Remove each folder that is empty, or that is so after those before it."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
