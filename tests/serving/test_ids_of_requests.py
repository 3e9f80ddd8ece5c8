"""Ids in requests: MLflow's own way from JSON to the endpoint, in every layout that it takes."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server

from recsys.features import FeatureSet
from recsys.ranking import RetrievalOrder
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import History
from recsys.serving import endpoint
from recsys.shop.events import EventLog
from recsys.shop.shop import Shop

DAY = 86_400_000
LARGE = 1_515_915_625_441_993_998
NEIGHBOUR = int(float(LARGE))
"""Another customer, whose float is the same."""


def model_of(users: np.ndarray) -> TwoStageRecommender:
    """A shop in which user `u` viewed item `100 + u` alone."""
    n = len(users)
    time = np.arange(n, dtype=np.int64) + 20_000 * DAY
    log = EventLog.build(users, 100 + np.arange(n), ["view"] * n, time)
    recommender = TwoStageRecommender(History(), FeatureSet(families=[], definitions={}), RetrievalOrder(), 30)
    return recommender.fit(Shop.of(log), 20_001 * DAY)


def served(model: TwoStageRecommender, folder: Path) -> mlflow.pyfunc.PyFuncModel:
    model.save(folder / "saved")
    endpoint.describe(folder / "saved", folder / "model")
    shutil.copytree(folder / "saved", folder / "model", dirs_exist_ok=True)
    return mlflow.pyfunc.load_model(str(folder / "model"))


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> mlflow.pyfunc.PyFuncModel:
    return served(model_of(np.array([1015, LARGE, NEIGHBOUR])), tmp_path_factory.mktemp("numbers"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> mlflow.pyfunc.PyFuncModel:
    users = np.array(["1015", str(LARGE), str(NEIGHBOUR), "guest-1"], dtype=object)
    return served(model_of(users), tmp_path_factory.mktemp("texts"))


LAYOUTS = {
    "dataframe_records": lambda users: [{"user": user} for user in users],
    "dataframe_split": lambda users: {"columns": ["user"], "data": [[user] for user in users]},
    "inputs": lambda users: [{"user": user} for user in users],
    "instances": lambda users: [{"user": user} for user in users],
}


def ask(model: mlflow.pyfunc.PyFuncModel, layout: str, users: list[object]) -> list[dict[str, Any]]:
    body = json.dumps({layout: LAYOUTS[layout](users), "params": {"k": 1}})
    answer = scoring_server.invocations(body, "application/json", model, model.metadata.get_input_schema())
    return json.loads(answer.response)["predictions"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shop", ["numbers", "texts"])
def test_a_customer_gets_the_own_list_or_a_hint_never_another_s(layout: str, shop: str, request: pytest.FixtureRequest):
    model = request.getfixturevalue(shop)
    assert ask(model, layout, [LARGE])[0]["items"] == [101]
    assert ask(model, layout, [str(LARGE), None])[0]["items"] == [101]
    assert [answer["items"] for answer in ask(model, layout, [LARGE, "1015"])] == [[101], [100]]
    for beside in (None, 1.5):
        with pytest.raises(MlflowException) as refused:
            ask(model, layout, [LARGE, beside])
        assert refused.value.get_http_status_code() == 400
        assert "row 0, user: wanted an id with all its digits, found 1.5159" in refused.value.message
        assert "Send ids beyond 2^53 as text." in refused.value.message


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shop", ["numbers", "texts"])
@pytest.mark.parametrize("user", [1015, 1015.0, "1015", "1015.0", " 1015", "1015\t"], ids=repr)
def test_a_customer_is_known_in_every_form(layout: str, shop: str, user: object, request: pytest.FixtureRequest):
    model = request.getfixturevalue(shop)
    for users in ([user], [user, None], [None, user], [user, "stranger"]):
        answer = ask(model, layout, users)[users.index(user)]
        assert (answer["items"], answer["fallback"]) == ([100], False)
        assert answer["user"] in (user, str(user))


def test_text_that_is_no_number_stays_a_stranger(numbers: mlflow.pyfunc.PyFuncModel):
    users = ["01015", "1,015", "+1015", "1015e0", ""]
    assert [answer["fallback"] for answer in ask(numbers, "dataframe_records", users)] == [True] * 5


@pytest.mark.parametrize(
    ("item", "found"), [(float(LARGE), "1.5159"), ("1.5E+17", "'1.5E+17'"), (True, "True"), ("\ud800", "UTF-8")]
)
def test_an_item_of_an_event_keeps_the_rule(numbers: mlflow.pyfunc.PyFuncModel, item: object, found: str):
    event = {"item": item, "event": "view", "time": 20_001 * DAY}
    body = json.dumps({"dataframe_records": [{"user": 1, "events": [event]}]})
    with pytest.raises(MlflowException) as refused:
        scoring_server.invocations(body, "application/json", numbers, numbers.metadata.get_input_schema())
    assert refused.value.get_http_status_code() == 400
    assert "row 0, events[0].item: wanted an id" in refused.value.message
    assert found in refused.value.message.partition("Error:")[2]
