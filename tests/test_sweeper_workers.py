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

import optuna
import pytest
from optuna.trial import TrialState

from recsys.errors import ConfigError
from recsys.tuning.study import DEFAULTS, ERROR, SharedStudy, open_storage

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


def start(url: str, total: int, journal: Path, what: str = "") -> subprocess.Popen:
    command = [sys.executable, "-c", WORKER, url, str(total), str(journal), what]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def postgresql():
    """A server of this test's own on a free port of this machine; gives a URL for a new database each time."""
    if importlib.util.find_spec("psycopg2") is None:
        pytest.skip("psycopg2, which talks to PostgreSQL, is not installed")
    found = [shutil.which("pg_ctl"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")), reverse=True)]
    control = next((path for path in reversed(found) if path), None)
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


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    return request.getfixturevalue("postgresql")


@pytest.fixture(autouse=True)
def fresh(url):
    yield
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
    shared.give_back(number)
    again = shared.claim()
    assert again != number
    assert shared.trial(again, optuna.samplers.RandomSampler(seed=1)).suggest_float("x", 0, 1) == 0.25


def test_a_study_about_something_else_is_not_joined(url):
    opened(url, 1)
    with pytest.raises(ConfigError, match="'shop' is there already, to maximize x"):
        SharedStudy.open(open_storage(url, HEARTBEAT, GRACE, 3), "shop", 1, ["y"], ["maximize"])


def test_a_storage_that_cannot_be_opened_is_told_in_one_line_without_its_password():
    for url in ("nosuchdatabase://me:secret@somewhere/x", "sqlite:////no/such/folder/study.db"):
        with pytest.raises(ConfigError, match=r"sweep\.storage: cannot open") as error:
            open_storage(url, HEARTBEAT, GRACE, 3)
        assert "secret" not in str(error.value)
        assert "\n" not in str(error.value)
