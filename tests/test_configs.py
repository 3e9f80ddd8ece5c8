"""Every member of every group composes and builds; the files say what their classes say."""

import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from recsys import tuning
from recsys.component import Component, construct
from recsys.experiment import Parts

CONF = Path(__file__).resolve().parent.parent / "conf"
GROUPS = ("dataset", "split", "retriever", "features", "ranker", "evaluation", "tracking", "cache")
MEMBERS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("[!_]*.yaml"))]
SETTINGS = [(group, path.stem) for group in ("experiment", "debug") for path in sorted((CONF / group).glob("*.yaml"))]
FILES = [*MEMBERS, *(("delivery", path.stem) for path in sorted((CONF / "delivery").glob("[!_]*.yaml"))), ("", "recommend")]
"""Group and member of every file that names a component."""

UNION = "what a union is made of, and how its sources weigh, is for the config: it tunes the sources for one another"
GIVEN = {
    "dataset/csv": {"path": "the user's own file"},
    "cache/disk": {"folder": "beside the run folders: a config knows where they are, a class does not"},
    "retriever/hybrid": {"sources": UNION, "definitions": UNION, "weights": UNION},
    "ranker/blend": {"weights": "1 each, as where none is named: the file names them so that one can be set on a command line"},
    "features/full": {"families": "all of the definitions; the class by itself is the set that config.yaml chooses"},
}
"""By file, the options whose values only the file has, and why."""


@pytest.fixture(autouse=True)
def optional_libraries(monkeypatch: pytest.MonkeyPatch):
    """Settings can be read without them."""
    for name in ("catboost", "xgboost"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))


def composed(*overrides: str, config: str = "config") -> dict[str, Any]:
    """The resolved config; a table of the user's own has no path of its own."""
    tuning.register()
    if "dataset=csv" in overrides:
        overrides = (*overrides, "dataset.path=shop.csv")
    if config == "config":
        overrides = (*overrides, "output_dir=somewhere")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(config, [*overrides]), resolve=True)


def section(group: str, member: str) -> dict[str, Any]:
    """What the config says where the member is chosen."""
    if not group:
        return composed(config=member)
    return composed(f"{group}={member}", config="emails" if group == "delivery" else "config")[group]


def text(group: str, member: str) -> dict[str, Any]:
    """What the file itself says."""
    return OmegaConf.to_container(OmegaConf.load(CONF / group / f"{member}.yaml"))


def built_on(group: str, member: str) -> str | None:
    """The file of its group that a file says the differences to."""
    said = text(group, member)
    return None if "_target_" in said else said["defaults"][0]


def by_itself(group: str, member: str) -> bool:
    """Whether the file is that of its class: of the class's own name, chosen by config.yaml, or the only one."""
    chosen = {key: value for part in text("", "config")["defaults"] if part != "_self_" for key, value in part.items()}
    return built_on(group, member) is None or chosen[group] == member


def values(made: Component) -> dict[str, Any]:
    """Class and options, at any depth."""
    return {"": type(made), **{f.name: plain(getattr(made, f.name)) for f in fields(made) if f.init}}


def plain(value: Any) -> Any:
    if isinstance(value, Component):
        return values(value)
    return {name: plain(part) for name, part in value.items()} if isinstance(value, dict) else value


def differences(one: Component, other: Component) -> set[str]:
    """Options whose values are not the same."""
    left, right = values(one), values(other)
    assert left.keys() == right.keys()
    return {name for name in left if left[name] != right[name]}


@pytest.mark.parametrize(("group", "member"), MEMBERS)
def test_every_member_builds_all_parts_of_a_run(group: str, member: str):
    assert Parts.of(composed(f"{group}={member}"))


@pytest.mark.parametrize(("group", "member"), FILES)
def test_a_file_lists_every_option_of_its_class(group: str, member: str):
    settings = section(group, member)
    options = {field.name for field in fields(type(construct(settings))) if field.init}
    assert options == set(settings) - {"_target_"}


@pytest.mark.parametrize(("group", "member"), [file for file in FILES if by_itself(*file)])
def test_a_class_by_itself_has_the_values_of_its_file(group: str, member: str):
    made = construct(section(group, member))
    given = {name: getattr(made, name) for name in GIVEN.get(f"{group}/{member}", {})}
    assert not differences(type(made)(**given), made)
    for name in given:
        option = type(made).__pydantic_fields__[name]
        assert option.is_required() or plain(option.get_default(call_default_factory=True)) != plain(given[name]), name


@pytest.mark.parametrize(("group", "member"), [file for file in FILES if not by_itself(*file)])
def test_a_variant_says_what_differs_and_nothing_else(group: str, member: str):
    base = built_on(group, member)
    assert base is not None
    made, whole = construct(section(group, member)), construct(section(group, base))
    assert type(made) is type(whole)
    assert differences(made, whole) == set(text(group, member)) - {"defaults"} != set()


def test_a_unions_sources_are_their_own_files_but_for_what_it_says():
    own = text("retriever", "hybrid")["definitions"]
    for name, made in construct(section("retriever", "hybrid")).definitions.items():
        assert differences(made, construct(section("retriever", name))) == set(own.get(name, {})), name


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
