"""What every source has in common."""

import importlib
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from recsys.component import construct
from recsys.datasets.online_retail import OnlineRetail
from recsys.datasets.retailrocket import RetailRocket
from recsys.datasets.table import Csv

CONFIGS = Path(__file__).parents[2] / "conf" / "dataset"


@pytest.mark.parametrize(
    "source",
    [
        RetailRocket(path="x"),
        OnlineRetail(path="x"),
        Csv(path="x", columns={"user": "u", "item": "i", "time": "t"}, time_unit="s", header=["a"]),
    ],
)
def test_a_source_is_made_again_from_its_settings(source):
    assert construct(source.settings()).settings() == source.settings()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_lists_every_option(path):
    config = yaml.safe_load(path.read_text())
    module, _, name = config.pop("_target_").rpartition(".")
    options = fields(getattr(importlib.import_module(module), name))
    assert set(config) == {field.name for field in options if field.init}
