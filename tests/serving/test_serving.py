"""A tracked run's model as MLflow serves it: a real store, a real server."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from recsys.errors import ConfigError, DataError
from recsys.recommender import TwoStageRecommender
from recsys.serving.endpoint import Endpoint, _milliseconds, requirements
from recsys.tracking import Mlflow

ROOT = Path(__file__).resolve().parents[2]
DAY = "2015-09-0{}T12:00:00"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The store of two runs whose models were registered under one name."""
    home = tmp_path_factory.mktemp("home")
    small = ("dataset.scale=0.01", "debug=quick", "retriever=als", "retriever.factors=8", "features=base")
    options = (*small, "tracking=mlflow", "tracking.register=shop", "cache=off", "ranker.trees=30")
    environment = {**os.environ, "RECSYS_HOME": str(home)}
    command = [sys.executable, str(ROOT / "train.py"), *options, f"outputs={home}/outputs"]
    for more in ((), ("refit=true",)):
        done = subprocess.run([*command, *more], capture_output=True, text=True, cwd=home, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
    return f"sqlite:///{home}/mlflow.db"


@pytest.fixture(scope="module")
def folder(store: str) -> Path:
    """The first version, as MLflow gives it out."""
    client = mlflow.MlflowClient(store)
    version = client.get_model_version("shop", "1")
    return Path(client.download_artifacts(version.run_id, "model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> TwoStageRecommender:
    return TwoStageRecommender.load(folder)


@pytest.fixture(scope="module")
def endpoint(model: TwoStageRecommender) -> Endpoint:
    return Endpoint(model)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local", "-p", str(port)]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        for _ in range(600):
            assert process.poll() is None, "the server ended"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1)
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def post(server: str, rows: list[dict], **params: object) -> tuple[int, Any]:
    body = json.dumps({"dataframe_records": rows, "params": params}).encode()
    request = urllib.request.Request(f"{server}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["message"]


def bought(model: TwoStageRecommender, n: int) -> list[dict]:
    """Events after the cutoff with items that the model has learnt."""
    items = model.history.items.ids[model.retriever.item[:n]].tolist()
    return [{"item": item, "event": "addtocart", "time": DAY.format(i + 1)} for i, item in enumerate(items)]


# What is logged


def test_each_run_registers_a_version(store: str):
    client = mlflow.MlflowClient(store)
    versions = sorted(client.search_model_versions("name = 'shop'"), key=lambda version: int(version.version))
    assert [int(version.version) for version in versions] == [1, 2]
    for version in versions:
        assert client.get_run(version.run_id).data.tags["registered_model"] == f"shop/{version.version}"
    judged, refitted = (
        TwoStageRecommender.load(client.download_artifacts(version.run_id, "model")).cutoff for version in versions
    )
    assert refitted > judged


def test_the_model_s_folder_is_mlflow_s_without_a_pickle(folder: Path):
    info = mlflow.models.get_model_info(str(folder))
    assert info.signature.inputs.input_names() == ["user", "events"]
    assert {param.name: param.default for param in info.signature.params.params} == {"k": 10, "reasons": 0, "time": "now"}
    assert (folder / "input_example.json").is_file()
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".pyc")]
    assert (folder / "code" / "recsys" / "serving" / "endpoint.py").is_file()


def test_requirements_are_pinned_without_an_address(folder: Path):
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert {f"{name}=={__import__(name).__version__}" for name in ("mlflow", "lightgbm", "numpy")} <= set(lines)
    assert all(line.count("==") == 1 and "/" not in line and "@" not in line for line in lines)
    assert "recsys" not in {line.partition("==")[0] for line in lines}, "its code is shipped"
    assert not {"pytest", "pyspark", "catboost"} & {line.partition("==")[0] for line in lines}


def test_a_ranker_s_own_library_and_its_requirements_are_pinned_too():
    pytest.importorskip("catboost")
    added = {line.partition("==")[0] for line in set(requirements({"catboost"})) - set(requirements())}
    assert {"catboost", "graphviz"} <= added


def test_a_model_that_is_not_logged_can_t_be_registered():
    with pytest.raises(ConfigError, match=r"tracking\.register: wanted log_model: true"):
        Mlflow(register="shop", log_model=False)


# What is served


def test_health(server: str):
    for path in ("ping", "health"):
        with urllib.request.urlopen(f"{server}/{path}", timeout=10) as answer:
            assert answer.status == 200


def test_a_known_user_gets_the_model_s_list(server: str, model: TwoStageRecommender):
    user = int(model.history.users.ids[model.history.user[-1]])
    expected = model.recommend([user], 4)
    status, (answer,) = post(server, [{"user": user}], k=4)
    assert status == 200
    assert answer["items"] == [item for item in expected.item[0] if item is not None]
    assert np.float32(answer["scores"]).tolist() == expected.score[0, : len(answer["items"])].tolist()
    assert answer["user"] == user
    assert answer["fallback"] is False
    assert "reasons" not in answer


def test_the_example_is_answered(server: str, folder: Path):
    body = (folder / "serving_input_example.json").read_bytes()
    request = urllib.request.Request(f"{server}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert len(json.load(answer)["predictions"]) == 2


def test_visitors_are_answered_by_their_events(server: str, model: TwoStageRecommender):
    events = bought(model, 3)
    rows = [{"user": None, "events": events}, {"user": "cookie", "events": json.dumps(events)}, {"user": "x", "events": []}]
    status, answers = post(server, rows, k=5, reasons=2, time=DAY.format(9))
    assert status == 200
    assert [answer["fallback"] for answer in answers] == [False, False, True]
    assert answers[0]["items"] == answers[1]["items"] != answers[2]["items"]
    assert [answer["user"] for answer in answers] == [None, "cookie", "x"]
    assert [len(of_item) <= 2 for of_item in answers[0]["reasons"]] == [True] * len(answers[0]["items"])
    assert any(of_item for of_item in answers[2]["reasons"])


@given(st.integers(100_000_000_000, 4_000_000_000_000), st.sampled_from(["", "Z", "+05:30"]))
def test_a_time_as_text_is_read_to_the_millisecond(time: int, zone: str):
    ahead = 5.5 * 3_600_000 if zone.startswith("+") else 0
    text = pd.Timestamp(time + int(ahead), unit="ms").isoformat(timespec="milliseconds") + zone
    assert _milliseconds(text, "time") == time


@pytest.mark.parametrize("value", ["", "NaT", "soon", "99999-01-01"])
def test_a_text_that_is_no_time_is_told(value: str):
    with pytest.raises(DataError, match=r"^time: wanted epoch milliseconds or a time such as"):
        _milliseconds(value, "time")


def test_without_a_time_it_is_asked_now(endpoint: Endpoint, model: TwoStageRecommender):
    event = bought(model, 1)[0] | {"time": int(time.time() * 1000) + 2_000}
    answer = endpoint.predict(pd.DataFrame([{"user": None, "events": [event]}]))
    assert answer["fallback"].tolist() == [False], "a visitor's clock may run ahead"


EVENT = {"item": 1, "event": "view", "time": DAY.format(1)}


@pytest.mark.parametrize(
    ("rows", "params", "message"),
    [
        ([{"users": 1}], {}, r"user"),
        ([{"user": 1}], {"k": 0}, "k: wanted a whole number from 1 to 50, found 0"),
        ([{"user": 1}], {"k": 51}, "k: wanted a whole number from 1 to 50, found 51"),
        ([{"user": 1}], {"reasons": -1}, "reasons: wanted a whole number from 0 to 10, found -1"),
        ([{"user": 1}], {"time": "soon"}, "time: wanted epoch milliseconds or a time such as .*, found 'soon'"),
        ([{"user": 1, "events": [EVENT]}], {"time": "2015-01-01"}, "time: wanted one not before the model's cutoff"),
        ([{"user": [1]}], {}, r"row 0, user: wanted an id, a text or a number, found \[1\]"),
        ([{"user": 1}, {"user": 2, "events": "[{"}], {}, r"row 1, events: wanted JSON of a list of events, found '\[\{'"),
        ([{"user": 1, "events": 5}], {}, "row 0, events: wanted a list of events, found 5"),
        ([{"user": 1, "events": [EVENT, 7]}], {}, r"row 0, events\[1\]: wanted .*, found 7"),
        ([{"user": 1, "events": [EVENT | {"event": "vew"}]}], {}, r"row 0, events\[0\]\.event: .*'vew'\. Did you mean 'view'"),
        ([{"user": 1, "events": [{"item": 1, "event": "view"}]}], {}, r"row 0, events\[0\]\.time: wanted a value, found none"),
        ([{"user": 1, "events": [EVENT | {"item": [2]}]}], {}, r"row 0, events\[0\]\.item: wanted an id"),
        ([{"user": 1, "events": [EVENT | {"time": "soon"}]}], {}, r"row 0, events\[0\]\.time: wanted .*, found 'soon'"),
        ([{"user": 1, "events": [EVENT | {"time": True}]}], {}, r"row 0, events\[0\]\.time: wanted .*, found True"),
        (
            [{"user": 1, "events": [EVENT | {"time": 1.5e12 + 0.5}]}],
            {},
            r"row 0, events\[0\]\.time: wanted .*, found 1500000000000\.5",
        ),
        ([{"user": 1, "events": [EVENT | {"time": 1441111111}]}], {}, "is it in seconds"),
        (
            [{"user": 1, "events": [EVENT | {"time": "2999-01-01"}]}],
            {},
            r"row 0, events\[0\]\.time: wanted a time before the request",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_row_and_field(endpoint: Endpoint, rows: list[dict], params: dict, message: str):
    with pytest.raises(MlflowException, match=message) as caught:
        endpoint.predict(pd.DataFrame(rows), params)
    assert caught.value.get_http_status_code() == 400


def test_a_wrong_question_is_the_caller_s_mistake(server: str):
    status, message = post(server, [{"user": 1, "events": [EVENT | {"event": "vew"}]}])
    assert status == 400
    assert "row 0, events[0].event: wanted view, addtocart, transaction, found 'vew'" in message
    assert post(server, [{"users": 1}])[0] == 400
    assert post(server, [{"user": 1}], k="many")[0] == 400
    assert post(server, [{"user": 1}], k=2)[0] == 200
