import math
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from mlflow.utils import validation

from recsys.component import construct
from recsys.datasets.base import Dataset, Funnel
from recsys.errors import ConfigError
from recsys.features import FeatureSet
from recsys.ranking import RetrievalOrder
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import History
from recsys.serving import endpoint
from recsys.shop.catalogue import Catalogue
from recsys.shop.customers import Customers
from recsys.shop.events import EventLog
from recsys.tracking import (
    PARENT_RUN,
    Mlflow,
    NoTracking,
    Run,
    absolute_uri,
    flatten,
    form,
    git_tags,
    home,
    store,
    ui_command,
    valid_name,
)

SECRET = "correct-horse-battery"

WORKER = """
import logging, sys
logging.basicConfig(level=logging.INFO)
from recsys.tracking import Mlflow
assert not {"mlflow", "matplotlib"} & set(sys.modules), "imported before it is needed"
tracker = Mlflow()
tracker.start_parent("sweep of " + sys.argv[1])
with tracker.run(sys.argv[1], {"worker": sys.argv[1]}):
    pass
from mlflow.telemetry.client import get_telemetry_client
assert get_telemetry_client() is None
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A project folder whose default store was created by two processes at once; a parent of each was never ended."""
    folder = tmp_path_factory.mktemp("my shop").resolve()
    testing = {
        "PYTEST_CURRENT_TEST",
        "CI",
        "GITHUB_ACTIONS",
        "MLFLOW_TRACKING_URI",
        "MLFLOW_DISABLE_TELEMETRY",
        PARENT_RUN,
    }
    environment = {k: v for k, v in os.environ.items() if k not in testing} | {"RECSYS_HOME": str(folder)}
    workers = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        command = [sys.executable, "-c", WORKER, name]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        workers.append(subprocess.Popen(command, cwd=folder / name, env=environment, **pipes))
    told = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], told
    return folder, told


@pytest.fixture(autouse=True)
def no_parent(monkeypatch):
    monkeypatch.delenv(PARENT_RUN, raising=False)


@pytest.fixture(scope="module")
def tracker(shop):
    return Mlflow(uri=f"sqlite:///{shop[0]}/mlflow.db")


@pytest.fixture(scope="module")
def client(tracker):
    return tracker._opened[0]


def runs(client, tracker, name):
    return client.search_runs([tracker._opened[1]], f"attributes.run_name = '{name}'")


def artifact(client, run_id, name):
    return (Path(client.download_artifacts(run_id, "")) / name).read_text()


def made_dataset(source="made up", name="tiny"):
    ids = np.arange(4)
    log = EventLog.build(ids, ids, ["view"] * 4, ids.astype(np.int64))
    return Dataset(
        log,
        Catalogue.empty(log.items, log.item_born),
        Customers.empty(log.users, log.user_born),
        name,
        Funnel([("rows read", 5)]),
        source,
    )


# The store


def test_processes_that_create_the_store_at_once_share_it_and_say_nothing(shop, client, tracker):
    folder, told = shop
    assert told == ["", ""]
    for name in ("one", "two"):
        (run,) = runs(client, tracker, name)
        assert run.info.status == "FINISHED"
        assert run.data.params == {"worker": name}
        assert run.info.artifact_uri.startswith((folder / "mlartifacts" / "recsys").as_uri())
        assert not list((folder / name).iterdir()), "something was left in the working directory"


def test_a_parent_that_was_never_ended_is_killed_when_its_process_leaves(client, tracker, shop):
    for name in ("one", "two"):
        (parent,) = runs(client, tracker, f"sweep of {name}")
        assert parent.info.status == "KILLED"
        assert runs(client, tracker, name)[0].data.tags["mlflow.parentRunId"] == parent.info.run_id


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        (None, "sqlite:///{home}/mlflow.db"),
        ("sqlite:///runs.db", "sqlite:///{home}/runs.db"),
        ("sqlite:///runs.db?timeout=9", "sqlite:///{home}/runs.db?timeout=9"),
        ("sqlite:////data/runs.db", "sqlite:////data/runs.db"),
        ("file:./runs", "file://{home}/runs"),
        ("file:///data/runs", "file:///data/runs"),
        ("http://host:5000", "http://host:5000"),
        ("postgresql://me@host/runs", "postgresql://me@host/runs"),
        ("databricks", "databricks"),
    ],
)
def test_the_store_is_the_same_in_any_working_directory(uri, absolute, monkeypatch, tmp_path):
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path))
    monkeypatch.chdir("/")
    assert Mlflow(uri=uri).store == absolute.format(home=tmp_path.resolve())


def test_a_path_is_no_uri():
    with pytest.raises(ConfigError, match=r"tracking\.uri: wanted a URI such as .*, found 'mlruns'"):
        Mlflow(uri="mlruns")


def test_home_is_named_or_holds_train_py(monkeypatch, tmp_path):
    tmp_path = tmp_path.resolve()
    package, work = tmp_path / "repo" / "recsys", tmp_path / "work" / "deep"
    for folder in (package, work):
        folder.mkdir(parents=True)
    monkeypatch.delenv("RECSYS_HOME", raising=False)
    monkeypatch.setattr(store, "__file__", str(package / "tracking" / "store.py"))
    monkeypatch.chdir(work)
    assert home() == work
    (tmp_path / "work" / "train.py").touch()
    assert home() == tmp_path / "work"
    (tmp_path / "repo" / "train.py").touch()
    assert home() == tmp_path / "repo"
    monkeypatch.setenv("RECSYS_HOME", str(work))
    assert home() == work


@pytest.mark.parametrize("uri", [f"http://me:{SECRET}@127.0.0.1:9", f"nosuch://me:{SECRET}@host/db"])
def test_a_store_that_cannot_be_opened_is_told_soon_and_without_its_password(uri):
    start = time.monotonic()
    with (
        pytest.raises(ConfigError, match=r"tracking\.uri: cannot open \w+://me:\*\*\*@") as caught,
        Mlflow(uri=uri).run("x", {}),
    ):
        pass
    assert time.monotonic() - start < 20
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(Mlflow(uri=uri))


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"tracking\.uri: cannot open sqlite:"),
        Mlflow(uri=f"sqlite:///{tmp_path}/file/x.db").run("x", {}),
    ):
        pass


def test_a_deleted_experiment_is_told(tracker, client):
    client.delete_experiment(client.create_experiment("gone"))
    with (
        pytest.raises(ConfigError, match=r"tracking\.experiment: 'gone' is deleted"),
        Mlflow(uri=tracker.uri, experiment="gone").run("x", {}),
    ):
        pass


def test_the_ui_command_opens_the_store_from_anywhere(tracker, shop):
    words = shlex.split(ui_command(tracker.store))
    assert words[:4] == ["mlflow", "ui", "--backend-store-uri", f"sqlite:///{shop[0]}/mlflow.db"]
    assert words[words.index("--default-artifact-root") + 1] == (shop[0] / "mlartifacts").as_uri()
    assert ui_command(f"http://me:{SECRET}@host:5000") == "http://me:***@host:5000"
    assert SECRET not in ui_command(f"postgresql://me:{SECRET}@host/db")


# What a run holds


def test_the_config_is_flattened_cut_and_kept_whole(tracker, client):
    config = {
        "dataset": {"name": "tiny", "paths": ["a", "b"], "empty": {}, "none": None},
        "retriever": [{"k": 5}, {"k": 7}],
        "long": "x" * 7000,
        "odd@name": 1,
        "many": {f"p{i}": i for i in range(250)},
    }
    with tracker.run("config", config, {"overrides": ["a=1", "b=2"]}) as run:
        pass
    data = client.get_run(run.id).data
    assert len(data.params) == 4 + 2 + 2 + 250
    assert data.params["dataset.paths"] == "['a', 'b']"
    assert data.params["dataset.empty"] == "{}"
    assert data.params["retriever.1.k"] == "7"
    assert data.params["odd_at_name"] == "1"
    assert data.params["many.p249"] == "249"
    assert data.params["long"] == "x" * 5999 + "…"
    assert data.tags["overrides"] == "a=1 b=2"
    assert yaml.safe_load(artifact(client, run.id, "config.yaml")) == config


def test_metrics_have_names_that_mlflow_takes_and_finite_values(tracker, client):
    with tracker.run("metrics", {}) as run:
        run.metrics({"two_stage/ndcg@10": np.float32(0.5), "filled@k": 1, "a//../b (%)": 2.0, "no": math.nan, "inf": math.inf})
    assert client.get_run(run.id).data.metrics == {
        "two_stage/ndcg_at_10": 0.5,
        "filled_at_k": 1.0,
        "a/b ___": 2.0,
    }


def test_a_curve_has_its_steps(tracker, client):
    steps = np.arange(1, 1502)
    with tracker.run("curve", {}) as run:
        run.curve("candidates/recall@K", [10, 20, 50, 200], [0.1, 0.2, math.nan, 0.4])
        run.curve("ranker/ndcg", steps, steps / 2)
    recall = client.get_metric_history(run.id, "candidates/recall_at_K")
    assert [(m.step, m.value) for m in recall] == [(10, 0.1), (20, 0.2), (200, 0.4)]
    assert [m.value for m in client.get_metric_history(run.id, "ranker/ndcg")] == list(steps / 2)
    with pytest.raises(ValueError, match="shorter"), tracker.run("curve", {}) as run:
        run.curve("x", [1, 2], [0.0])


@pytest.mark.parametrize(("source", "kind"), [(__file__, "local"), (f"mysql://me:{SECRET}@host/shop", "code")])
def test_the_dataset_is_an_input_with_its_fingerprint(tracker, client, source, kind):
    dataset = made_dataset(source, name=f"tiny {kind}")
    with tracker.run("dataset", {}) as run:
        run.dataset(dataset)
    (logged,) = client.get_run(run.id).inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == (f"tiny {kind}", dataset.fingerprint)
    assert logged.dataset.source_type == kind
    assert source.replace(SECRET, "***") in logged.dataset.source
    assert '"rows read": 5' in logged.dataset.profile
    assert client.get_run(run.id).data.tags["dataset_fingerprint"] == dataset.fingerprint


def test_files_folders_figures_and_the_model_are_kept(tracker, client, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "a.txt").write_text("a")
    dataset = made_dataset()
    recommender = TwoStageRecommender(History(), FeatureSet(families=[], definitions={}), RetrievalOrder())
    recommender.fit(dataset, 4).save(tmp_path / "model")
    for log_model in (True, False):
        with Mlflow(uri=tracker.uri, log_model=log_model).run("files", {}) as run:
            run.artifact(tmp_path / "saved" / "a.txt", "queries")
            run.folder(tmp_path / "saved", "report")
            run.figure(Figure(), "plots/importance")
            run.json({"a": [1]}, "summary.json")
            run.text("text", "note.txt")
            run.model(tmp_path / "model", endpoint.describe)
        root = Path(client.download_artifacts(run.id, ""))
        kept = {str(path.relative_to(root)) for path in root.rglob("*.*") if path.is_file()}
        model = {name for name in kept if name.startswith("model/")}
        assert kept - model == {
            *("config.yaml", "queries/a.txt", "report/a.txt"),
            *("plots/importance.png", "summary.json", "note.txt"),
        }
        assert ({"model/model.yaml", "model/requirements.txt"} <= model) if log_model else not model


def test_a_run_is_named_by_the_job_unless_the_settings_do(tracker, client):
    with tracker.run("named by the job", {}) as run:
        assert client.get_run(run.id).info.status == "RUNNING"
    assert client.get_run(run.id).info.run_name == "named by the job"
    assert run.uri == tracker.store
    assert run.url.endswith(f"/#/experiments/{tracker._opened[1]}/runs/{run.id}")
    with Mlflow(uri=tracker.uri, run_name="mine", tags={"team": "search"}).run("job", {}, {"a": 1}) as run:
        pass
    assert client.get_run(run.id).info.run_name == "mine"
    assert {"team": "search", "a": "1"}.items() <= client.get_run(run.id).data.tags.items()


def test_the_limits_are_those_of_mlflow():
    assert form.NAME_LENGTH == validation.MAX_ENTITY_KEY_LENGTH
    assert form.PARAM_LENGTH == validation.MAX_PARAM_VAL_LENGTH
    assert form.TAG_LENGTH == validation.MAX_TAG_VAL_LENGTH
    assert form.PARAMS_PER_BATCH == validation.MAX_PARAMS_TAGS_PER_BATCH
    assert form.METRICS_PER_BATCH == validation.MAX_METRICS_PER_BATCH


@pytest.mark.parametrize("name", ["a@b", "../x", "/a//b/./c/", "ü: %", "", "..", "x" * 300, "a/" + "y" * 248 + "/z"])
def test_any_name_is_made_valid(name):
    validation._validate_metric_name(valid_name(name))
    validation._validate_length_limit("name", 250, valid_name(name))


def test_flatten_by_hand():
    assert flatten({"a": {"b": {"c": 1}}, "d": [{"e": [2, 3]}, 4], "f": []}) == {
        "a.b.c": "1",
        "d.0.e": "[2, 3]",
        "d.1": "4",
        "f": "[]",
    }
    assert flatten({}) == {}


# How a run ends


def test_a_failed_run_keeps_its_error(tracker, client):
    def work(run):
        run.metrics({"before": 1})
        return 1 / 0

    with pytest.raises(ZeroDivisionError), tracker.run("failed", {}) as run:
        work(run)
    kept = client.get_run(run.id)
    assert kept.info.status == "FAILED"
    assert kept.info.end_time
    assert kept.data.tags["error"] == "ZeroDivisionError: division by zero"
    assert kept.data.metrics == {"before": 1}
    assert "return 1 / 0" in artifact(client, run.id, "error.txt")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_is_killed(tracker, client, error):
    with pytest.raises(error), tracker.run("killed", {}) as run:
        raise error
    assert client.get_run(run.id).info.status == "KILLED"


def test_a_store_that_fails_as_well_does_not_hide_the_error(tracker, client, monkeypatch, caplog):
    def fail(*_):
        raise OSError("no space left")

    def work():
        monkeypatch.setattr(client, "set_terminated", fail)
        return 1 / 0

    with pytest.raises(ZeroDivisionError), tracker.run("doubly failed", {}) as run:
        work()
    assert f"run {run.id} could not be marked as failed: OSError: no space left" in caplog.text


def test_children_find_their_parent_through_the_environment(tracker, client):
    parent = tracker.start_parent("sweep", {"overrides": ["a=1,2"]})
    assert os.environ[PARENT_RUN] == parent
    with tracker.run("child", {}) as child:
        assert client.get_run(parent).info.status == "RUNNING"
    with tracker.run("other's child", {}, parent="abc") as other:
        pass
    tracker.end_parent(parent, "FAILED")
    with tracker.run("orphan", {}) as orphan:
        pass
    assert client.get_run(parent).info.status == "FAILED"
    assert client.get_run(parent).data.tags["overrides"] == "a=1,2"
    parents = [client.get_run(run.id).data.tags.get("mlflow.parentRunId") for run in (child, other, orphan)]
    assert parents == [parent, "abc", None]


def test_secrets_reach_no_file_of_the_store(tracker, client, shop, monkeypatch):
    environment = "from-the-environment"
    monkeypatch.setenv("SENDGRID_API_KEY", environment)
    config = {
        "delivery": {"api_key": SECRET, "sender": environment, "headers": [{"token": SECRET}]},
        "tracking": {"uri": f"postgresql://me:{SECRET}@host/db"},
    }
    tags = {"overrides": [f"delivery.api_key={SECRET}", "seed=1"], "password": SECRET, "note": f"sent {SECRET}"}

    def work(run):
        run.tag("later", [SECRET])
        run.text(f"seen {SECRET}", "note.txt")
        run.json({"token": SECRET, "text": environment}, "note.json")
        raise RuntimeError(f"{SECRET} was refused by mysql://me:{SECRET}@host, {environment} too")

    with pytest.raises(RuntimeError), tracker.run(f"run {SECRET}", config, tags) as run:
        work(run)
    assert client.get_run(run.id).data.params["tracking.uri"] == "postgresql://me:***@host/db"
    assert client.get_run(run.id).data.tags["overrides"] == "delivery.api_key=*** seed=1"
    assert "*** was refused" in artifact(client, run.id, "error.txt").splitlines()[-1]
    leaks = [f for f in shop[0].rglob("*") if f.is_file() and any(s.encode() in f.read_bytes() for s in (SECRET, environment))]
    assert leaks == []


def test_no_tracking_has_the_same_interface_and_keeps_nothing(tmp_path):
    tracker = NoTracking()
    with tracker.run("x", {"a": 1}, {"b": 2}) as run:
        run.metrics({"a": 1})
        run.curve("a", [1], [1])
        run.tag("a", 1)
        run.dataset(made_dataset())
        run.artifact(tmp_path / "missing")
        run.folder(tmp_path / "missing", "x")
        run.model(tmp_path / "missing", endpoint.describe)
        run.figure(Figure(), "x")
        run.text("x", "x")
        run.json({}, "x")
    with pytest.raises(ZeroDivisionError), tracker.run("x", {}):
        _ = 1 / 0
    tracker.end_parent(tracker.start_parent("x"))
    assert PARENT_RUN not in os.environ
    assert type(run) is Run
    assert run.id == run.uri == run.url == ""


# Git and config


def test_git_tags(monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_tags(tmp_path) == {}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=me", "-c", "user.email=me@host"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert git_tags(tmp_path) == {}, "a repository without a commit"
    (tmp_path / "a").write_text("a")
    subprocess.run([*git, "add", "a"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "a"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert git_tags(tmp_path) == {"git_commit": commit, "git_dirty": "false", "mlflow.source.git.commit": commit}
    (tmp_path / "a").write_text("b")
    assert git_tags(tmp_path) == {"git_commit": commit, "git_dirty": "true", "mlflow.source.git.commit": commit}
    monkeypatch.setenv("PATH", "")
    assert git_tags(tmp_path) == {}


def test_the_configs_of_the_group_name_the_settings(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    omegaconf = pytest.importorskip("omegaconf").OmegaConf
    group = Path(__file__).parents[2] / "conf" / "tracking"
    for name, kind in {"mlflow": Mlflow, "none": NoTracking}.items():
        config = omegaconf.to_container(omegaconf.load(group / f"{name}.yaml"), resolve=True)
        made = construct(config)
        assert type(made) is kind
        assert {**made.settings(), "_target_": config["_target_"]} == config
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    config = omegaconf.to_container(omegaconf.load(group / "mlflow.yaml"), resolve=True)
    assert construct(config).store == "http://host:5000"
    assert absolute_uri(None) == f"sqlite:///{home()}/mlflow.db"
