"""Comparing runs: known answers, no false alarms, and no comparison of what cannot be compared."""

import json
import os
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from recsys.comparison import causes, changed_targets, compare
from recsys.errors import ConfigError, DataError
from recsys.runs import RunFolder, find, newest_first

ROOT = Path(__file__).resolve().parent.parent
EVALUATION = {"ks": [5, 10], "candidate_ks": [50], "baselines": {}}
WINDOW = {"cutoff": 1000, "end": 2000, "text": "the test window", "funnel": {}}


def write_run(
    folder: Path,
    places: np.ndarray,
    *,
    in_pool: np.ndarray | None = None,
    columns: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    users: np.ndarray | None = None,
) -> RunFolder:
    """A run whose query `r` has one target, at `places[r]` (0: nowhere)."""
    folder.mkdir(parents=True)
    users = np.arange(len(places)) if users is None else users
    hit = (places > 0) & (places <= 10)
    found = np.maximum(places, 1)
    values = {
        "two_stage/hit_rate_at_10": hit.astype(float),
        "two_stage/ndcg_at_10": np.where(hit, 1 / np.log2(found + 1), 0),
        "two_stage/mrr_at_10": np.where(hit, 1 / found, 0),
        "two_stage/recall_at_10": hit.astype(float),
    }
    pd.DataFrame({"user": users, "fold": 0, "cutoff": 1000, **values}).to_parquet(folder / "per_query.parquet")
    target = {
        "user": users,
        "item": [f"item {i}" for i in users],
        "fold": 0,
        "grade": np.float32(4),
        "in_pool": places > 0 if in_pool is None else in_pool,
        "two_stage": places,
        **(columns or {}),
    }
    pd.DataFrame(target).to_parquet(folder / "targets.parquet")
    known = {"name": folder.name, "id": "", "dataset": {"name": "shop", "fingerprint": "f00d"}, "windows": [WINDOW]}
    (folder / "run.json").write_text(json.dumps({**known, **(about or {})}))
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"split": {"target": "next"}, "tracking": None, "evaluation": EVALUATION, **(config or {})})
    )
    (folder / "metrics.json").write_text("{}")
    return RunFolder(folder)


def test_known_answer(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", np.array([1, 2, 20, 0, 0, 11, 12, 13, 14, 15, 1, 1]))
    b = write_run(tmp_path / "b", np.array([1, 20, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1]))
    [other] = compare(a, [b])["others"]
    assert other["metrics"][0]["metric"] == other["leading"] == "two_stage/ndcg_at_10"
    [hit] = [row for row in other["metrics"] if row["metric"] == "two_stage/hit_rate_at_10"]
    assert (hit["first"], hit["second"]) == (pytest.approx(4 / 12), pytest.approx(10 / 12))
    assert (hit["improved"], hit["worse"], hit["unchanged"]) == (7, 1, 4)
    assert hit["p"] == pytest.approx(2 * (1 + 8) / 2**8)  # McNemar, exact: 7 of 8 fair coins or more, on both sides
    assert hit["p"] <= hit["p_holm"] <= 4 * hit["p"]
    assert hit["difference"]["value"] == pytest.approx(0.5)
    assert 0 < hit["difference"]["low"] < 0.5 < hit["difference"]["high"] < 1
    assert other["verdict"].startswith("b is better than a: ndcg@10 +0.")


def test_a_clear_win_is_told(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", np.tile([0, 12], 30))
    b = write_run(tmp_path / "b", np.tile([1, 0], 30))
    [other] = compare(a, [b])["others"]
    assert other["verdict"].startswith("b is better than a: ndcg@10 +0.5000")
    [reverse] = compare(b, [a])["others"]
    assert reverse["verdict"].startswith("a is worse than b: ndcg@10 -0.5000")


def test_a_change_of_candidates_alone_is_told_as_one_before_ranking(tmp_path: Path) -> None:
    same = np.tile([1, 12], 30)
    runs = [write_run(tmp_path / name, same) for name in "ab"]
    for run, value in zip(runs, (0.9, 0.1), strict=True):
        file = run.path / "per_query.parquet"
        pd.read_parquet(file).assign(**{"retrieval/ndcg_at_10": value}).to_parquet(file)
    [other] = compare(runs[0], runs[1:])["others"]
    assert other["verdict"].startswith("b is worse than a before ranking: ndcg@10 -0.8000")


def add(run: RunFolder, **values: float) -> None:
    """Columns of one value, `two_stage__mrr_at_5` for `two_stage/mrr_at_5`."""
    file = run.path / "per_query.parquet"
    named = {name.replace("__", "/"): value for name, value in values.items()}
    pd.read_parquet(file).assign(**named).to_parquet(file)


def test_runs_of_other_metrics_are_compared_by_those_that_both_measured(tmp_path: Path) -> None:
    places = np.tile([1, 8], 30)
    a = write_run(tmp_path / "a", places, config={"evaluation": EVALUATION | {"ks": [5, 20, 10], "shown": ["mrr_at_20"]}})
    b = write_run(tmp_path / "b", np.ones(60, int), config={"evaluation": EVALUATION | {"shown": ["recall_at_5", "mrr_at_5"]}})
    for run in (a, b):
        add(run, two_stage__mrr_at_5=1.0 * (run is b), retrieval__mrr_at_5=0.5)
    add(a, two_stage__mrr_at_20=0.2)
    [other] = compare(a, [b])["others"]
    assert [row["metric"] for row in other["metrics"]] == ["two_stage/mrr_at_5", "retrieval/mrr_at_5"]
    assert (other["leading"], other["k"]) == ("two_stage/mrr_at_5", 5)
    assert other["verdict"].startswith("b is better than a: mrr@5 +1.0000")
    assert {cause["targets"] for cause in other["causes"]} == {30}, "those that were eighth are not among the first five"


def test_runs_without_a_metric_in_common_are_refused(tmp_path: Path) -> None:
    a, b = (
        write_run(tmp_path / name, np.ones(12, int), config={"evaluation": EVALUATION | {"ks": [k]}})
        for name, k in (("a", 3), ("b", 4))
    )
    with pytest.raises(DataError, match=r"share no metric.*a \(a\) has ndcg_at_3.*b \(b\) has ndcg_at_4.*--metrics"):
        compare(a, [b])


def test_a_folder_whose_config_does_not_say_what_was_measured_is_refused(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", np.ones(12, int), config={"evaluation": {"ks": [10]}})
    with pytest.raises(DataError, match=r"config\.yaml: wanted evaluation with ks, candidate_ks and baselines, found \['ks'\]"):
        compare(a, [a])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("two_stage/ndgc_at_10", "a .a. keeps no 'two_stage/ndgc_at_10' of each query. Did you mean 'two_stage/ndcg_at_10'"),
        ("ndcg_at_5", "Did you mean 'two_stage/ndcg_at_10'"),
        ("mrr_at_5", "b .b. keeps no 'mrr_at_5'"),
        ("user", "a .a. keeps no 'user'"),
    ],
)
def test_a_metric_that_one_of_the_runs_lacks_is_named(tmp_path: Path, asked: str, told: str) -> None:
    a, b = (write_run(tmp_path / name, np.ones(12, int)) for name in "ab")
    add(a, two_stage__mrr_at_5=1.0)
    with pytest.raises(ConfigError, match=f"--metrics: .*{told}"):
        compare(a, [b], ["mrr_at_10", asked])


def test_a_short_name_asks_for_the_lists_and_the_first_name_leads(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, np.array([place] * 12)) for name, place in (("a", 2), ("b", 1)))
    [other] = compare(a, [b], ["mrr_at_10", "two_stage/recall_at_10"])["others"]
    assert [row["metric"] for row in other["metrics"]] == ["two_stage/mrr_at_10", "two_stage/recall_at_10"]
    assert other["verdict"].startswith("b is better than a: mrr@10 +0.5000")


def test_each_change_is_put_down_to_a_source_or_a_family(tmp_path: Path) -> None:
    #          gained by retrieval, lost by retrieval, gained by ranking, lost by ranking, the same
    first = {"source/als": [0, 3, 1, 1, 1], "margin/item": [np.nan, 1, -1, 2.0, 1], "margin/user": [np.nan, 1, -2, 1.0, 1]}
    second = {
        "source/als": [9, 0, 1, 1, 1],
        "source/cart": [2, 0, 5, 0, 0],
        "margin/item": [1, np.nan, 0.5, 1.5, 1],
        "margin/user": [1, np.nan, 2, -3.0, 1],
    }
    a = write_run(tmp_path / "a", np.array([0, 4, 30, 2, 1]), columns=first)
    b = write_run(tmp_path / "b", np.array([3, 0, 5, 40, 1]), columns=second)
    changes = changed_targets(a.table("targets"), b.table("targets"), 10)
    assert changes["gained"].tolist() == [True, False, True, False]
    assert changes["stage"].tolist() == ["retrieval", "retrieval", "ranking", "ranking"]
    assert changes["by"].tolist() == ["cart", "als", "user", "user"]
    assert causes(changes)[0] == {"gained": True, "stage": "ranking", "by": "user", "targets": 1}
    [other] = compare(a, [b])["others"]
    gained, lost = other["changed"][0], other["changed"][-1]
    assert gained["user"] == 0
    assert gained["targets"] == [{"item": "item 0", "first": 0, "second": 3, "stage": "retrieval", "by": "cart"}]
    assert lost["user"] == 3


def test_the_same_run_shows_no_difference(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", np.array([1, 0, 3] * 20))
    [other] = compare(a, [a])["others"]
    assert all(row["p_holm"] == 1 and row["difference"]["value"] == 0 for row in other["metrics"])
    assert other["changed"] == []
    assert other["causes"] == []


@pytest.mark.slow
def test_runs_without_a_true_difference_are_rarely_told_apart(tmp_path: Path) -> None:
    """A/A: two runs that place each target by the same distribution, 300 times; at most 6 % may be called different."""
    draw = np.random.default_rng(11)
    alarms = 0
    for trial in range(300):
        chance = draw.random(120) < 0.4
        places = [np.where(chance & (draw.random(120) < 0.5), draw.integers(1, 30, 120), 0) for _ in range(2)]
        a, b = (write_run(tmp_path / f"{trial}-{side}", each) for side, each in enumerate(places))
        [other] = compare(a, [b])["others"]
        alarms += "no difference" not in other["verdict"]
    assert alarms <= 0.06 * 300


def test_several_runs_share_one_correction(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    runs = [write_run(tmp_path / str(i), draw.integers(0, 15, 60)) for i in range(4)]
    alone = compare(runs[0], runs[1:2])["others"][0]["metrics"][0]
    together = compare(runs[0], runs[1:])["others"][0]["metrics"][0]
    assert together["p"] == alone["p"]
    assert together["p_holm"] >= alone["p_holm"]


def test_a_query_without_a_number_is_told_and_never_a_finding(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, np.arange(20)) for name in "ab")
    table = b.table("per_query")
    table.loc[[3, 7], "two_stage/mrr_at_10"] = np.nan
    table.to_parquet(b.path / "per_query.parquet")
    told = r"b \(b\), per_query.parquet: .* two_stage/mrr_at_10; 2 of 20 queries have none, first that of user 3$"
    with pytest.raises(DataError, match=told):
        compare(a, [b])


def test_a_p_value_is_never_told_as_nothing(tmp_path: Path) -> None:
    """McNemar's of 60 gains and no loss is 2 / 2^60."""
    a, b = write_run(tmp_path / "a", np.zeros(60, int)), write_run(tmp_path / "b", np.ones(60, int))
    [other] = compare(a, [b], ["hit_rate_at_10"])["others"]
    assert other["verdict"].endswith("p < 0.0001 after Holm")


def test_users_with_several_folds_are_one_unit(tmp_path: Path) -> None:
    places = np.array([0, 1] * 20)
    users = np.repeat(np.arange(20), 2)
    a, b = write_run(tmp_path / "a", places), write_run(tmp_path / "b", places[::-1].copy())
    for run in (a, b):
        for name in ("per_query", "targets"):
            table = run.table(name)
            table["user"], table["fold"] = users, np.tile([0, 1], 20)
            table.to_parquet(run.path / f"{name}.parquet")
    [other] = compare(a, [b])["others"]
    assert other["metrics"][0]["p"] == 1  # every user gains once and loses once


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"about": {"dataset": {"name": "other", "fingerprint": "beef"}}}, r"different data, shop \(f00d\) and other \(beef\)"),
        ({"about": {"windows": [{**WINDOW, "text": "later"}]}}, "test windows are"),
        ({"users": np.arange(1, 13)}, "different queries, 1 only in the first, 1 only in the second"),
        (
            {"columns": {"grade": np.float32(1)}, "config": {"split": {"target": "window"}}},
            "grades differ; split.target differ",
        ),
    ],
)
def test_runs_that_were_asked_something_else_are_refused(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    places = np.ones(12, dtype=int)
    a, b = write_run(tmp_path / "a", places), write_run(tmp_path / "b", places, **changed)
    with pytest.raises(DataError, match=why):
        compare(a, [b])


def test_runs_are_found_by_what_people_call_them(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old")):
        run = write_run(tmp_path / name, np.ones(3, int), about={"id": f"{name}0123456789", "name": f"als on {name}"})
        os.utime(run.path / "metrics.json", (1e9 - age, 1e9 - age))
    assert [run.path.name for run in newest_first(tmp_path)] == ["new", "old"]
    for name, wanted in [
        ("latest", "new"),
        ("latest~1", "old"),
        ("old", "old"),
        ("als on old", "old"),
        ("old0123456789", "old"),
        ("old01234", "old"),
        (str(tmp_path / "old"), "old"),
    ]:
        assert find(name, tmp_path).path.name == wanted
    with pytest.raises(ConfigError, match="holds 2 runs"):
        find("latest~2", tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'als on new'"):
        find("als on ne", tmp_path)


def test_the_command_prints_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    command = runpy.run_path(str(ROOT / "scripts" / "compare.py"))["main"]
    write_run(tmp_path / "a", np.tile([0, 12], 30))
    write_run(tmp_path / "b [bold]", np.tile([1, 0], 30))
    assert command(["a", "b [bold]", "--outputs", str(tmp_path), "--html"]) == 0
    assert "b [bold] is better than a" in capsys.readouterr().out
    [kept] = (tmp_path / "comparisons").glob("*/comparison.json")
    assert json.loads(kept.read_text())["others"][0]["name"] == "b [bold]"
    assert "b [bold] is better than a" in (kept.parent / "comparison.html").read_text()
    with pytest.raises(SystemExit):
        command(["a", "b [bold]", "--outputs", str(tmp_path), "--metrics", "ndgc_at_10"])
    assert "error: --metrics: a (a) keeps no 'ndgc_at_10'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as refused:
        command(["a", "nobody", "--outputs", str(tmp_path)])
    assert refused.value.code == 2
    assert "error: nobody: no such run" in capsys.readouterr().err
