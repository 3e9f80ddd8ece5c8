"""The command line as a user meets it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys import cli

ROOT = Path(__file__).resolve().parent.parent


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RECSYS_HOME": str(folder), "COLUMNS": "200"}
    command = [sys.executable, str(ROOT / "train.py"), f"outputs={folder / 'outputs'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("retriever=alz", "error: retriever: there is no config called 'alz'. Did you mean 'als'"),
        ("retrievr=als", "error: retrievr: there is no such key or group. Did you mean 'retriever'"),
        (
            "retriever=als retriever.factrs=3",
            "error: retriever.factrs: there is no such key or group. Did you mean 'retriever.fac",
        ),
        ("retriever=als retriever.factors=many", "error: retriever.factors: Input should be a valid integer"),
        ("retriever.seen=kep", "Did you mean 'keep'?"),
        ("retriever=als +retriever.factrs=3", "error: retriever.factrs: ALS has no such option. Did you mean 'factors'?"),
        ("split.cutoff=soon", "error: split.cutoff: wanted a time such as 2015-08-18T04:23:20"),
        ("features.families=[item,usr]", "error: features.families: no family is called 'usr'. Did you mean 'user'"),
        ("optimized_metric=two_stage/ndgc_at_10", "called 'two_stage/ndgc_at_10'. Did you mean 'two_stage/ndcg_at_10'"),
        ("optimized_metric=fold/0/two_stage/ndcg_at_10", "error: optimized_metric: this run logs no metric called 'fold/0"),
        (
            "evaluation.ks=[5,20] optimized_metric=two_stage/ndcg_at_10",
            "or 'two_stage/revisit/ndcg_at_20'? null stands for two_stage/ndcg_at_20.",
        ),
        (
            "evaluation.shown=[ndgc_at_10]",
            "error: evaluation.shown: no 'ndgc_at_10' among evaluation.metrics and ks. Did you mean",
        ),
        ("evaluation.metrics=[ndcg,hitrate]", "error: evaluation.metrics: no metric is called 'hitrate'"),
        ("evaluation.metrics=[my_shop.revenue]", "error: evaluation.metrics: my_shop.revenue: cannot import 'my_shop'"),
        ("candidates=0", "error: candidates: wanted a whole number of at least 1, found 0"),
        ("retriever.factors=[", "error: "),
    ],
)
def test_a_mistake_ends_in_one_line_before_any_work(typed: Callable[..., Any], argument: str, says: str):
    done = typed("train.py", "tracking=none", *argument.split())
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "load" not in done.stdout


KINDS = "{view: {role: view}, wishlist: {}, addtocart: {role: cart}, transaction: {role: purchase}}"
NEITHER = "expected a kind of event of the data or a role, got"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["retriever=popularity", "retriever.weights.wishlst=2"],
            f"retriever.weights: {NEITHER} 'wishlst'. Did you mean 'wishlist'",
        ),
        (["+retriever.weights.wishlst=2"], "retriever.weights: no retriever is called 'wishlst'"),
        (["retriever.learn_events=[whishlist]"], f"retriever.learn_events: {NEITHER} 'whishlist'. Did you mean 'wishlist'"),
        (
            ["retriever.definitions.als.weights.wish=2"],
            f"retriever.definitions.als.weights: {NEITHER} 'wish'. Did you mean 'wishlist'",
        ),
        (
            ["features.definitions.user_item.weights.whish=1"],
            f"features.definitions.user_item.weights: {NEITHER} 'whish'. Did you mean 'wishlist'",
        ),
        (["split.target_events=[bought]"], f"split.target_events: {NEITHER} 'bought'. Known: addtocart, cart, purchase, tr"),
        (["split.label_events=[wishes]"], f"split.label_events: {NEITHER} 'wishes'. Did you mean 'wishlist'"),
        (["split.grades.wishlst=1"], f"split.grades: {NEITHER} 'wishlst'. Did you mean 'wishlist'"),
        (
            ["dataset.default_event=transactoin"],
            "dataset.default_event: expected a kind of event, got 'transactoin'. Did you mean 'transaction'",
        ),
        (
            ["dataset.events={pv: viewed}"],
            "dataset.events.pv: expected a kind of event, got 'viewed'. Did you mean 'view'",
        ),
        (
            ["dataset.kinds={view: {role: vieuw}}"],
            "dataset.kinds.view.role: expected a role, got 'vieuw'. Did you mean 'view'",
        ),
        (
            ["dataset.kinds={buy: {role: purchase}, return: {undoes: by}}"],
            "dataset.kinds.return.undoes: expected a kind that takes nothing back, got 'by'. Did you mean 'buy'",
        ),
        (
            ["dataset.kinds={buy: {undos: purchase}}"],
            "dataset.kinds.buy: expected role or undoes, got 'undos'. Did you mean 'undoes'",
        ),
        (
            ["dataset.kinds={session: {}}", "features.families=[user]"],
            "dataset.kinds.session: there would be two columns user__sessions; call the kind something else",
        ),
    ],
)
def test_a_kind_that_is_not_there_is_told_before_a_row_is_read(typed: Callable[..., Any], arguments: list[str], says: str):
    """The file does not even exist."""
    declared = [] if any(word.startswith("dataset.kinds=") for word in arguments) else [f"dataset.kinds={KINDS}"]
    done = typed("train.py", "tracking=none", "dataset=csv", "dataset.path=nowhere.csv", *declared, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {says}")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "load" not in done.stdout


def test_a_weight_of_a_kind_that_the_config_does_not_name_needs_no_plus(typed: Callable[..., Any]):
    words = ("dataset=csv", "dataset.path=nowhere.csv", f"dataset.kinds={KINDS}", "retriever=popularity")
    for plus in ("", "+"):
        done = typed("train.py", "tracking=none", *words, f"{plus}retriever.weights.wishlist=2", "retriever.weights.view=0.5")
        assert "nowhere.csv" in done.stderr, "all settings hold: only the file is missing"
        assert len(done.stderr.strip().splitlines()) == 1


def test_an_entry_is_added_to_a_mapping_of_weights_alone():
    given = ["retriever=als", "retriever.weights.wishlist=2", "retriever.weights.view=3", "split.grades.wishlist=1"]
    assert cli.with_new_weights(given) == ["retriever=als", f"+{given[1]}", given[2], f"+{given[3]}"]
    for wrong in ("retriever.wights.wishlist=2", "retriever.factrs=3", "retriever.weights=3", "features=full"):
        assert cli.with_new_weights([wrong]) == [wrong]


def test_a_mistake_in_a_process_of_its_own(tmp_path: Path):
    done = train(tmp_path, "retriever=alz")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: retriever: there is no config called 'alz'. Did you mean 'als'?\n"
    assert not list(tmp_path.iterdir())


def test_help_teaches_groups_and_shows_four_commands(tmp_path: Path):
    done = train(tmp_path, "--help")
    assert done.returncode == 0
    for group in ("dataset", "split", "retriever", "features", "ranker", "evaluation", "tracking", "experiment", "debug"):
        assert f"\n{group}: " in done.stdout
    assert done.stdout.count("python train.py") >= 4
    assert not list(tmp_path.glob("outputs/*"))


def test_known_keys_are_those_of_the_chosen_groups():
    assert "retriever.max_items" in cli.known_keys(["retriever=history"])
    assert "retriever.max_items" not in cli.known_keys(["retriever=als"])
