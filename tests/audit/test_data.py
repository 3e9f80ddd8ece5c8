"""The audit of a data set: what is planted is told, and a data set that is in order passes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cheats import SPLIT

from recsys.audit.data import audit_data
from recsys.datasets.base import Loader
from recsys.datasets.online_retail import OnlineRetail
from recsys.datasets.retailrocket import RetailRocket
from recsys.datasets.synthetic import Synthetic
from recsys.shop.events import EventLog, days
from recsys.shop.shop import Shop
from recsys.shop.splits import Split

START = int(pd.Timestamp("2024-01-01").timestamp() * 1000)
DATA = Path(os.environ.get("RECSYS_DATA", "/nowhere"))


def events(seed: int = 0) -> pd.DataFrame:
    """Views and purchases of 300 users over 100 days."""
    draw, n = np.random.default_rng(seed), 6000
    return pd.DataFrame(
        {
            "user": draw.permutation(1000)[draw.integers(0, 300, n)],
            "item": draw.permutation(1000)[draw.zipf(1.3, n) % 400],
            "kind": draw.choice(["view", "transaction"], n, p=[0.7, 0.3]),
            "time": START + draw.integers(0, days(100), n),
        }
    )


def told(frame: pd.DataFrame) -> dict[str, str]:
    """What does not pass, and how."""
    user, item, time = (frame[name].to_numpy() for name in ("user", "item", "time"))
    log = EventLog.build(user, item, frame["kind"].tolist(), time)
    return {check.name: check.outcome for check in audit_data(Shop.of(log), SPLIT) if check.outcome != "pass"}


def test_a_data_set_in_order_passes() -> None:
    assert told(events()) == {}


def _twins(frame: pd.DataFrame) -> pd.DataFrame:
    copies = frame[frame["user"].isin(frame["user"].unique()[:20])]
    return pd.concat([frame, copies.assign(user=copies["user"] + 10_000, time=copies["time"] + 5)])


def _targets_put_in(frame: pd.DataFrame) -> pd.DataFrame:
    cutoff = int(frame["time"].quantile(0.75))
    later = frame[(frame["time"] >= cutoff) & (frame["kind"] == "transaction")]
    earlier = cutoff - np.random.default_rng(2).integers(1, days(5), len(later))
    return pd.concat([frame, later.assign(time=earlier, kind="view")])


def _rows_copied(frame: pd.DataFrame) -> pd.DataFrame:
    later = frame[frame["time"] >= frame["time"].quantile(0.75)]
    return pd.concat([frame, later.assign(time=later["time"] - days(60)).sample(frac=0.3, random_state=1)])


def _ids_by_time(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    first = frame.groupby(column)["time"].min().rank().astype(int)
    return frame.assign(**{column: frame[column].map(first)})


def _bot(frame: pd.DataFrame) -> pd.DataFrame:
    n = 3000
    times = START + days(40) + np.arange(n) * 20_000
    return pd.concat([frame, pd.DataFrame({"user": 5000, "item": frame["item"].iloc[0], "kind": "view", "time": times})])


def _guests(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(user=frame["user"].where(np.arange(len(frame)) % 5 > 0, 7777))


@pytest.mark.parametrize(
    ("plant", "name", "outcome"),
    [
        (_twins, "duplicated users", "fail"),
        (_targets_put_in, "targets in the input", "warn"),
        (_rows_copied, "targets in the input", "fail"),
        (lambda frame: frame.assign(time=START), "times of one value", "fail"),
        (lambda frame: frame.assign(time=frame["time"] // days(1) * days(1)), "times of one value", "warn"),
        (lambda frame: frame.assign(time=frame["time"].where(frame.index % 10 > 0, START)), "times of one value", "warn"),
        (lambda frame: _ids_by_time(frame, "user"), "user ids that sort by time", "warn"),
        (lambda frame: _ids_by_time(frame, "item"), "item ids that sort by time", "warn"),
        (lambda frame: frame.assign(time=frame["time"] + days(365 * 50)), "times after now", "fail"),
        (lambda frame: frame.assign(time=frame["time"] // 1000), "times after now", "warn"),
        (_bot, "inhuman users", "warn"),
        (_guests, "inhuman users", "warn"),
    ],
)
def test_what_is_planted_is_told(plant: Callable[[pd.DataFrame], pd.DataFrame], name: str, outcome: str) -> None:
    assert told(plant(events())).get(name) == outcome


@pytest.mark.parametrize(
    ("source", "place"),
    [
        (Synthetic(scale=0.01), None),
        (OnlineRetail(path=str(DATA / "online_retail" / "online_retail.csv.gz")), "online_retail"),
        (RetailRocket(path=str(DATA / "retailrocket"), properties="none"), "retailrocket"),
    ],
)
def test_known_data_sets_raise_no_alarm(source: Loader, place: str | None) -> None:
    if place and not (DATA / place).is_dir():
        pytest.skip(f"set RECSYS_DATA to a folder with {place}")
    assert [check for check in audit_data(source.load(), Split()) if check.outcome not in ("pass", "skipped")] == []


def test_the_script_writes_a_certificate_of_the_data_set(typed, tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    _twins(events()).rename(columns={"kind": "event"}).to_csv(file, index=False)
    done = typed("scripts/audit.py", "data", "dataset=csv", f"dataset.path={file}", "split.target_events=[transaction]")
    assert done.returncode == 1, done.stderr
    assert "LEAKS" in done.stdout
    [path] = (tmp_path / "outputs" / "audits").glob("*/certificate.json")
    kept = json.loads(path.read_text())
    assert {check["name"]: check["outcome"] for check in kept["checks"]}["duplicated users"] == "fail"
