"""Runs in MLflow."""

import atexit
import json
import logging
import math
import os
import re
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field

from recsys.component import component
from recsys.errors import ConfigError
from recsys.redaction import hide, known_secrets, redact
from recsys.tracking.base import PARENT_RUN, Run, Status, Tracker
from recsys.tracking.form import (
    METRICS_PER_BATCH,
    NAME_LENGTH,
    PARAM_LENGTH,
    PARAMS_PER_BATCH,
    TAG_LENGTH,
    batches,
    cut,
    flatten,
    one_line,
    texts,
    valid_name,
)
from recsys.tracking.store import absolute_uri, alone, artifact_root, hushed, impatient, load, sqlite_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recsys.datasets.base import Dataset

DESCRIPTION = "mlflow.note.content"
"""Tag whose text the UI shows as the description of a run or an experiment."""

VIEW = "recsys"
"""Name of the UI's view that shows the columns of `Tracker.describe`."""

log = logging.getLogger(__name__)


@component
class Mlflow(Tracker):
    """Keeps runs in MLflow.

    `uri` is any tracking URI of MLflow. A relative SQLite or file path is taken from the project folder (`home`); none
    means `mlflow.db` there. Artifacts of a SQLite store lie beside it in `mlartifacts`. `store` is the absolute URI.
    `run_name` goes before the name that a job gives its run; `tags` are set on every run. `register` names the registered model
    that a run's model becomes the newest version of.

    A run that raises is marked FAILED, one that is interrupted KILLED; both get the tag `error` and the traceback in
    `error.txt`. Secrets (`recsys.redaction`) reach neither parameters, tags, texts nor the kept `config.yaml`.

    Raises `ConfigError` when a run starts and the store cannot be opened.
    """

    uri: str | None = Field(default=None, repr=False)
    experiment: str = Field(default="recsys", min_length=1)
    run_name: str | None = None
    log_model: bool = True
    register: str | None = Field(default=None, min_length=1)
    tags: dict[str, str] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = absolute_uri(self.uri)
        if self.register and not self.log_model:
            raise ConfigError("tracking.register: wanted log_model: true with it, for there to be a model to register")

    @contextmanager
    def run(
        self, name: str, config: Mapping[str, Any], tags: Mapping[str, object] | None = None, parent: str | None = None
    ) -> Iterator[Run]:
        """See `Tracker.run`."""
        parent = parent or os.environ.get(PARENT_RUN)
        run = self._start(self.run_name or name, tags or {}, known_secrets(config), parent)
        try:
            run.config(config)
            yield run
        except BaseException as error:
            run.fail(error)
            raise
        run.end("FINISHED")

    def describe(self, text: str, columns: Sequence[str]) -> None:
        """See `Tracker.describe`. The table is a view of the UI that the description links to."""
        client, experiment = self._opened
        shown = [f"metrics.`{valid_name(name)}`" for name in columns]
        view = {"selectedColumns": ["attributes.`Created`", *shown], "orderByKey": shown[0], "orderByAsc": False}
        tags = {
            DESCRIPTION: f"[Open the table with its columns]({table_address(experiment)})\n\n{text}",
            "mlflow.experimentKind": "custom_model_development",
            "mlflow.experiment.primaryMetric.name": valid_name(columns[0]),
            f"mlflow.sharedViewState.{VIEW}": json.dumps(view),
        }
        there = client.get_experiment(experiment).tags
        for name, value in tags.items():
            if name not in there:
                client.set_experiment_tag(experiment, name, value)

    def start_parent(self, name: str, tags: Mapping[str, object] | None = None) -> str:
        """See `Tracker.start_parent`."""
        run = self._start(name, tags or {}, known_secrets({}))
        os.environ[PARENT_RUN] = run.id
        atexit.register(self._abandon, run.id)
        return run.id

    def end_parent(self, run_id: str, status: Status = "FINISHED") -> None:
        """See `Tracker.end_parent`."""
        os.environ.pop(PARENT_RUN, None)
        atexit.unregister(self._abandon)
        self._opened[0].set_terminated(run_id, status)

    def reopen(self, run_id: str) -> Run:
        """A run that has ended, to record more into."""
        client, _ = self._opened
        return _MlflowRun(client, self, client.get_run(run_id).info, known_secrets({}))

    def fetch(self, name: str, folder: Path) -> Path | None:
        """Copy the files that a run kept (not its folders) to `folder/<run id>`, which is given back.

        `name` is the run's id, or its name, where the newest of that name is meant. None when there is no such run.
        """
        client, experiment = self._opened
        quote = '"' if "'" in name else "'"
        named = f"attributes.run_name = {quote}{name}{quote}"
        try:
            found = client.search_runs([experiment], named, order_by=["start_time DESC"], max_results=1)
            run_id = found[0].info.run_id if found else client.get_run(name).info.run_id
        except load().MlflowException:
            return None
        target = folder / run_id
        target.mkdir(parents=True, exist_ok=True)
        for artifact in client.list_artifacts(run_id):
            if not artifact.is_dir:
                client.download_artifacts(run_id, artifact.path, str(target))
        return target

    def join_parent(self, run_id: str) -> Run:
        """See `Tracker.join_parent`."""
        os.environ[PARENT_RUN] = run_id
        client, _ = self._opened
        client.update_run(run_id, status="RUNNING")
        return _MlflowRun(client, self, client.get_run(run_id).info, known_secrets({}))

    def _abandon(self, run_id: str) -> None:
        client, _ = self._opened
        if client.get_run(run_id).info.status == "RUNNING":
            client.set_terminated(run_id, "KILLED")

    def _start(
        self, name: str, tags: Mapping[str, object], secrets: Collection[str], parent: str | None = None
    ) -> "_MlflowRun":
        context = load().tracking.context
        all_tags = {
            **context.registry.resolve_tags(ignore=[context.git_context.GitRunContext]),
            **git_tags(Path(__file__).parent),
            **({"mlflow.parentRunId": parent} if parent else {}),
            **texts({**self.tags, **tags}, secrets),
        }
        client, experiment = self._opened
        run = client.create_run(experiment, run_name=cut(hide(name, secrets), NAME_LENGTH), tags=all_tags)
        return _MlflowRun(client, self, run.info, secrets)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The store's client and the experiment's id. Store and experiment are made when they are not there yet."""
        file = sqlite_file(self.store)
        try:
            with alone(file) if file else nullcontext(), impatient():
                client = load().MlflowClient(self.store)
                found = client.get_experiment_by_name(self.experiment)
                if not found:
                    self._create_experiment(client, file)
                    found = client.get_experiment_by_name(self.experiment)
        except Exception as error:
            raise ConfigError(f"tracking.uri: cannot open {hide(self.store)}: {hide(one_line(error))}") from error
        if found.lifecycle_stage != "active":
            raise ConfigError(
                f"tracking.experiment: {self.experiment!r} is deleted in {hide(self.store)}; restore it "
                f"(mlflow experiments restore --experiment-id {found.experiment_id}) or choose another name"
            )
        return client, found.experiment_id

    def _create_experiment(self, client: Any, file: Path | None) -> None:
        place = (artifact_root(file) / re.sub(r"[^\w-]", "_", self.experiment)).as_uri() if file else None
        try:
            client.create_experiment(self.experiment, artifact_location=place)
        except load().MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise


class _MlflowRun(Run):
    def __init__(self, client: Any, tracker: Mlflow, info: Any, secrets: Collection[str]) -> None:
        self.client, self.tracker, self.secrets = client, tracker, secrets
        self.id, self.uri = info.run_id, tracker.store
        server = hide(self.uri) if self.uri.startswith("http") else "http://127.0.0.1:5000"
        self.url = f"{server}/#/experiments/{info.experiment_id}/runs/{self.id}"
        self.table = f"{server}/{table_address(info.experiment_id)}"

    def config(self, config: Mapping[str, Any]) -> None:
        """Record the config: flattened as parameters, whole as `config.yaml`."""
        plain, new = redact(config, self.secrets), load().entities.Param
        params = [new(valid_name(name), cut(value, PARAM_LENGTH)) for name, value in flatten(plain).items()]
        for batch in batches(params, PARAMS_PER_BATCH):
            self.client.log_batch(self.id, params=batch)
        self.text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), "config.yaml")

    def metrics(self, values: Mapping[str, float]) -> None:
        self._points((name, 0, value) for name, value in values.items())

    def curve(self, name: str, steps: Sequence[int], values: Sequence[float]) -> None:
        self._points((name, step, value) for step, value in zip(steps, values, strict=True))

    def _points(self, points: Iterable[tuple[str, int, float]]) -> None:
        new, now = load().entities.Metric, int(time.time() * 1000)
        metrics = [new(valid_name(n), float(v), now, int(step)) for n, step, v in points if math.isfinite(v)]
        for batch in batches(metrics, METRICS_PER_BATCH):
            self.client.log_batch(self.id, metrics=batch)

    def tag(self, name: str, value: object) -> None:
        for key, text in texts({name: value}, self.secrets).items():
            self.client.set_tag(self.id, key, text)

    def dataset(self, dataset: "Dataset") -> None:
        new, source = load().entities, hide(dataset.source, self.secrets)
        is_file = Path(dataset.source).exists()
        entity = new.Dataset(
            name=dataset.name,
            digest=dataset.fingerprint,
            source_type="local" if is_file else "code",
            source=json.dumps({"uri": source} if is_file else {"tags": {"mlflow.source.name": source}}),
            profile=json.dumps(dataset.summary()),
        )
        self.client.log_inputs(self.id, [new.DatasetInput(entity, [new.InputTag("mlflow.data.context", "training")])])
        self.tag("dataset", dataset.name)
        self.tag("dataset_fingerprint", dataset.fingerprint)

    def describe(self, text: str) -> None:
        self.tag(DESCRIPTION, text)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        self.client.log_artifact(self.id, str(path), folder)

    def folder(self, path: Path, name: str) -> None:
        self.client.log_artifacts(self.id, str(path), name)

    def model(self, path: Path, describe: Callable[[Path, Path], None]) -> None:
        if not self.tracker.log_model:
            return
        self.folder(path, "model")
        with tempfile.TemporaryDirectory() as scratch, hushed("mlflow.pyfunc"):
            describe(path, Path(scratch) / "model")
            self.folder(Path(scratch) / "model", "model")
        if name := self.tracker.register:
            self._register(name)

    def _register(self, name: str) -> None:
        with suppress(load().MlflowException):  # it is there already
            self.client.create_registered_model(name)
        source = f"{self.client.get_run(self.id).info.artifact_uri}/model"
        version = self.client.create_model_version(name, source, self.id)
        self.tag("registered_model", f"{name}/{version.version}")

    def figure(self, figure: "Figure", name: str) -> None:
        self.client.log_figure(self.id, figure, name if Path(name).suffix else f"{name}.png")

    def text(self, text: str, name: str) -> None:
        self.client.log_text(self.id, hide(text, self.secrets), name)

    def json(self, values: Mapping[str, Any], name: str) -> None:
        self.text(json.dumps(redact(values, self.secrets), indent=2, ensure_ascii=False), name)

    def end(self, status: Status) -> None:
        self.client.set_terminated(self.id, status)

    def fail(self, error: BaseException) -> None:
        """Mark the run as failed or killed. A store that fails as well does not hide what stopped the run."""
        try:
            self.end("FAILED" if isinstance(error, Exception) else "KILLED")
            self.client.set_tag(self.id, "error", cut(hide(one_line(error), self.secrets), TAG_LENGTH))
            self.text("".join(traceback.format_exception(error)), "error.txt")
        except Exception as trouble:
            log.warning("run %s could not be marked as failed: %s", self.id, hide(one_line(trouble), self.secrets))


def table_address(experiment: str) -> str:
    """Where the UI shows the experiment's runs with the columns of `Tracker.describe`."""
    return f"#/experiments/{experiment}/runs?viewStateShareKey={VIEW}"


def git_tags(folder: Path) -> dict[str, str]:
    """Commit of the repository around `folder` and whether tracked files differ from it; else empty."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    commit, _, dirty = told.partition("-")
    return {"git_commit": commit, "git_dirty": str(bool(dirty)).lower(), "mlflow.source.git.commit": commit}
