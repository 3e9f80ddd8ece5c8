"""Which store is meant by a URI, how to open it and how to look at it."""

import importlib
import logging
import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType

from recsys.errors import ConfigError
from recsys.redaction import hide


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
    return hide(uri) if uri.startswith("http") else shlex.join(["mlflow", *ui_arguments(hide(absolute_uri(uri)))])


def ui_arguments(uri: str) -> list[str]:
    """Arguments of the `mlflow` command that opens the UI on a store."""
    file = sqlite_file(uri)
    artifacts = ["--default-artifact-root", artifact_root(file).as_uri()] if file else []
    return ["ui", "--backend-store-uri", uri, *artifacts, "--port", "5000"]


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store, None for any other."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def artifact_root(file: Path) -> Path:
    """Where the artifacts of a SQLite store lie."""
    return file.parent / "mlartifacts"


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Wait until no other process opens this SQLite store: MLflow fails when two of them create its tables.

    The lock is an exclusive transaction in a file beside the store: it works on every system and dies with its process.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(f"{file}.lock", timeout=300, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def impatient() -> Iterator[None]:
    """Without MLflow's minutes of retries: a server that is not there when a run starts has a wrong address."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    unset = name not in os.environ
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if unset:
            del os.environ[name]


@contextmanager
def hushed(name: str) -> Iterator[None]:
    """Without what a logger has to say below a warning."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def quiet() -> None:
    """No telemetry, no links on the console, no line for each migration of the store."""
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"):
        os.environ.setdefault(name, "true")
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)


def load() -> ModuleType:
    """MLflow, imported when it is first wanted."""
    quiet()
    return importlib.import_module("mlflow")
