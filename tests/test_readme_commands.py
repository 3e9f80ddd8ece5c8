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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from esp_standin import StandIn
from readme import KEY, PRINTED, composed, jobs, overrides_of, run, surroundings

from recsys.datasets.synthetic import Synthetic

SMALL = {
    "synthetic": ["dataset.scale=0.01"],
    "sweep": ["sweep.trials=2", "sweep.folds=1"],
}
"""Overrides that make a printed command small."""


def shrunk(words: list[str], values: dict[str, Any]) -> list[str]:
    """A `train.py` command with what makes it small."""
    small = [word for word in words if not word.startswith(("dataset.scale=", "sweep.trials=", "sweep.folds="))]
    if values["dataset"]["_target_"].endswith("Synthetic"):
        small += SMALL["synthetic"]
    return small + (SMALL["sweep"] if values.get("sweep") else [])


def lay_out(folder: Path, values: dict[str, Any]) -> None:
    """Where a command reads a reader's own events, a small simulated shop in that form and at that place."""
    settings = values["dataset"]
    if not settings.get("path") or (folder / settings["path"]).exists():
        return
    there = folder / settings["path"]
    if settings["_target_"].endswith("RetailRocket"):
        done = run(folder, [sys.executable, "scripts/make_synthetic.py", "--scale", "0.01", "--out", str(there)])
        assert done.returncode == 0, done.stderr
        return
    log = Synthetic(scale=0.01, seed=0).load().log
    time = log.time
    if isinstance(values["split"]["cutoff"], str):  # the test window is the last fifth of the log, as it is for a quantile
        cutoff = int(pd.Timestamp(values["split"]["cutoff"]).timestamp() * 1000)
        time = time - time[int(0.8 * len(time))] + cutoff
    user, item = (ids.ids[code].astype(str) for ids, code in ((log.users, log.user), (log.items, log.item)))
    if settings["_target_"].endswith("OnlineRetail"):
        table = pd.DataFrame({"InvoiceNo": 500000 + np.arange(len(log)), "StockCode": np.char.add("2", item)})
        table = table.assign(Description=np.char.add("THING ", item), Quantity=1, UnitPrice=2.5, Country="Nowhere")
        table = table.assign(CustomerID=user, InvoiceDate=pd.to_datetime(time, unit="ms").strftime("%Y-%m-%d %H:%M:%S"))
    else:
        names, kinds = settings["columns"], np.array(["view", "addtocart", "transaction"])
        told = {kind: name for name, kind in (settings["events"] or {}).items() if kind}
        unit = {"s": 1000, "ms": 1}[settings["time_unit"]]
        table = pd.DataFrame({names["user"]: user, names["item"]: item, names["time"]: time // unit})
        table[names["event"] or "event"] = [told.get(kind, kind) for kind in kinds[log.kind]]
    there.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(there, index=False)


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
        small += ["--scale", "0.02"]
    done = run(folder, small)
    assert done.returncode == 0, (done.stderr or done.stdout)[-600:]
