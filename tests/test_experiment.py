"""Runs end to end: real MLflow stores, real files."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from recsys.datasets.synthetic import Synthetic
from recsys.experiment import Parts
from recsys.recommender import TwoStageRecommender

ROOT = Path(__file__).resolve().parent.parent
SHOP = ("dataset=synthetic", "dataset.scale=0.01", "features=base")
TINY = (*SHOP, "split.label_cutoffs=2", "retriever=als", "retriever.factors=8", "retriever.iterations=3")
SYSTEMS = ("popularity", "history", "retrieval", "two_stage")


def train(
    folder: Path, *arguments: str, options: tuple[str, ...] = TINY, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RECSYS_HOME": str(folder), "COLUMNS": "200"}
    command = [sys.executable, str(ROOT / "train.py"), *arguments, f"outputs={folder / 'outputs'}", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd or folder, env=environment, timeout=600)


def untimed(folder: Path) -> dict[str, float]:
    values = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in values.items() if not name.startswith("seconds/")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(home: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One run of the main job, and what it printed."""
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    done = train(home, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    return (home / "outputs" / "latest").resolve(), done


@pytest.fixture(scope="module")
def client(home: Path, run: object) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")


def only_run(client: mlflow.MlflowClient) -> mlflow.entities.Run:
    experiment = client.get_experiment_by_name("recsys")
    return client.search_runs(
        [experiment.experiment_id], "tags.overrides LIKE '%dataset.scale=0.01%'", order_by=["start_time"]
    )[0]


def test_the_run_folder_holds_everything(run: tuple[Path, object]):
    folder, _ = run
    names = {path.name for path in folder.iterdir()}
    assert {"metrics.json", "config.yaml", "per_query.parquet", "recommendations.parquet", "model"} <= names
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["retriever"]["factors"] == 8
    assert not list(folder.rglob("*.pkl")) + list(folder.rglob("*.pickle"))


def test_the_table_shows_baselines_and_both_stages(run: tuple[Path, subprocess.CompletedProcess[str]]):
    _, done = run
    for word in ("popularity", "history", "retrieval", "two-stage", "NDCG@10", "Candidate recall", "mlflow ui"):
        assert word in done.stdout


def test_a_run_that_goes_well_has_nothing_to_say_on_stderr(run: tuple[Path, subprocess.CompletedProcess[str]]):
    _, done = run
    assert not re.findall(r".*(?:INFO|WARNING|Warning|Error).*", done.stderr)


def test_metrics_are_means_over_the_queries(run: tuple[Path, object]):
    folder, _ = run
    values, queries = untimed(folder), pd.read_parquet(folder / "per_query.parquet")
    assert values["queries/count"] == len(queries) > 0
    for system in SYSTEMS:
        for name in ("ndcg_at_10", "hit_rate_at_1", "mrr_at_20", "recall_at_3", "map_at_5", "precision_at_5"):
            assert values[f"{system}/{name}"] == pytest.approx(queries[f"{system}/{name}"].mean(), abs=1e-12)
    assert values["candidates/recall_at_200"] == pytest.approx(queries["candidates/recall_at_200"].mean(), abs=1e-12)


def test_the_metrics_are_those_of_the_lists(run: tuple[Path, object]):
    """Hit rate from the files that a user can open: lists against purchases after the cutoff."""
    folder, _ = run
    lists = pd.read_parquet(folder / "recommendations.parquet")
    queries = pd.read_parquet(folder / "per_query.parquet")
    assert lists.groupby("user")["rank"].apply(lambda r: list(r) == list(range(1, len(r) + 1))).all()
    assert not lists.duplicated(["user", "item"]).any()
    assert set(lists.user) <= set(queries.user)


def test_the_saved_model_gives_the_run_s_lists(run: tuple[Path, object]):
    folder, _ = run
    lists = pd.read_parquet(folder / "recommendations.parquet")
    users = pd.read_parquet(folder / "per_query.parquet")["user"].to_numpy()
    got = TwoStageRecommender.load(folder / "model").recommend(users, 20)
    row, place = np.nonzero(got.item != None)  # noqa: E711  (elementwise)
    again = pd.DataFrame({"user": users[row], "rank": place + 1, "item": got.item[row, place].astype(lists.item.dtype)})
    pd.testing.assert_frame_equal(again, lists[["user", "rank", "item"]], check_dtype=False)


def test_mlflow_holds_the_run(run: tuple[Path, object], client: mlflow.MlflowClient):
    folder, _ = run
    kept = only_run(client)
    assert kept.info.status == "FINISHED"
    values, shown = untimed(folder), {n: v for n, v in kept.data.metrics.items() if not n.startswith("seconds/")}
    assert {*(f"{system}/{name}_at_10" for system in SYSTEMS for name in ("ndcg", "hit_rate")), "queries/count"} <= set(shown)
    curves = {"candidates/recall_at_k": 0.0, "ranker/early_stopping_ndcg": 0.0}
    assert {name: values[name] for name in shown if name not in curves} == pytest.approx(
        {name: value for name, value in shown.items() if name not in curves}
    )
    assert len(shown) < 120 < len(values), "the run table shows the headline, metrics.json everything"
    assert kept.info.run_name == "als · lambdarank · base · synthetic · factors=8 · iterations=3"
    assert kept.data.tags["mlflow.note.content"] == kept.data.tags["verdict"]
    about = client.get_experiment_by_name("recsys").tags["mlflow.note.content"]
    assert "two_stage/ndcg_at_10" in about
    assert str(ROOT) not in about
    assert kept.data.params["retriever.factors"] == "8"
    assert "output_dir" not in kept.data.params, "two runs would never be alike"
    assert kept.data.tags["output_dir"] == str(folder)
    assert kept.inputs.dataset_inputs[0].dataset.digest == kept.data.tags["dataset_fingerprint"]
    curve = client.get_metric_history(kept.info.run_id, "candidates/recall_at_k")
    assert [point.step for point in curve] == [10, 20, 50, 100, 200, 500, 1000]
    assert client.get_metric_history(kept.info.run_id, "ranker/early_stopping_ndcg")
    names = {artifact.path for artifact in client.list_artifacts(kept.info.run_id)}
    assert {"config.yaml", "metrics.json", "per_query.parquet", "model", "feature_importance.png", "recall_curve.png"} <= names
    local = mlflow.artifacts.download_artifacts(
        run_id=kept.info.run_id, artifact_path="model", tracking_uri=client.tracking_uri
    )
    assert TwoStageRecommender.load(local).cutoff > 0


def foretold(folder: Path) -> list[str]:
    """The names that the run's config said its `metrics.json` may hold."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    parts = Parts.of({**config, "tracking": {"_target_": "recsys.tracking.NoTracking"}})
    folds = pd.read_parquet(folder / "per_query.parquet")["fold"].nunique()
    return parts.evaluation.measured.logged(config["candidates"], parts.retriever.labels, folds)


def check_names(folder: Path) -> None:
    """All names are foretold, and all that are foretold are there, unless the data does not define them."""
    logged, names = untimed(folder), foretold(folder)
    counted = {name for name in logged if name.startswith("queries/")}
    assert set(logged) - counted <= set(names)
    missing = {name.removeprefix("interval/").removesuffix("/low").removesuffix("/high") for name in set(names) - set(logged)}
    undefined = ("cohort/", "efficiency/", "beyond/")
    assert [name for name in missing if not name.startswith(undefined) and not re.search("/(revisit|discovery)/", name)] == []
    objectives = ("two_stage/ndcg_at_", "retrieval/", "history/", "candidates/", "beyond/two_stage/", "waterfall/", "ceiling/")
    assert all(any(name.startswith(part) for name in logged) for part in objectives)


def test_the_names_of_all_metrics_are_known_before_the_run(run: tuple[Path, object]):
    check_names(run[0])


OWN_METRIC = """
from recsys.evaluation.metrics import ratio

def squared_recall(lists):
    \"""Share of the right items among the first k, squared.\"""
    return ratio(lists.hits, lists.relevant) ** 2
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.CompletedProcess[str]]]:
    """A run of two folds with other metrics, one of its own among them, at other depths."""
    home = tmp_path_factory.mktemp("other")
    (home / "measures_of_mine.py").write_text(OWN_METRIC)
    metrics = "evaluation.metrics=[ndcg,precision,measures_of_mine.squared_recall]"
    folds = ("split=rolling", "split.test_cutoffs=2", "split.test_step=7d", "candidates=50")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{home}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        patch.syspath_prepend(str(home))
        done = train(home, metrics, "evaluation.ks=[5,20]", *folds, "tracking.log_model=false")
        assert done.returncode == 0, done.stderr
        yield home, done


def test_metrics_and_depths_of_ones_own_reach_every_table(other: tuple[Path, subprocess.CompletedProcess[str]]):
    home, done = other
    folder = home / "outputs" / "latest"
    check_names(folder)
    metrics, table = untimed(folder), pd.read_parquet(folder / "per_query.parquet")
    assert metrics["two_stage/squared_recall_at_20"] == pytest.approx(table["two_stage/squared_recall_at_20"].mean())
    assert "fold/1/two_stage/squared_recall_at_20" in metrics
    judged = {name.rpartition("_at_")[::2] for name in table if name.startswith("two_stage/")}
    assert judged == {(f"two_stage/{metric}", k) for metric in ("ndcg", "precision", "squared_recall") for k in ("5", "20")}
    for text in (done.stdout, (folder / "report.html").read_text()):
        assert "NDCG@20" in text
        assert "Squared recall@20" in text
        assert not re.search("(NDCG|HitRate|MRR)@10", text)
    assert "capped Recall@20" in done.stdout
    diagnosis = json.loads((folder / "diagnosis.json").read_text())
    assert (diagnosis["k"], list(diagnosis["ceiling"])) == (20, ["hit_rate_at_20", "ndcg_at_20"])
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    kept = client.get_experiment_by_name("recsys")
    [tracked] = client.search_runs([kept.experiment_id])
    of_lists = {
        name for name in tracked.data.metrics if not name.startswith(("candidates/", "queries/", "seconds/", "ranker/"))
    }
    shown = ("ndcg_at_20", "squared_recall_at_20")
    systems = (*SYSTEMS, "random", "mde/two_stage")
    assert of_lists == {f"{system}/{name}" for system in systems for name in shown}
    assert "Share of the right items among the first k, squared" in kept.tags["mlflow.note.content"]
    assert kept.tags["mlflow.experiment.primaryMetric.name"] == "two_stage/ndcg_at_20"


def test_same_seed_same_metrics_to_the_last_digit(home: Path, run: tuple[Path, object]):
    folder, _ = run
    done = train(home, "tracking=none", "ranker.threads=1", "retriever.threads=1")
    assert done.returncode == 0, done.stderr
    assert untimed((home / "outputs" / "latest").resolve()) == untimed(folder)


def test_the_jobs_of_a_multirun_are_children_of_one_run(home: Path, client: mlflow.MlflowClient):
    done = train(home, "-m", "retriever=history,popularity", "ranker=none", options=SHOP)
    assert done.returncode == 0, done.stderr
    experiment = client.get_experiment_by_name("recsys")
    parents = client.search_runs([experiment.experiment_id], "attributes.run_name LIKE 'multirun%'")
    assert [parent.info.status for parent in parents] == ["FINISHED"]
    children = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{parents[0].info.run_id}'")
    assert sorted(child.data.tags["retriever"] for child in children) == ["history", "popularity"]
    assert (home / "outputs" / "latest" / "metrics.json").is_file()


def test_a_run_that_fails_is_marked_failed_with_its_error(home: Path, client: mlflow.MlflowClient):
    done = train(home, "split.min_events=100000")
    assert done.returncode == 2
    assert "no query is left" in done.stderr
    experiment = client.get_experiment_by_name("recsys")
    failed = client.search_runs([experiment.experiment_id], "attributes.status = 'FAILED'")
    assert any("no query is left" in run.data.tags["error"] for run in failed)


def test_refit_saves_a_model_of_the_whole_log(home: Path, run: tuple[Path, object]):
    """The figures and lists are those of the judged model; the saved one knows the newest events and learnt from them."""
    folder, _ = run
    done = train(home, "tracking=none", "refit=true")
    assert done.returncode == 0, done.stderr
    newest = (home / "outputs" / "latest").resolve()
    assert untimed(newest) == untimed(folder)
    judged, refitted = (json.loads((each / "run.json").read_text()) for each in (folder, newest))
    assert judged["model"] == {"cutoff": judged["windows"][-1]["cutoff"], "refit": False}
    assert refitted["importance"] == judged["importance"]
    log = Synthetic(scale=0.01, seed=0).load().log
    assert refitted["model"] == {"cutoff": int(log.time[-1]) + 1, "refit": True}
    saved, before = (TwoStageRecommender.load(each / "model") for each in (newest, folder))
    assert saved.cutoff == refitted["model"]["cutoff"]
    assert len(saved.history) == len(log) > len(before.history)
    assert saved.ranker.importance() != before.ranker.importance()
    newcomer = log.users.ids[len(before.history.users)]
    assert saved.recommend([newcomer]).item[0, 0] is not None


def test_a_retriever_that_finds_nothing_is_judged_all_the_same(tmp_path: Path):
    """No categories, so that nothing is found: nothing to divide by, and a verdict that says which stage it is."""
    times = np.arange(300)
    shop = pd.DataFrame({"user": times % 17, "item": times % 7, "time": times * 3_600_000 + 1_400_000_000_000})
    shop.to_csv(tmp_path / "shop.csv", index=False)
    options = ("dataset=csv", "dataset.path=shop.csv", "retriever=category", "ranker=none", "tracking=none", "cache=off")
    done = train(tmp_path, options=options)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "latest"
    metrics, diagnosis = (json.loads((folder / name).read_text()) for name in ("metrics.json", "diagnosis.json"))
    assert metrics["candidates/recall_at_200"] == metrics["two_stage/hit_rate_at_10"] == 0
    assert "efficiency/hit_rate_at_10" not in metrics
    assert diagnosis["ceiling"]["hit_rate_at_10"]["efficiency"] is None
    assert "retrieval-bound" in done.stdout
    assert (folder / "report.html").is_file()
