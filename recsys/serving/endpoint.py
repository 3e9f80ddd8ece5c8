"""A run's model as MLflow serves it: what is asked, what is answered, and the files beside the model that say so.

With `tracking` the only module that knows MLflow. A logged model is the folder that `TwoStageRecommender.save` wrote, with
MLflow's own files beside it: a loader (this module) and the package's code in place of a pickle, and pinned requirements.
"""

import importlib.metadata
import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from threadpoolctl import threadpool_limits

import recsys
from recsys.errors import DataError, nearest
from recsys.recommender import TwoStageRecommender
from recsys.serving.advisor import Advisor, RecentEvents, told
from recsys.shop.events import MILLISECONDS_PER_DAY
from recsys.shop.identity import canonical

MOST_REASONS = 10
EARLIEST = 100_000_000_000
"""An event time below this (1973) is in seconds, not milliseconds."""

DEFAULTS = {"k": 10, "reasons": 0, "time": "now"}
"""`k`: length of the lists; `reasons`: most reasons an item; `time`: when users with events ask, as the time of an event."""


class Endpoint:
    """What MLflow calls: a table in, a table out, a row a user.

    In: `user` (an own id of the shop, as text where it is a number from 2^53 on; null: a visitor without one) and, if wanted,
    `events`: a list, or JSON text of one, of `{"item": …, "event": a kind of event of the model's log, "time": epoch
    milliseconds or ISO 8601, UTC without a zone}`.
    Out: `user`, `items`, `scores`, `fallback` (true: nothing is known of the user, these are popular items), and with the
    parameter `reasons` a list of `{"code": …, "text": …}` for each item.
    """

    def __init__(self, model: TwoStageRecommender) -> None:
        self.advisor = Advisor(model)
        self.advisor.warm_up()

    def predict(self, asked: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Answer. Raises `MlflowException` (HTTP 400) that names the row and the field of what is wrong."""
        try:
            return self._answer(asked, {**DEFAULTS, **(params or {})})
        except DataError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None

    def _answer(self, asked: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
        k = _whole("k", params["k"], 1, self.advisor.model.candidates)
        reasons = _whole("reasons", params["reasons"], 0, MOST_REASONS)
        time = None if params["time"] in (None, "now") else _milliseconds(params["time"], "time")
        if "user" not in asked:
            raise DataError(f"wanted a column user, found {', '.join(map(str, asked.columns)) or 'none'}")
        users = [_own_id(value, f"row {row}, user") for row, value in enumerate(asked["user"])]
        answers = self.advisor.advise(users, k, self._recent(asked, time), time, reasons)
        filled = answers.item != None  # noqa: E711  (elementwise)
        columns: dict[str, Sequence[Any]] = {
            "user": users,
            "items": [row[kept].tolist() for row, kept in zip(answers.item, filled, strict=True)],
            "scores": [row[kept].tolist() for row, kept in zip(answers.score, filled, strict=True)],
            "fallback": answers.fallback.tolist(),
        }
        if reasons:
            columns["reasons"] = [[[told(reason) for reason in of_item] for of_item in of_user] for of_user in answers.reasons]
        return pd.DataFrame(columns, dtype=object)

    def _recent(self, asked: pd.DataFrame, time: int | None) -> RecentEvents | None:
        """The events of all rows. An event has to lie before the request."""
        if "events" not in asked:
            return None
        cutoff, names = self.advisor.model.cutoff, self.advisor.history.kinds.names
        if time is not None and time < cutoff:
            raise DataError(f"time: wanted one not before the model's cutoff, {_text(cutoff)}, found {_text(time)}")
        end = time if time is not None else int(pd.Timestamp.now("UTC").timestamp() * 1000) + MILLISECONDS_PER_DAY
        rows, items, kinds, times = [], [], [], []
        for row, events in enumerate(asked["events"]):
            for place, event in enumerate(_listed(events, row)):
                at = f"row {row}, events[{place}]"
                if not isinstance(event, Mapping):
                    raise DataError(f'{at}: wanted {{"item": …, "event": …, "time": …}}, found {_short(event)}')
                for field in ("item", "event", "time"):
                    if event.get(field) is None:
                        raise DataError(f"{at}.{field}: wanted a value, found none")
                if event["event"] not in names:
                    known = nearest(str(event["event"]), names)
                    raise DataError(f"{at}.event: wanted {', '.join(names)}, found {_short(event['event'])}.{known}")
                when = _milliseconds(event["time"], f"{at}.time")
                if when >= end:
                    raise DataError(f"{at}.time: wanted a time before the request ({_text(end)}), found {_text(when)}")
                rows.append(row)
                items.append(_own_id(event["item"], f"{at}.item"))
                kinds.append(names.index(event["event"]))
                times.append(when)
        return RecentEvents(np.array(rows, np.int64), items, np.array(kinds, np.int8), np.array(times, np.int64))


def _listed(events: Any, row: int) -> Sequence[Any]:
    """The events of one row: a list, JSON text of one, or nothing."""
    if isinstance(events, str):
        try:
            events = json.loads(events or "[]")
        except ValueError as error:
            raise DataError(f"row {row}, events: wanted JSON of a list of events, found {_short(events)} ({error})") from None
    if isinstance(events, list | tuple | np.ndarray):
        return list(events)
    if events is None or (isinstance(events, float) and np.isnan(events)):
        return []
    raise DataError(f"row {row}, events: wanted a list of events, found {_short(events)}")


def _own_id(value: Any, at: str) -> Any:
    """An own id, None for none: text as it was sent, numbers in canonical form. MLflow reads a request into a table, which
    turns whole numbers into floats where they stand beside a null; one that may have lost digits on that way is refused."""
    try:
        text = canonical(value)
    except ValueError as error:
        raise DataError(f"{at}: {error}") from None
    if text is None or isinstance(value, str):
        return text and value
    return int(text) if text.removeprefix("-").isdecimal() else text


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise DataError(f"{name}: wanted a whole number from {least} to {most}, found {_short(value)}")
    return int(value)


def _milliseconds(value: Any, at: str) -> int:
    """Epoch milliseconds of a time given as such or as text."""
    wanted = "wanted epoch milliseconds or a time such as 2015-08-18T04:23:20"
    if isinstance(value, str) and not re.fullmatch(r"\d+", value):
        try:
            time = pd.Timestamp(value)
            if time is pd.NaT:
                raise ValueError(value)
            utc = time if time.tzinfo is None else time.tz_convert("UTC").tz_localize(None)
            return int(utc.as_unit("ms").asm8.astype(np.int64))
        except (ValueError, OverflowError):
            raise DataError(f"{at}: {wanted}, found {_short(value)}") from None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{at}: {wanted}, found {_short(value)}") from None
    if isinstance(value, bool) or number != float(value):
        raise DataError(f"{at}: {wanted}, found {_short(value)}")
    if number < EARLIEST:
        raise DataError(f"{at}: {wanted}, found {number}, which would be in 1973 or before; is it in seconds?")
    return number


def _text(time: int) -> str:
    return str(pd.Timestamp(time, unit="ms").isoformat())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _load_pyfunc(path: str) -> Endpoint:
    """What MLflow calls to load the model. BLAS keeps to one thread: requests come side by side."""
    threadpool_limits(1, user_api="blas")
    return Endpoint(TwoStageRecommender.load(path))


def describe(model: Path, folder: Path) -> None:
    """Write MLflow's own files for the saved `model` into `folder`, which must not be there; they belong beside its files."""
    users, items = (pd.read_parquet(model / f"{name}.parquet", columns=["id"])["id"] for name in ("users", "items"))
    about = yaml.safe_load((model / "model.yaml").read_text())
    cutoff, weakest = about["cutoff"], next(iter(about["kinds"]))
    visit = [{"item": item, "event": weakest, "time": cutoff} for item in items[-1:].tolist()]
    example = pd.DataFrame({"user": [*users[:1].tolist(), "a new visitor"], "events": [[], visit]}, dtype=object)
    number = DataType.long if pd.api.types.is_integer_dtype(items) else DataType.string
    inputs = Schema([ColSpec(AnyType(), "user"), ColSpec(AnyType(), "events", required=False)])
    outputs = Schema(
        [
            ColSpec(AnyType(), "user"),
            ColSpec(Array(number), "items"),
            ColSpec(Array(DataType.double), "scores"),
            ColSpec(DataType.boolean, "fallback"),
        ]
    )
    params = ParamSchema(
        [ParamSpec(name, DataType.long if name != "time" else DataType.string, value) for name, value in DEFAULTS.items()]
    )
    mlflow.pyfunc.save_model(
        str(folder),
        loader_module="recsys.serving.endpoint",
        code_paths=[str(Path(recsys.__file__).parent)],
        signature=ModelSignature(inputs, outputs, params),
        input_example=(example, DEFAULTS),
        pip_requirements=requirements(_libraries(model)),
    )


def _libraries(model: Path) -> set[str]:
    """What the saved ranker needs beside the package's own requirements."""
    settings = (model / "ranker" / "settings.yaml").read_text()
    return {name for name in ("catboost", "xgboost") if f"recsys.ranking.{name}." in settings}


def requirements(libraries: Collection[str] = ()) -> list[str]:
    """The package's requirements, the `libraries` and all that they require, as installed here: `name==version`."""
    waiting, found = [Requirement(name) for name in ("recsys", *libraries)], dict[str, str]()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        with suppress(importlib.metadata.PackageNotFoundError):  # it runs here without
            if name not in found:
                found[name] = importlib.metadata.version(name)
                for need in map(Requirement, importlib.metadata.requires(name) or ()):
                    if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                        waiting.append(need)
    return sorted(f"{name}=={version}" for name, version in found.items() if name != "recsys")
