import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from recsys.datasets import Dataset
from recsys.datasets.synthetic import Synthetic
from recsys.errors import ConfigError, DataError
from recsys.features import FeatureSet, Source, UserItem
from recsys.ranking import Rule
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import ALS
from recsys.serving import batch
from recsys.serving.batch import Batch
from recsys.serving.lists import Lists
from recsys.serving.spark import Spark

ROOT = Path(__file__).resolve().parents[2]
CUTOFF = 1_439_600_000_000


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return Synthetic(scale=0.01, seed=3).load()


@pytest.fixture(scope="module")
def model(shop: Dataset) -> TwoStageRecommender:
    families = {"source": Source(), "user_item": UserItem()}
    features = FeatureSet(families=list(families), definitions=families)
    ranker = Rule(weights={"user_item__weight_hl_30d": 1.0, "source__als_rrf": 1.0})
    return TwoStageRecommender(ALS(factors=8, iterations=2), features, ranker, 30).fit(shop, CUTOFF)


@pytest.fixture(scope="module")
def run(model: TwoStageRecommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a batch needs of a run's folder."""
    folder = tmp_path_factory.mktemp("run")
    model.save(folder / "model")
    (folder / "metrics.json").write_text("{}")
    return folder


def written(run: Path, out: Path, **options: object) -> tuple[pd.DataFrame, list[str]]:
    said: list[str] = []
    settings = {"run": str(run), "users": 500, "k": 5, "shard": 100, **options}
    Batch(out=str(out), **settings).write(said.append, lambda done, of: None)
    return pd.read_parquet(out), said


def test_everybody_gets_the_model_s_list(run: Path, model: TwoStageRecommender, tmp_path: Path):
    got, said = written(run, tmp_path / "r.parquet", users="all", shard=700)
    users = np.unique(model.history.user)
    expected = model.recommend(model.history.users.ids[users], 5)
    assert got["user"].drop_duplicates().tolist() == model.history.users.ids[users].tolist()
    row, place = np.nonzero(expected.item != None)  # noqa: E711  (elementwise)
    own = got[~got["fallback"]]
    assert own["user"].tolist() == expected.user[row].tolist()
    assert own["rank"].tolist() == (place + 1).tolist()
    assert own["item"].tolist() == expected.item[row, place].tolist()
    assert own["score"].tolist() == expected.score[row, place].tolist()
    assert not said
    assert [path.name for path in tmp_path.iterdir()] == ["r.parquet"]


def test_the_size_of_a_shard_changes_no_list(run: Path, tmp_path: Path):
    small, large = (written(run, tmp_path / "r.parquet", shard=shard)[0] for shard in (37, 1000))
    pd.testing.assert_frame_equal(small, large)


def test_a_stopped_batch_goes_on_where_it_was(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, whole, made = tmp_path / "r.parquet", tmp_path / "whole.parquet", []
    written(run, whole)
    make = Lists.parquet

    def stopped(self: Lists, users: np.ndarray) -> bytes:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(len(users))
        return make(self, users)

    monkeypatch.setattr(Lists, "parquet", stopped)
    with pytest.raises(KeyboardInterrupt):
        written(run, out)
    assert not out.exists(), "half a result"
    assert made == [100] * 3
    monkeypatch.setattr(Lists, "parquet", lambda self, users: made.append(len(users)) or make(self, users))
    _, said = written(run, out)
    assert made == [100] * 5
    assert said == ["3 of 5 shards are there already, from a batch that was stopped"]
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("change", ["k", "users", "model"])
def test_a_changed_model_or_setting_starts_anew_and_is_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
):
    mine = shutil.copytree(run, tmp_path / "run")
    monkeypatch.setattr(batch, "_join", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        written(mine, tmp_path / "r.parquet")
    monkeypatch.undo()
    options = {"k": {"k": 3}, "users": {"users": 300}}.get(change, {})
    if change == "model":
        settings = mine / "model" / "ranker" / "settings.yaml"
        settings.write_text(settings.read_text().replace("1.0", "2.0"))
    got, said = written(mine, tmp_path / "r.parquet", **options)
    wanted = {"k": "k 5 → 3", "users": "users", "model": "model"}[change]
    assert said == [f"a batch that was stopped differs ({wanted}): its shards are thrown away"]
    fresh, _ = written(mine, tmp_path / "fresh.parquet", **options)
    pd.testing.assert_frame_equal(got, fresh)


def test_a_file_of_users_may_name_strangers(run: Path, model: TwoStageRecommender, tmp_path: Path):
    known = model.history.users.ids[model.history.user[-1]]
    (tmp_path / "ids.txt").write_text(f"{known}\n987654321\n")
    got, said = written(run, tmp_path / "r.parquet", users=str(tmp_path / "ids.txt"))
    assert got.groupby("user", sort=False)["fallback"].first().to_dict() == {known: False, 987654321: True}
    assert said == ["1 of 2 users are not known to the model: '987654321'; their lists are of what is popular"]


def test_a_file_of_users_names_them_in_every_form(run: Path, model: TwoStageRecommender, tmp_path: Path):
    known = model.history.users.ids[model.history.user[-3:]]
    assert len(set(known)) == 3
    (tmp_path / "ids.txt").write_text(f"{known[0]}.0\n {known[1]}\t\n{known[2]}\n")
    got, said = written(run, tmp_path / "r.parquet", users=str(tmp_path / "ids.txt"))
    assert got["user"].drop_duplicates().tolist() == known.tolist()
    assert not got["fallback"].any()
    assert not said
    (tmp_path / "ids.txt").write_text(f"customer_id\n{known[0]}.0\n")
    got, said = written(run, tmp_path / "r.parquet", users=str(tmp_path / "ids.txt"))
    assert got.groupby("user", sort=False)["fallback"].first().to_dict() == {"customer_id": True, str(known[0]): False}
    assert said == ["1 of 2 users are not known to the model: 'customer_id'; their lists are of what is popular"]


def test_reasons_stand_beside_the_items(run: Path, tmp_path: Path):
    got, _ = written(run, tmp_path / "r.parquet", users=20, reasons=2)
    assert got["reasons"].map(len).max() == 2
    assert set(got["reasons"][got["reasons"].map(len) > 0].iloc[0][0]) == {"code", "text"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 31}, "k: wanted at most 30, the model's candidates a user, found 31"),
        ({"users": "byers"}, "Did you mean 'buyers'"),
        ({"run": "no such run"}, "no such run"),
        ({"out": "nowhere/r.parquet"}, "out: there is no folder nowhere"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(run: Path, tmp_path: Path, options: dict, message: str):
    settings = {"run": str(run), "out": str(tmp_path / "r.parquet"), "outputs": str(tmp_path)} | options
    with pytest.raises(ConfigError, match=message):
        Batch(**settings).write(print, print)
    assert not list(tmp_path.iterdir())


def test_a_run_without_its_model_is_refused(tmp_path: Path):
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(DataError, match="wanted a saved model in it"):
        Batch(run=str(tmp_path), out=str(tmp_path / "r.parquet")).write(print, print)


@pytest.mark.slow
def test_on_spark_the_lists_are_the_same_to_the_byte(run: Path, tmp_path: Path):
    pytest.importorskip("pyspark", reason="the extra 'spark' is not installed")
    if not shutil.which("java"):
        pytest.skip("no Java here")
    written(run, tmp_path / "here.parquet", users=300)
    spark = Spark(master="local[2]", conf={"spark.ui.enabled": "false"})
    written(run, tmp_path / "spark.parquet", users=300, engine="spark", spark=spark)
    assert (tmp_path / "spark.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()


def script(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "recommend.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_script_says_what_it_wrote_and_what_is_next(run: Path, tmp_path: Path):
    done = script(f"run={run}", "users=50", "k=3", f"out={tmp_path / 'r.parquet'}")
    assert done.returncode == 0, done.stderr
    assert "50 users" in done.stdout
    assert str(tmp_path / "r.parquet") in done.stdout
    assert "python scripts/emails.py" in done.stdout
    assert len(pd.read_parquet(tmp_path / "r.parquet")) == 150


@pytest.mark.parametrize(
    ("option", "message"),
    [("kk=3", "Did you mean 'k'"), ("spark.mastr=x", "Did you mean 'master'"), ("k", "wanted KEY=VALUE"), ("k=0", "k: ")],
)
def test_a_wrong_option_is_told_in_a_line(typed: Callable[..., Any], option: str, message: str):
    done = typed("scripts/recommend.py", option)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_file_lists_every_option():
    listed = yaml.safe_load((ROOT / "conf" / "recommend.yaml").read_text())
    for of_class, values in ((Batch, listed), (Spark, listed["spark"])):
        defaults = {field.name: getattr(of_class(), field.name) for field in fields(of_class)}
        assert {name: value for name, value in values.items() if name not in ("_target_", "spark")} == {
            name: value for name, value in defaults.items() if name != "spark"
        }
