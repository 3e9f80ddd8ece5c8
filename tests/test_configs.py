"""Every member of every group composes and builds; the files say what their classes say."""

from dataclasses import fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from recsys import tuning
from recsys.component import construct
from recsys.experiment import Parts

CONF = Path(__file__).resolve().parent.parent / "conf"
GROUPS = ("dataset", "split", "retriever", "features", "ranker", "evaluation", "tracking", "cache")
MEMBERS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("[!_]*.yaml"))]
SETTINGS = [(group, path.stem) for group in ("experiment", "debug") for path in sorted((CONF / group).glob("*.yaml"))]


def composed(*overrides: str) -> dict:
    """The resolved config; a table of the user's own has no path of its own."""
    tuning.register()
    if "dataset=csv" in overrides:
        overrides = (*overrides, "dataset.path=shop.csv")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [*overrides, "output_dir=somewhere"])
    return OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize(("group", "member"), MEMBERS)
def test_every_member_builds_all_parts_of_a_run(group: str, member: str):
    config = composed(f"{group}={member}")
    if member in ("catboost", "xgboost"):
        pytest.importorskip(member)
    assert Parts.of(config)


@pytest.mark.parametrize(("group", "member"), MEMBERS)
def test_a_file_lists_every_option_of_its_class(group: str, member: str):
    if member in ("catboost", "xgboost"):
        pytest.importorskip(member)
    settings = composed(f"{group}={member}")[group]
    options = {field.name for field in fields(type(construct(settings))) if field.init}
    assert options == set(settings) - {"_target_"}


@pytest.mark.parametrize(("group", "member"), SETTINGS)
def test_every_named_setting_builds(group: str, member: str):
    assert Parts.of(composed(f"{group}={member}"))


def test_one_seed_reaches_everything_that_draws():
    config = composed("seed=7")
    parts = Parts.of(config)
    drawing = [parts.dataset, parts.ranker, Parts.of(composed("seed=7", "retriever=als")).retriever]
    drawing += [construct(settings) for settings in config["retriever"]["definitions"].values() if "seed" in settings]
    assert len(drawing) > 4
    assert {part.seed for part in drawing} == {7}
