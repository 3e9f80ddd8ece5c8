"""Sweeps end to end: real commands, a real MLflow store and real studies."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import mlflow
import optuna
import pytest
import yaml
from optuna.trial import TrialState

ROOT = Path(__file__).resolve().parents[2]
SHOP = ("dataset=synthetic", "dataset.scale=0.01", "features=base")
TINY = (*SHOP, "retriever=popularity", "ranker=lambdarank", "ranker.trees=5", "ranker.threads=1")
SWEEP = (
    *TINY,
    "sweep=two_stage",
    "sweep.trials=5",
    "sweep/pruner=none",
    "retriever.window_days=choice(-1,-2,7,30)",
)
WRONG_SPACE = "sweep/space/mine: recsys.ranking.LambdaRank has no option 'leafs'. Did you mean 'leaves'"


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RECSYS_HOME": str(folder), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), *arguments, f"outputs={folder / 'outputs'}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=600)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def swept(home: Path) -> subprocess.CompletedProcess[str]:
    done = train(home, "-m", *SWEEP)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def studies(home: Path, swept: object) -> dict[str, optuna.Study]:
    storage = f"sqlite:///{home / 'optuna.db'}"
    return {
        name.rpartition("/")[2]: optuna.load_study(study_name=name, storage=storage)
        for name in optuna.get_all_study_names(storage)
    }


def test_one_stage_after_the_other_begins_with_the_defaults(studies):
    assert list(studies) == ["retrieval", "ranking"]
    for study in studies.values():
        assert [trial.number for trial in study.trials] == [0, 1, 2, 3, 4]
        assert [trial.number for trial in study.trials if "defaults" in trial.user_attrs] == [0]
    first = studies["ranking"].trials[0]
    assert first.params["ranker[lambdarank].leaves"] == 31
    assert studies["retrieval"].trials[0].params == {"retriever.window_days": 7}
    assert not any("ranker" in name for trial in studies["retrieval"].trials for name in trial.params)


def test_a_failed_trial_is_kept_with_its_error_and_does_not_end_the_sweep(studies):
    failed = [trial for trial in studies["retrieval"].trials if trial.params["retriever.window_days"] < 0]
    assert failed
    for trial in failed:
        assert trial.state == TrialState.FAIL
        assert trial.user_attrs["error"].startswith("ConfigError: retriever.window_days: Input should be greater than 0")
    others = [trial for trial in studies["retrieval"].trials if trial not in failed]
    assert {trial.state for trial in others} == {TrialState.COMPLETE}


def test_a_trial_reports_each_fold_and_its_value_is_their_mean(studies):
    for trial in studies["ranking"].trials:
        assert list(trial.intermediate_values) == [1, 2, 3]
        assert trial.value == pytest.approx(sum(trial.intermediate_values.values()) / 3)


def test_the_test_window_is_asked_once_by_the_winner_and_the_defaults(studies, swept, home):
    assert "test" not in studies["retrieval"].user_attrs
    found = studies["ranking"].user_attrs["test"]
    (row,) = found["rows"]
    for name in ("defaults", "tuned"):
        metrics = json.loads((Path(found[name]) / "metrics.json").read_text())
        assert row[name] == pytest.approx(metrics["two_stage/ndcg_at_10"])
    change = row["tuned"] - row["defaults"]
    assert row["low"] <= change <= row["high"]
    assert swept.stdout.count("on the test window") == 2
    assert len(list((home / "outputs").glob("*/*/metrics.json"))) == 2


def test_the_override_line_and_best_yaml_compose_to_the_winner(studies, swept, home, tmp_path):
    (file,) = (home / "outputs").glob("*/best.yaml")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "best.yaml").write_text(file.read_text())
    composed = train(home, "--config-dir", str(tmp_path), "--cfg", "job", "experiment=best")
    assert composed.returncode == 0, composed.stderr
    config = yaml.safe_load(composed.stdout)
    assert config["dataset"]["scale"] == 0.01
    assert config["retriever"]["_target_"].endswith("Popularity")
    for study in studies.values():
        for name, value in study.best_trial.params.items():
            root, _, key = name.replace("[lambdarank]", "").partition(".")
            assert config[root][key] == value
    (line,) = [line for line in swept.stdout.splitlines() if line.startswith("Best ")]
    assert f"retriever.window_days={studies['retrieval'].best_params['retriever.window_days']}" in line
    assert "sweep" not in line


def test_a_study_is_a_run_and_its_trials_are_its_children(home, studies):
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("recsys")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    (parent,) = [run for run in runs if run.info.run_name.startswith("sweep: ")]
    children = [run for run in runs if run is not parent]
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert len(children) == 5 + 5 + 2
    failed = [run for run in children if run.info.status == "FAILED"]
    assert len(failed) == sum(trial.state == TrialState.FAIL for trial in studies["retrieval"].trials)
    for run in failed:
        assert run.data.tags["state"] == "FAIL"
        assert run.data.tags["error"].startswith("ConfigError: retriever.window_days")
        assert float(run.data.params["retriever.window_days"]) < 0
    assert parent.data.metrics["best/two_stage/ndcg_at_10"] == pytest.approx(studies["ranking"].best_value)
    ranking = [run for run in children if run.data.tags.get("study", "").endswith("/ranking")]
    for run in ranking:
        trial = studies["ranking"].trials[int(run.data.tags["trial"])]
        steps = client.get_metric_history(run.info.run_id, "fold/two_stage/ndcg_at_10")
        assert {each.step: each.value for each in steps} == pytest.approx(trial.intermediate_values)
        assert run.data.params["ranker.leaves"] == str(trial.params["ranker[lambdarank].leaves"])
        assert run.data.tags["state"] == "COMPLETE"
        assert run.data.metrics["seconds/trial"] > run.data.metrics["seconds/ranker"] > 0
    kept = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert {"best.yaml", "best.txt", "ranking"} <= kept
    plots = {Path(artifact.path).stem for artifact in client.list_artifacts(parent.info.run_id, "ranking")}
    assert {"history", "slice", "parallel_coordinate"} <= plots


def test_the_same_command_again_joins_the_study_and_runs_nothing_twice(home, studies):
    again = train(home, "-m", *SWEEP)
    assert again.returncode == 0, again.stderr
    assert "on the test window" not in again.stdout
    for study in studies.values():
        assert len(study.get_trials()) == 5
    assert len(list((home / "outputs").glob("*/*/metrics.json"))) == 2


def test_several_objectives_give_a_front(home):
    name = "sweep.study=front"
    options = ("sweep=joint", "sweep.trials=4", "sweep/sampler=nsga2", name, "tracking=none")
    done = train(home, "-m", *TINY, *options, "sweep.objectives=[ndcg_at_10,long_tail_at_10,latency_ms]")
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="front", storage=f"sqlite:///{home / 'optuna.db'}")
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MAXIMIZE", "MINIMIZE"]
    objectives = ["two_stage/ndcg_at_10", "beyond/two_stage/long_tail", "latency_ms"]
    assert study.user_attrs["objectives"] == objectives
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        assert 0 <= trial.values[1] <= 1
        assert trial.values[2] > 0
    assert done.stdout.count("two_stage/ndcg_at_10 ") >= len(study.best_trials)
    found = study.user_attrs["test"]
    assert [row["metric"] for row in found["rows"]] == objectives[:2]
    for row in found["rows"]:
        for which in ("defaults", "tuned"):
            assert row[which] == pytest.approx(json.loads((Path(found[which]) / "metrics.json").read_text())[row["metric"]])


def test_the_objective_is_the_leading_metric_of_what_is_measured(home):
    judged = ("evaluation.ks=[5,20]", "evaluation.metrics=[ndcg,precision,filled]")
    options = ("sweep=ranking", "sweep.trials=2", "sweep.folds=1", "sweep.study=leading", "tracking=none")
    done = train(home, "-m", *TINY, *judged, *options)
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="leading", storage=f"sqlite:///{home / 'optuna.db'}")
    assert study.user_attrs["objectives"] == ["two_stage/ndcg_at_20"]
    [row] = study.user_attrs["test"]["rows"]
    assert row["metric"] == "two_stage/ndcg_at_20"


@pytest.mark.slow
def test_trials_run_beside_each_other_with_the_joblib_launcher(home):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    options = ("sweep=ranking", "sweep.trials=5", "sweep.study=beside", "ranker.trees=60")
    done = train(home, "-m", *TINY, *options, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="beside", storage=f"sqlite:///{home / 'optuna.db'}")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 5
    assert "defaults" in study.trials[0].user_attrs
    spans = sorted((trial.datetime_start, trial.datetime_complete) for trial in study.trials)
    assert any(following[0] < earlier[1] for earlier, following in pairwise(spans))
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    runs = client.search_runs(["1"], "tags.study = 'beside'", max_results=100)
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs if "trial" in run.data.tags}
    assert parents == {study.user_attrs["parent_run"]}
    assert "test" in study.user_attrs


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("sweep=ranking", "sweep.objectives=[two_stage/ndcg_at_11]"), "a trial of ranking logs no 'two_stage/ndcg_at_11'"),
        (
            ("sweep=ranking", "evaluation.ks=[5,20]", "sweep.objectives=[ndcg_at_10]"),
            "sweep.objectives: a trial of ranking logs no 'ndcg_at_10'. Did you mean",
        ),
        (
            ("sweep=retrieval", "candidates=100"),
            "sweep.stages.retrieval.objectives: a trial of retrieval logs no 'candidates/recall_at_200'. Did you mean",
        ),
        (("sweep=ranking", "optimized_metric=two_stage/ndgc_at_10"), "Did you mean 'two_stage/ndcg_at_10'"),
        (("sweep=ranking", "sweep.directions=upwards"), "sweep.directions.0: Input should be 'maximize' or 'minimize'"),
        (("sweep=ranking", "sweep.directions=[maximize,minimize]"), "sweep.directions: wanted one for each of 1 objectives"),
        (("sweep=ranking", "sweep.trials=0"), "sweep.trials: Input should be greater than 0, found 0"),
        (("sweep=ranking", "+sweep.space.mine={_target_: recsys.ranking.LambdaRank, leafs: 'choice(1,2)'}"), WRONG_SPACE),
        (("sweep=ranking", "ranker.leafs=choice(1,2)"), "ranker.leafs: there is no such key"),
        (("sweep=ranking", "sweep.folds=40"), "40 validation windows"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_any_trial(typed, tmp_path, arguments, told):
    done = typed("train.py", "-m", *TINY, *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "optuna.db").exists()
