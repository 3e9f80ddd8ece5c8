"""The commands of README.md work as they are printed, in order."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from esp_standin import StandIn
from logs import kinds_of
from readme import KEY, PRINTED, ROOT, composed, jobs, overrides_of, run, surroundings, train_commands

from recsys.datasets.synthetic import Synthetic
from recsys.shop.events import EventLog

FEW = "sweep.trials=2"
"""All that is made smaller of a printed `train.py`: nothing depends on it that makes a command impossible."""
ONLINE_RETAIL = pd.Timestamp("2010-12-01 08:26"), pd.Timestamp("2011-12-09 12:50")
"""The first and the last purchase of the file that a reader has."""


def shrunk(words: list[str], values: dict[str, Any]) -> list[str]:
    """A `train.py` command with few trials."""
    if not values.get("sweep"):
        return words
    return [word for word in words if not word.startswith("sweep.trials=")] + [FEW]


def lay_out(folder: Path, values: dict[str, Any]) -> None:
    """Where a command reads a reader's own events, a small simulated shop in that form and at that place, over as many days."""
    settings = values["dataset"]
    if not settings.get("path"):
        return
    there = folder / settings["path"]
    if settings["_target_"].endswith("RetailRocket"):
        if not there.exists():
            done = run(
                folder, [sys.executable, str(ROOT / "scripts/make_synthetic.py"), "--scale", "0.01", "--out", str(there)]
            )
            assert done.returncode == 0, done.stderr
        return
    log = simulated()
    time = log.time
    user, item = (ids.ids[code].astype(str) for ids, code in ((log.users, log.user), (log.items, log.item)))
    if settings["_target_"].endswith("OnlineRetail"):
        begin, end = (moment.timestamp() * 1000 for moment in ONLINE_RETAIL)
        time = (begin + (time - time[0]) * ((end - begin) / (time[-1] - time[0]))).astype(np.int64)
        table = pd.DataFrame({"InvoiceNo": 500000 + np.arange(len(log)), "StockCode": np.char.add("2", item)})
        table = table.assign(Description=np.char.add("THING ", item), Quantity=1, UnitPrice=2.5, Country="Nowhere")
        table = table.assign(CustomerID=user, InvoiceDate=pd.to_datetime(time, unit="ms").strftime("%Y-%m-%d %H:%M:%S"))
    else:
        names = settings["columns"]
        told = {kind: name for name, kind in (settings["events"] or {}).items() if kind}
        events = pd.DataFrame({"user": user, "item": item, "time": time, "event": kinds_of(log)})
        events = with_kinds(events, settings["kinds"] or {})
        unit = settings["time_unit"]
        stamps = pd.to_datetime(events["time"], unit="ms").dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        events["time"] = stamps if unit == "iso" else events["time"] // {"s": 1000, "ms": 1}[unit]
        events["event"] = [told.get(kind, kind) for kind in events["event"]]
        table = events.rename(columns={role: name for role, name in names.items() if name})
    there.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(there, index=False)
    if settings["customers"]:
        people = pd.DataFrame({"user": np.unique(user), "country": "FR"})
        people.assign(age=20 + np.arange(len(people)) % 60).to_csv(folder / settings["customers"], index=False)
    if settings["products"]:
        articles = pd.DataFrame({"sku": np.unique(item), "title": "A plain thing", "list_price": 9.9})
        articles.to_parquet(folder / settings["products"]["path"])


@cache
def simulated() -> EventLog:
    """The events of a reader's own shop."""
    return Synthetic(scale=0.01, seed=0).load().log


def with_kinds(events: pd.DataFrame, declared: dict[str, dict[str, str]]) -> pd.DataFrame:
    """More events where more kinds are declared: a tenth of the views as a kind without a role, a tenth of what one undoes."""
    more = []
    for kind, settings in declared.items():
        undone = (settings or {}).get("undoes")
        if undone or not (settings or {}).get("role"):
            some = events[events["event"] == (undone or "view")].iloc[::10]
            more.append(some.assign(event=kind, time=some["time"] + 3_600_000))
    return pd.concat([events, *more]).sort_values("time", kind="stable")


def serving(words: list[str]) -> str | None:
    """Where a command serves until it is stopped answers that it is up."""
    if words[:3] == ["mlflow", "models", "serve"]:
        return "/ping"
    return "/health" if words in (["make", "ui"], ["mlflow", "ui"]) else None


@contextlib.contextmanager
def served(folder: Path, words: list[str], health: str) -> Iterator[str]:
    """The address of a server that the command started, on a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    if words[0] == "make":
        command = [sys.executable, "-m", "recsys.tracking"]
    else:
        kept = [word for i, word in enumerate(words) if word != "--port" and words[i - 1] != "--port"]
        command = [sys.executable, "-m", *kept]
    log = folder / "server.log"
    with log.open("w") as told:
        process = subprocess.Popen(
            [*command, "--port", port], cwd=folder, env=surroundings(folder), stdout=told, stderr=told, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(address + health, timeout=5) as answer:
                assert answer.status == 200
                break
            assert process.poll() is None, log.read_text()[-600:]
            time.sleep(0.2)
        else:
            raise AssertionError(f"{shlex.join(words)} does not answer: {log.read_text()[-600:]}")
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def with_stand_ins(words: list[str], service: StandIn) -> list[str]:
    """A command whose mail service, cluster and environment file are stand-ins on this machine."""
    words = ["spark.master=local[2]" if word.startswith("spark.master=") else word for word in words]
    words = [word for word in words if not word.startswith("spark.conf=")]
    if "--send" in words:
        words = ["delivery.audience=list1" if word.startswith("delivery.audience=") else word for word in words]
        words = [*words, f"delivery.base_url={service.url}/3.0", "delivery.poll=0.01"]
    return words


def post(address: str, words: list[str]) -> None:
    """What `curl` is told to ask, asked of the stand-in for its host."""
    url = next(word for word in words if "/" in word and word.startswith("localhost"))
    body = words[words.index("-d") + 1]
    headers = dict(word.split(": ", 1) for word in words if re.match(r"[\w-]+: ", word))
    request = urllib.request.Request(address + "/" + url.partition("/")[2], body.encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        lists = json.loads(answer.read())["predictions"]
    assert len(lists) == len(json.loads(body)["dataframe_records"])
    assert all(row["items"] for row in lists)


@pytest.mark.slow
def test_the_commands_work_in_order_as_printed(checkout: Path, tmp_path: Path):
    """In a clean checkout, small; all that fail are told. What installs, makes or tests the project itself is left to CI."""
    folder = tmp_path / "recsys"
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns("outputs", ".cache", "mlflow.db*", "mlartifacts"))
    (folder / "products.csv").write_text("id,name,price,currency\n1,A thing,9.90,EUR\n")
    log = Synthetic(scale=0.01, seed=0).load().log
    own = np.unique(log.users.ids[log.user])[:200]
    pd.DataFrame({"user": own, "email": [f"c{user}@customers.test" for user in own]}).to_csv(
        folder / "contacts.csv", index=False
    )
    failed: list[str] = []
    with contextlib.ExitStack() as servers:
        service = servers.enter_context(StandIn(KEY))
        address = ""
        for words in PRINTED:
            try:
                if words[0] in ("pip", "make") and not serving(words):
                    continue
                if health := serving(words):
                    address = servers.enter_context(served(folder, words, health))
                elif words[0] == "curl":
                    post(address, words)
                else:
                    assert words[0] == "python", "it is not known how to try it"
                    reader_types(folder, words, service)
            except AssertionError as error:
                failed.append(f"{shlex.join(words)}\n{error}")
        assert not failed, "\n\n".join(failed)
        assert service.members


def reader_types(folder: Path, words: list[str], service: StandIn) -> None:
    small = [sys.executable, *with_stand_ins(words[1:], service)]
    if words[1] == "train.py" and "--help" not in words:
        values = composed(folder / "conf", "config", next(jobs(overrides_of(words[2:]))))
        lay_out(folder, values)
        small = shrunk(small, values)
    if words[1] == "scripts/benchmark.py":
        small += ["--scale", "0.02"]  # a shop of as many days: there are fewer customers
    done = run(folder, small)
    assert done.returncode == 0, (done.stderr or done.stdout)[-600:]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which commands are typed."""
    return tmp_path_factory.mktemp("reader")


def costly(words: list[str]) -> Any:
    """A command for the slow tests if its data takes a minute to make."""
    return pytest.param(words, id=" ".join(words)[:90], marks=[pytest.mark.slow] if "dataset.scale=1" in words else [])


@pytest.mark.parametrize("words", [costly(words) for words in train_commands()])
def test_a_printed_command_is_possible_exactly_as_it_is(
    words: list[str], reader: Path, package: Path, typed: Callable[..., Any]
):
    """Settings are resolved and checked against data over as many days as the reader has; nothing stays but that data."""
    values = composed(package / "conf", "config", next(jobs(overrides_of(words[1:]))))
    lay_out(reader, values)
    before = {path.name for path in reader.iterdir()}
    done = typed(str(package / "train.py"), *words[1:], "--dry", home=reader)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("estimate ") >= (1 if values.get("sweep") else len(list(jobs(overrides_of(words[1:])))))
    assert {path.name for path in reader.iterdir()} - before <= {".cache"}
