"""Workers that share a study: real processes on real stores."""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import mlflow
import optuna
import pytest
from optuna.trial import TrialState

from recsys.errors import ConfigError
from recsys.tuning.study import CONTENT, DEFAULTS, ERROR, SharedStudy, open_storage

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

ROOT = Path(__file__).resolve().parents[2]
HEARTBEAT, GRACE = 1, 3
WORKER = """
import sys, time
import optuna
from optuna.trial import TrialState
from recsys.tuning.study import SharedStudy, open_storage

url, total, journal, hang = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] == "hang"
storage = open_storage(url, 1, 3, 3)
shared = SharedStudy.open(storage, "shop", total, ["x"], ["maximize"])
shared.begin({"x": 0.5})
done = 0
while (number := shared.claim()) is not None:
    with shared.alive(number):
        trial = shared.trial(number, optuna.samplers.RandomSampler(seed=number))
        x = trial.suggest_float("x", 0, 1)
        with open(journal, "a") as file:
            file.write(f"{number}\\n")
        done += 1
        if hang and done == 3:
            print(number, flush=True)
            time.sleep(600)
        time.sleep(0.01)
        shared.end(trial, TrialState.COMPLETE, [x])
print("done", flush=True)
"""

HELD = """
import itertools, runpy, sys, time
from pathlib import Path
from recsys.tuning import validation

script, last, judge, calls = sys.argv[1], int(sys.argv[2]), validation.judge, itertools.count(1)

def held(*arguments):
    if next(calls) == last:
        Path("held").touch()
        time.sleep(600)
    return judge(*arguments)

validation.judge = held
sys.argv = [script, *sys.argv[3:]]
runpy.run_path(script, run_name="__main__")
"""
"""`train.py` that stays in the middle of a trial, where it judges its second window, say, for as long as a test needs."""


def start(url: str, total: int, journal: Path, what: str = "") -> subprocess.Popen:
    command = [sys.executable, "-c", WORKER, url, str(total), str(journal), what]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def postgresql():
    """A server of this test's own on a free port of this machine; gives a URL for a new database each time."""
    if importlib.util.find_spec("psycopg2") is None:
        pytest.skip("psycopg2, which talks to PostgreSQL, is not installed")
    found = [shutil.which("pg_ctl"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")), reverse=True)]
    control = next((path for path in found if path), None)
    if control is None:
        pytest.skip("PostgreSQL is not installed: no pg_ctl")
    become: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="recsys-pg-", dir="/tmp"))
    if os.geteuid() == 0:  # the server refuses to run as root
        users = [name for name in ("postgres", "nobody") if name in {user.pw_name for user in pwd.getpwall()}]
        if not users or not shutil.which("runuser"):
            pytest.skip("PostgreSQL does not run as root, and there is no user to run it as")
        become = ["runuser", "-u", users[0], "--"]
        shutil.chown(folder, users[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(folder / "data")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"

    def run(*command: str) -> None:
        done = subprocess.run([*become, *command], capture_output=True, text=True, timeout=120, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        run(control, "initdb", "-D", data, "-o", "-U shop -A trust --no-sync")
        run(control, "start", "-D", data, "-o", options, "-l", str(folder / "log"), "-w")
        try:
            yield f"postgresql+psycopg2://shop@127.0.0.1:{port}/postgres"
        finally:
            run(control, "stop", "-D", data, "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql", "journal"])
def url(request, tmp_path):
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")
    else:
        url = {"sqlite": f"sqlite:///{tmp_path / 'study.db'}", "journal": str(tmp_path / "study.log")}[request.param]
    yield url
    storage = open_storage(url, HEARTBEAT, GRACE, 3)
    for study in storage.get_all_studies():
        storage.delete_study(study._study_id)
    open_storage.cache_clear()


def opened(url: str, total: int) -> SharedStudy:
    return SharedStudy.open(open_storage(url, HEARTBEAT, GRACE, 3), "shop", total, ["x"], ["maximize"])


def test_two_processes_share_a_study_and_every_trial_is_run_once(url, tmp_path):
    journal, total = tmp_path / "journal", 24
    workers = [start(url, total, journal) for _ in range(2)]
    told = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], told
    trials = opened(url, total).own()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert [trial.number for trial in complete] == list(range(total))
    assert {trial.state for trial in trials[total:]} <= {TrialState.WAITING}
    run = [int(line) for line in journal.read_text().split()]
    assert sorted(run) == list(range(total))
    assert complete[0].params == {"x": 0.5}
    assert [trial.number for trial in trials if DEFAULTS in trial.user_attrs] == [0]


def test_the_trial_of_a_killed_worker_is_run_again_by_the_other(url, tmp_path):
    journal, total = tmp_path / "journal", 12
    victim = start(url, total, journal, "hang")
    hung = int(victim.stdout.readline())
    other = start(url, total, journal)
    time.sleep(0.5)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    told, trouble = other.communicate(timeout=120)
    assert other.returncode == 0, trouble
    assert told == "done\n"
    shared = opened(url, total)
    everything = shared.study.get_trials()
    places = shared.own()
    assert [trial.state for trial in places[:total]] == [TrialState.COMPLETE] * total
    assert everything[hung].state == TrialState.FAIL
    (copy,) = [trial for trial in places if trial.system_attrs.get("failed_trial") == hung]
    assert copy.params == everything[hung].params
    assert set(Counter(journal.read_text().split()).values()) == {1}
    assert len([trial for trial in everything if trial.state == TrialState.COMPLETE]) == total


def test_a_study_goes_on_where_it_stopped(url):
    first = opened(url, 3)
    first.begin({"x": 0.5})
    for _ in range(2):
        number = first.claim()
        trial = first.trial(number, optuna.samplers.RandomSampler(seed=number))
        first.end(trial, TrialState.COMPLETE, [trial.suggest_float("x", 0, 1)])
    again = opened(url, 3)
    again.begin({"x": 0.5})
    number = again.claim()
    assert number == 2
    again.fail(number, ValueError("no such shop"))
    assert again.claim() is None
    assert [trial.state.name for trial in again.own()] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert again.own()[2].user_attrs[ERROR] == "ValueError: no such shop"
    more = opened(url, 4)
    assert more.claim() == 3


def test_an_interrupted_trial_waits_with_the_same_parameters(url):
    shared = opened(url, 1)
    shared.begin({"x": 0.25})
    number = shared.claim()
    shared.trial(number, optuna.samplers.RandomSampler(seed=0)).suggest_float("x", 0, 1)
    shared.give_back()
    assert shared.study.get_trials()[number].state == TrialState.FAIL
    again = shared.claim()
    assert again != number
    assert shared.trial(again, optuna.samplers.RandomSampler(seed=1)).suggest_float("x", 0, 1) == 0.25


def test_a_trial_is_given_back_though_the_interrupt_comes_while_it_is_claimed(url, monkeypatch):
    """A worker gives back what it claimed, and nobody else's trial."""
    first, other = opened(url, 2), opened(url, 2)
    first.begin({"x": 0.25})
    others = other.claim()
    taken = first.storage.set_trial_state_values

    def taken_and_interrupted(*arguments):
        taken(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(first.storage, "set_trial_state_values", taken_and_interrupted)
    with pytest.raises(KeyboardInterrupt):
        first.claim()
    monkeypatch.undo()
    first.give_back()
    states = [trial.state for trial in first.study.get_trials()]
    assert [states[number] for number in (others, 1 - others)] == [TrialState.RUNNING, TrialState.FAIL]
    assert [trial.state for trial in first.own()] == [TrialState.RUNNING, TrialState.WAITING]


def test_a_study_about_something_else_is_not_joined(url):
    opened(url, 1)
    with pytest.raises(ConfigError, match="'shop' is there already, to maximize x"):
        SharedStudy.open(open_storage(url, HEARTBEAT, GRACE, 3), "shop", 1, ["y"], ["maximize"])
    with pytest.raises(ConfigError, match="'shop' is there already, about another config, data or validation windows"):
        SharedStudy.open(open_storage(url, HEARTBEAT, GRACE, 3), "shop", 1, ["x"], ["maximize"], "another shop")


def test_a_storage_that_cannot_be_opened_is_told_in_one_line_without_its_password():
    for url in ("nosuchdatabase://me:secret@somewhere/x", "sqlite:////no/such/folder/study.db", "/no/such/folder/study.log"):
        with pytest.raises(ConfigError, match=r"sweep\.storage: cannot open") as error:
            open_storage(url, HEARTBEAT, GRACE, 3)
        assert "secret" not in str(error.value)
        assert "\n" not in str(error.value)


def train(home: Path, *arguments: str, hold: int = 0) -> subprocess.Popen:
    """A sweep; it stays where it judges the window number `hold`, if that is given, each trial having two."""
    environment = {**os.environ, "RECSYS_HOME": str(home), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    shop = ("dataset=synthetic", "dataset.scale=0.01", "features=base", "split.horizon=14d", "split.label_cutoffs=2")
    stages = ("retriever=popularity", "ranker=lambdarank", "ranker.trees=20", "ranker.threads=1")
    sweep = ("sweep=ranking", "sweep.folds=2", "sweep.heartbeat=1", "sweep.grace=6", "sweep/pruner=none", "sweep.study=shop")
    script = str(ROOT / "train.py")
    command = [sys.executable, *(("-c", HELD, script, str(hold)) if hold else (script,))]
    return subprocess.Popen(
        [*command, "-m", *shop, *stages, *sweep, f"outputs={home / 'outputs'}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )


def until_held(home: Path, worker: subprocess.Popen) -> None:
    """Wait until the worker is in the middle of the trial where it stays."""
    end = time.monotonic() + 300
    while not (home / "held").exists():
        assert worker.poll() is None, worker.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
def test_of_two_sweeps_one_is_killed_in_mid_trial_and_no_trial_is_lost_or_run_twice(url, tmp_path):
    total = 8
    options = (f"sweep.storage={url}", f"sweep.trials={total}", "tracking=none")
    victim, other = train(tmp_path, *options, hold=2), train(tmp_path, *options)
    until_held(tmp_path, victim)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.communicate()
    told, trouble = other.communicate(timeout=300)
    assert other.returncode == 0, trouble
    shared = SharedStudy.open(
        open_storage(url, HEARTBEAT, GRACE, 3), "shop", total, ["two_stage/ndcg_at_10"], ["maximize"], content_of("shop", url)
    )
    everything, places = shared.study.get_trials(), shared.own()
    assert [trial.state for trial in places[:total]] == [TrialState.COMPLETE] * total
    assert len([trial for trial in everything if trial.state == TrialState.COMPLETE]) == total
    (lost,) = [trial for trial in everything if trial.state == TrialState.FAIL]
    (copy,) = [trial for trial in places if trial.system_attrs.get("failed_trial") == lost.number]
    assert copy.params.items() >= lost.params.items()
    assert len({tuple(trial.params.values()) for trial in places[:total]}) == total
    assert "Test window" in told
    assert len(shared.study.user_attrs["test"]["rows"]) == 1


@pytest.mark.slow
def test_an_interrupted_sweep_ends_with_its_summary_and_goes_on_where_it_stopped(tmp_path):
    url, total = f"sqlite:///{tmp_path / 'optuna.db'}", 4
    options = (f"sweep.trials={total}", "tracking=mlflow")
    first = train(tmp_path, *options, hold=6)
    until_held(tmp_path, first)
    os.killpg(first.pid, signal.SIGINT)
    told, trouble = first.communicate(timeout=300)
    assert first.returncode == 130
    assert trouble.strip().endswith("interrupted")
    assert "Traceback" not in trouble
    assert "shop: 2 complete" in told
    assert "Best     python train.py dataset=synthetic" in told
    study = optuna.load_study(study_name="shop", storage=url)
    before = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    (stopped,) = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert list(stopped.intermediate_values) == [1]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.get_run(study.user_attrs["parent_run"]).info.status == "KILLED"

    again = train(tmp_path, *options)
    told, trouble = again.communicate(timeout=300)
    assert again.returncode == 0, trouble
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == total
    assert complete[:2] == before
    (copy,) = [trial for trial in complete if trial.system_attrs.get("failed_trial") == stopped.number]
    assert copy.params.items() >= stopped.params.items()
    assert told.count("\nranking ") == total - 2
    assert client.get_run(study.user_attrs["parent_run"]).info.status == "FINISHED"


def content_of(name: str, url: str) -> str:
    """The hash that the study was made with."""
    return optuna.load_study(study_name=name, storage=open_storage(url, HEARTBEAT, GRACE, 3)).user_attrs[CONTENT]
