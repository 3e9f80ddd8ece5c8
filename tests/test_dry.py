"""Dry runs as a user meets them, and the estimates that they print."""

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys.datasets.synthetic import Synthetic
from recsys.dry import estimate
from recsys.ranking import RetrievalOrder
from recsys.retrieval import Popularity
from recsys.shop.splits import Split

SHOP = ("dataset.scale=0.01", "features=base", "retriever=popularity", "ranker.trees=5")
SWEEP = ("-m", "sweep=two_stage", *SHOP)

Typed = Callable[..., Any]


def test_a_dry_run_shows_each_window_with_its_queries_and_leaves_nothing(typed: Typed, tmp_path: Path):
    done = typed("train.py", *SHOP, "--dry", "cache=off")
    assert done.returncode == 0, done.stderr
    split, shop = Split(), Synthetic(scale=0.01).load()
    fold = split.fold(shop)
    rows = re.findall(r"^ (label|test) +─+█+ +(\S+) +(\S+) +([\d,]+) +([\d,]+)", done.stdout, flags=re.M)
    tasks = [*(("label", split.label_task(shop, each)) for each in fold.labels), ("test", split.test_task(shop, fold.test))]
    assert [(row[0], row[3], row[4]) for row in rows] == [
        (role, f"{len(task.queries):,}", f"{len(shop.before(task.window.cutoff).log):,}") for role, task in tasks
    ]
    assert [tuple(str(task.window).split(" … ")[i][:10] for i in (0, 1)) for _, task in tasks] == [row[1:3] for row in rows]
    assert "first stage   fitted 5 times: Popularity" in done.stdout
    assert "second stage  fitted 1 time on 4 label windows: LambdaRank" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_dry_sweep_checks_its_storage_and_makes_no_study(typed: Typed, tmp_path: Path):
    done = typed("train.py", "-m", "sweep=two_stage", "--dry", "cache=off")
    assert done.returncode == 0, done.stderr
    assert "2 validation windows of 28.2 days instead of 3: the log before the cutoff has 110 days" in done.stdout
    assert re.search(r"retrieval: 50 trials on 2 windows, \d+ parameters of retriever, candidates", done.stdout)
    assert not list(tmp_path.iterdir())


def test_a_storage_that_is_there_stays_as_it_is(typed: Typed, tmp_path: Path):
    kept = tmp_path / "optuna.db"
    with sqlite3.connect(kept) as storage:
        storage.execute("CREATE TABLE mine (x)")
    assert typed("train.py", *SWEEP, "--dry", "cache=off").returncode == 0
    with sqlite3.connect(kept) as storage:
        assert ("mine",) in storage.execute("SELECT name FROM sqlite_master").fetchall()
        assert not storage.execute("SELECT * FROM studies").fetchall()


def test_each_job_of_a_dry_multirun_is_dry(typed: Typed, tmp_path: Path):
    done = typed("train.py", "-m", "retriever=popularity,history", "dataset.scale=0.01", "ranker=none", "--dry", "cache=off")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Nothing was fitted or tracked") == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*SHOP, "split.label_cutoffs=90", "split.label_horizon=28d"), "error: split.label_cutoffs: 90 windows of"),
        ((*SHOP, "split=rolling", "split.test_cutoffs=50"), "error: split.test_cutoffs: 50 test windows of"),
        ((*SHOP, "split.min_events=100000"), "error: split: no query is left in the test window"),
        ((*SHOP, "split.label_cutoffs=0"), "error: ranker: LambdaRank learns from label windows"),
        (("dataset=csv", "dataset.path=nowhere.csv"), "nowhere.csv"),
        ((*SWEEP, "sweep.folds=40"), "error: sweep.folds: 40 validation windows of"),
        ((*SWEEP, "sweep.storage=sqlite:////no/such/folder/study.db"), "error: sweep.storage: cannot open"),
        (("dry=perhaps",), "error: dry: wanted true or false, found 'perhaps'"),
    ],
)
def test_what_a_run_would_refuse_a_dry_run_refuses_in_one_line(typed: Typed, arguments: tuple[str, ...], says: str):
    done = (
        typed("train.py", *arguments, "--dry", "cache=off") if "dry=perhaps" not in arguments else typed("train.py", *arguments)
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_work_is_counted_in_events_learned_from_and_candidates_found():
    one = estimate.first_stage(Popularity(), 10, events=1000, queries=7, candidates=50)
    assert (one.events, one.candidates) == (1000, 350)
    assert one.times(3) == one + one + one
    more = estimate.first_stage(Popularity(), 10, events=2000, queries=7, candidates=50)
    assert more.seconds > one.seconds > 0
    assert estimate.second_stage(RetrievalOrder(), 7, 50).seconds < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("retriever=als", "ranker=none"), ("split=rolling", "features=full")], ids=" ".join)
def test_an_estimate_is_within_its_factor_of_what_a_run_takes(typed: Typed, tmp_path: Path, options: tuple[str, ...]):
    """On the built-in shop, without a cache; of a run at a time when the machine does the same as for the yardstick."""
    typed("train.py", *options, "cache=off", "tracking=none")  # numba compiles once
    told = typed("train.py", *options, "cache=off", "tracking=none", "--dry").stdout
    value, unit = re.search(r"estimate +([\d.]+) (s|min)", told).groups()
    expected = float(value) * {"s": 1, "min": 60}[unit]
    assert typed("train.py", *options, "cache=off", "tracking=none").returncode == 0
    seconds = json.loads((tmp_path / "outputs" / "latest" / "metrics.json").read_text())
    took = sum(spent for name, spent in seconds.items() if name.startswith("seconds/")) + estimate.START
    assert took / estimate.FACTOR < expected < took * estimate.FACTOR
