"""Where runs are kept: parameters, metrics, curves, artifacts, the dataset. The only module that knows MLflow.

`Mlflow` writes to a SQLite file by default and to any tracking server by its URI; `NoTracking` keeps nothing. Both give
out a `Run` to record into. `python -m recsys.tracking` opens the UI on the default store; options of `mlflow ui` may
follow. MLflow takes seconds to import, so that is left until a run starts.
"""

import atexit
import importlib
import json
import logging
import math
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field

from recsys.component import Component, component
from recsys.errors import ConfigError
from recsys.redaction import hide, known_secrets, redact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recsys.datasets.base import Dataset

PARENT_RUN = "RECSYS_PARENT_RUN"
"""Environment variable that tells the jobs of a multirun, in whatever process, the id of their parent run."""

DESCRIPTION = "mlflow.note.content"
"""Tag whose text the UI shows as the description of a run or an experiment."""

VIEW = "recsys"
"""Name of the UI's view that shows the columns of `Tracker.describe`."""

NAME_LENGTH, PARAM_LENGTH, TAG_LENGTH, PARAMS_PER_BATCH, METRICS_PER_BATCH = 250, 6000, 8000, 100, 1000
"""MLflow's limits."""

Status = Literal["FINISHED", "FAILED", "KILLED"]

log = logging.getLogger(__name__)


class Run:
    """One run to record into. This base records nothing."""

    id: str = ""
    uri: str = ""
    """Absolute URI of the store."""
    url: str = ""
    """The run's page in the UI: on the server, or where `ui_command` starts one."""
    table: str = ""
    """The page with the table of runs."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Record metrics. `ndcg@10` becomes `ndcg_at_10`; a value that is not finite is left out."""

    def curve(self, name: str, steps: Sequence[int], values: Sequence[float]) -> None:
        """Record one metric at many steps, which the UI draws; name and values as in `metrics`."""

    def tag(self, name: str, value: object) -> None:
        """Set a tag; a list is joined by spaces."""

    def dataset(self, dataset: "Dataset") -> None:
        """Record the run's input: name, fingerprint, source and summary. Name and fingerprint become tags as well."""

    def describe(self, text: str) -> None:
        """Say in Markdown what came of the run."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a copy of a file, in `folder` of the run's artifacts. Nothing inside is redacted."""

    def folder(self, path: Path, name: str) -> None:
        """Keep a copy of what a folder holds as the artifact folder `name`. Nothing inside is redacted."""

    def model(self, path: Path) -> None:
        """Keep the folder of a saved model as the artifact folder `model`, ready to be served, unless `log_model` is off;
        with `register` as a new version of the registered model of that name.
        """

    def figure(self, figure: "Figure", name: str) -> None:
        """Keep a matplotlib figure, as PNG unless `name` has another ending."""

    def text(self, text: str, name: str) -> None:
        """Keep text as the file `name`, without known secrets."""

    def json(self, values: Mapping[str, Any], name: str) -> None:
        """Keep plain values as the JSON file `name`, redacted."""


@component
class Tracker(Component):
    """Gives out runs to record into. This base keeps nothing."""

    @contextmanager
    def run(
        self, name: str, config: Mapping[str, Any], tags: Mapping[str, object] | None = None, parent: str | None = None
    ) -> Iterator[Run]:
        """A run for the length of a `with` block, with the resolved `config` (plain values) and `tags`, see `Run.tag`.

        `parent` is the id of the run that this one is a job of, by default what the environment says (`PARENT_RUN`).
        """
        yield Run()

    def describe(self, text: str, columns: Sequence[str]) -> None:
        """Say in Markdown what the runs are, and which metrics their table shows; the first is what it is sorted by.

        What somebody has said already stays.
        """

    def start_parent(self, name: str, tags: Mapping[str, object] | None = None) -> str:
        """Start the parent of all runs of this process and its workers until `end_parent`; gives its id."""
        return ""

    def end_parent(self, run_id: str, status: Status = "FINISHED") -> None:
        """End the parent. One that is still running when the process leaves is marked as killed."""

    def join_parent(self, run_id: str) -> Run:
        """Let the runs of this process and its workers be children of a run that another process may have started.

        Gives that run to record into; it runs again if it had ended.
        """
        return Run()


@component
class NoTracking(Tracker):
    """Keeps nothing."""


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
            DESCRIPTION: f"[Open the table with its columns]({_table(experiment)})\n\n{text}",
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
        except _mlflow().MlflowException:
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
        context = _mlflow().tracking.context
        all_tags = {
            **context.registry.resolve_tags(ignore=[context.git_context.GitRunContext]),
            **git_tags(Path(__file__).parent),
            **({"mlflow.parentRunId": parent} if parent else {}),
            **_tags({**self.tags, **tags}, secrets),
        }
        client, experiment = self._opened
        run = client.create_run(experiment, run_name=_cut(hide(name, secrets), NAME_LENGTH), tags=all_tags)
        return _MlflowRun(client, self, run.info, secrets)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The store's client and the experiment's id. Store and experiment are made when they are not there yet."""
        file = _sqlite_file(self.store)
        try:
            with _alone(file) if file else nullcontext(), _impatient():
                client = _mlflow().MlflowClient(self.store)
                found = client.get_experiment_by_name(self.experiment)
                if not found:
                    self._create_experiment(client, file)
                    found = client.get_experiment_by_name(self.experiment)
        except Exception as error:
            raise ConfigError(f"tracking.uri: cannot open {hide(self.store)}: {hide(_one_line(error))}") from error
        if found.lifecycle_stage != "active":
            raise ConfigError(
                f"tracking.experiment: {self.experiment!r} is deleted in {hide(self.store)}; restore it "
                f"(mlflow experiments restore --experiment-id {found.experiment_id}) or choose another name"
            )
        return client, found.experiment_id

    def _create_experiment(self, client: Any, file: Path | None) -> None:
        place = (_artifact_root(file) / re.sub(r"[^\w-]", "_", self.experiment)).as_uri() if file else None
        try:
            client.create_experiment(self.experiment, artifact_location=place)
        except _mlflow().MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise


class _MlflowRun(Run):
    def __init__(self, client: Any, tracker: Mlflow, info: Any, secrets: Collection[str]) -> None:
        self.client, self.tracker, self.secrets = client, tracker, secrets
        self.id, self.uri = info.run_id, tracker.store
        server = hide(self.uri) if self.uri.startswith("http") else "http://127.0.0.1:5000"
        self.url = f"{server}/#/experiments/{info.experiment_id}/runs/{self.id}"
        self.table = f"{server}/{_table(info.experiment_id)}"

    def config(self, config: Mapping[str, Any]) -> None:
        """Record the config: flattened as parameters, whole as `config.yaml`."""
        plain, new = redact(config, self.secrets), _mlflow().entities.Param
        params = [new(valid_name(name), _cut(value, PARAM_LENGTH)) for name, value in flatten(plain).items()]
        for batch in _batches(params, PARAMS_PER_BATCH):
            self.client.log_batch(self.id, params=batch)
        self.text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), "config.yaml")

    def metrics(self, values: Mapping[str, float]) -> None:
        self._points((name, 0, value) for name, value in values.items())

    def curve(self, name: str, steps: Sequence[int], values: Sequence[float]) -> None:
        self._points((name, step, value) for step, value in zip(steps, values, strict=True))

    def _points(self, points: Iterable[tuple[str, int, float]]) -> None:
        new, now = _mlflow().entities.Metric, int(time.time() * 1000)
        metrics = [new(valid_name(n), float(v), now, int(step)) for n, step, v in points if math.isfinite(v)]
        for batch in _batches(metrics, METRICS_PER_BATCH):
            self.client.log_batch(self.id, metrics=batch)

    def tag(self, name: str, value: object) -> None:
        for key, text in _tags({name: value}, self.secrets).items():
            self.client.set_tag(self.id, key, text)

    def dataset(self, dataset: "Dataset") -> None:
        new, source = _mlflow().entities, hide(dataset.source, self.secrets)
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

    def model(self, path: Path) -> None:
        if not self.tracker.log_model:
            return
        from recsys import serving

        self.folder(path, "model")
        with tempfile.TemporaryDirectory() as scratch, _hushed("mlflow.pyfunc"):
            serving.describe(path, Path(scratch) / "model")
            self.folder(Path(scratch) / "model", "model")
        if name := self.tracker.register:
            self._register(name)

    def _register(self, name: str) -> None:
        with suppress(_mlflow().MlflowException):  # it is there already
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
            self.client.set_tag(self.id, "error", _cut(hide(_one_line(error), self.secrets), TAG_LENGTH))
            self.text("".join(traceback.format_exception(error)), "error.txt")
        except Exception as trouble:
            log.warning("run %s could not be marked as failed: %s", self.id, hide(_one_line(trouble), self.secrets))


def _table(experiment: str) -> str:
    return f"#/experiments/{experiment}/runs?viewStateShareKey={VIEW}"


def valid_name(name: str) -> str:
    """`name` as MLflow takes it: `@` becomes `_at_`, other foreign characters `_`, and 250 characters are enough."""
    parts = re.sub(r"[^\w\-. /]", "_", name.replace("@", "_at_")).split("/")
    return "/".join(part for part in parts if part.strip("."))[:NAME_LENGTH] or "_"


def flatten(value: Any, name: str = "") -> dict[str, str]:
    """Nested plain values as text by dotted name. A list that holds mappings is numbered."""
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        value = dict(enumerate(value))
    if isinstance(value, Mapping) and (value or not name):
        prefix = f"{name}." if name else ""
        return {path: text for key, item in value.items() for path, text in flatten(item, f"{prefix}{key}").items()}
    return {name: str(value)}


def _tags(tags: Mapping[str, object], secrets: Collection[str]) -> dict[str, str]:
    plain = redact(tags, secrets).items()
    texts = {name: " ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in plain}
    return {valid_name(name): _cut(text, TAG_LENGTH) for name, text in texts.items()}


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _batches(entries: list[Any], size: int) -> Iterator[list[Any]]:
    return (entries[start : start + size] for start in range(0, len(entries), size))


def home() -> Path:
    """The project folder: `RECSYS_HOME`, else the nearest one with a `train.py` above this package, else above the
    working directory, else the working directory.
    """
    if named := os.environ.get("RECSYS_HOME"):
        return Path(named).resolve()
    here = Path.cwd()
    above = [*Path(__file__).resolve().parents, here, *here.parents]
    return next((folder for folder in above if (folder / "train.py").is_file()), here)


def absolute_uri(uri: str | None) -> str:
    """A tracking URI that means one store in any working directory. Raises `ConfigError` for what is no URI."""
    uri = uri or "sqlite:///mlflow.db"
    scheme, colon, rest = uri.partition(":")
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{(home() / uri.removeprefix('sqlite:///')).resolve()}"
    if scheme == "file" and not rest.startswith("//"):
        return (home() / rest).resolve().as_uri()
    if not colon and not uri.startswith("databricks"):
        raise ConfigError(f"tracking.uri: wanted a URI such as sqlite:///mlflow.db or http://host:5000, found {uri!r}")
    return uri


def ui_command(uri: str) -> str:
    """What to type to see the runs of the store `uri`, for a server its address. A password is not shown."""
    return hide(uri) if uri.startswith("http") else shlex.join(["mlflow", *_ui(hide(absolute_uri(uri)))])


def _ui(uri: str) -> list[str]:
    file = _sqlite_file(uri)
    artifacts = ["--default-artifact-root", _artifact_root(file).as_uri()] if file else []
    return ["ui", "--backend-store-uri", uri, *artifacts, "--port", "5000"]


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def _artifact_root(file: Path) -> Path:
    return file.parent / "mlartifacts"


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Wait until no other process opens this SQLite store: MLflow fails when two of them create its tables.

    The lock is an exclusive transaction in a file beside the store: it works on every system and dies with its process.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(f"{file}.lock", timeout=300, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def _impatient() -> Iterator[None]:
    """Without MLflow's minutes of retries: a server that is not there when a run starts has a wrong address."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    unset = name not in os.environ
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if unset:
            del os.environ[name]


def git_tags(folder: Path) -> dict[str, str]:
    """Commit of the repository around `folder` and whether tracked files differ from it; else empty."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    commit, _, dirty = told.partition("-")
    return {"git_commit": commit, "git_dirty": str(bool(dirty)).lower(), "mlflow.source.git.commit": commit}


@contextmanager
def _hushed(name: str) -> Iterator[None]:
    """Without what a logger has to say below a warning."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _quiet() -> None:
    """No telemetry, no links on the console, no line for each migration of the store."""
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"):
        os.environ.setdefault(name, "true")
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _mlflow() -> ModuleType:
    _quiet()
    return importlib.import_module("mlflow")


if __name__ == "__main__":
    _quiet()
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *_ui(absolute_uri(None)), *sys.argv[1:]])
