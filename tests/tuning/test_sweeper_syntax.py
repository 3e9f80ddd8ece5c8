"""Hydra's sweep syntax, and what a trial may choose."""

from pathlib import Path

import optuna
import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from recsys.errors import ConfigError
from recsys.tuning import results, space, syntax

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.mark.parametrize(
    ("written", "drawn"),
    [
        ("a,b,c", CategoricalDistribution(["a", "b", "c"])),
        ("1,2.5,true,null", CategoricalDistribution([1, 2.5, True, "null"])),
        ("choice(a,b)", CategoricalDistribution(["a", "b"])),
        ("choice('a b',c)", CategoricalDistribution(["a b", "c"])),
        ("choice([a,b],[c])", CategoricalDistribution(["[a,b]", "[c]"])),
        ("choice({a:1},{a:2})", CategoricalDistribution(["{a:1}", "{a:2}"])),
        ("sort(3,1,2)", CategoricalDistribution([1, 2, 3])),
        ("tag(some,choice(1,2))", CategoricalDistribution([1, 2])),
        ("str(1,2)", CategoricalDistribution(["1", "2"])),
        ("range(8,64,step=8)", IntDistribution(8, 64, step=8)),
        ("range(3)", IntDistribution(0, 3)),
        ("range(0.5,1,step=0.1)", FloatDistribution(0.5, 1, step=0.1)),
        ("float(range(1,4))", FloatDistribution(1, 4, step=1)),
        ("shuffle(range(1,4))", CategoricalDistribution([1, 2, 3])),
        ("interval(0,1)", FloatDistribution(0, 1)),
        ("int(interval(1,9))", IntDistribution(1, 9)),
        ("tag(log,interval(0.001,1))", FloatDistribution(0.001, 1, log=True)),
        ("int(tag(log,interval(1,100)))", IntDistribution(1, 100, log=True)),
        ("tag(log,int(interval(1,100)))", IntDistribution(1, 100, log=True)),
    ],
)
def test_each_form_becomes_the_distribution_that_it_says(written, drawn):
    assert syntax.parse([f"x={written}"]) == ([], {"x": drawn})
    assert syntax.distribution("x", written) == drawn


@pytest.mark.parametrize(
    ("params", "drawn"),
    [
        (
            {"x": "range(-5.5, 5.5, step=0.5)", "y": "choice(-5, 0, 5)"},
            {"x": FloatDistribution(-5.5, 5.5, step=0.5), "y": CategoricalDistribution([-5, 0, 5])},
        ),
        (
            {"x": "range(0, 5, step=0.5)", "y": "range(0, 3, step=0.5)"},
            {"x": FloatDistribution(0, 5, step=0.5), "y": FloatDistribution(0, 3, step=0.5)},
        ),
        ({"x": "choice(0, 1, 2)", "y": 0}, {"x": CategoricalDistribution([0, 1, 2])}),
    ],
)
def test_the_examples_of_hydras_own_documentation_give_the_same_spaces(params, drawn):
    """One objective, two, and the command line of https://hydra.cc/docs/plugins/optuna_sweeper."""
    assert syntax.parse(syntax.arguments(params))[1] == drawn
    assert syntax.parse([f"{key}={value}" for key, value in params.items()])[1] == drawn


def test_glob_draws_the_members_of_a_group():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
    _, drawn = syntax.parse(["retriever=glob([a*,bp*])", "ranker=glob(*,exclude=[blend,none])"], loader)
    assert drawn["retriever"] == CategoricalDistribution(["als", "bpr"])
    assert set(drawn["ranker"].choices) == {path.stem for path in (CONF / "ranker").glob("*.yaml")} - {"blend", "none"}


def test_fixed_overrides_pass_and_the_command_line_replaces_yaml():
    fixed, drawn = syntax.parse([*syntax.arguments({"x": "interval(0,1)", "y": "choice(1,2)", "z": 3}), "x=0.5", "z=1,2"])
    assert fixed == ["x=0.5"]
    assert list(drawn) == ["y", "z"]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("x=choice(", "cannot read 'x=choice('"),
        ("x=interval(5,1)", "`low <= high` must hold"),
        ("x=tag(log,interval(0,1))", "`low > 0` must hold"),
        ("x=range(1,5,step=0)", "`step > 0` must hold"),
        ("x=glob(*)", "ConfigLoader"),
    ],
)
def test_what_holds_nothing_is_refused_in_one_line(written, told):
    with pytest.raises(ConfigError, match=r"^sweep: ") as error:
        syntax.parse([written])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


ALS = {"_target_": "shop.ALS", "factors": 128, "alpha": 1.0}
BPR = {"_target_": "shop.BPR", "factors": 64, "rate": 0.05}
GROUPS = {
    "als": ALS,
    "bpr": BPR,
    "hybrid": {"_target_": "shop.Hybrid", "sources": ["als"], "definitions": {"als": ALS, "bpr": BPR}},
}
SPACES = {
    "als": {"_target_": "shop.ALS", "factors": "int(tag(log,interval(16,256)))", "alpha": "interval(0.1,10)"},
    "bpr": {"_target_": "shop.BPR", "factors": "choice(32,64)", "rate": "tag(log,interval(0.1,1))"},
    "hybrid": {"_target_": "shop.Hybrid", "sources": "choice([als],[bpr],[als,bpr])"},
    "ranker": {"_target_": "shop.Ranker", "leaves": "int(interval(2,64))"},
}


def compose(overrides):
    """A small stand-in for Hydra: `group=name`, then `group.key=value`."""
    chosen = dict(each.split("=", 1) for each in overrides)
    name = chosen.get("retriever", "als")
    config = {"retriever": _copy(GROUPS[name]), "ranker": {"_target_": "shop.Ranker", "leaves": 31}}
    for key, text in chosen.items():
        if "." in key:
            *path, last = key.split(".")
            at = config
            for part in path:
                at = at[part]
            at[last] = text.strip("[]").split(",") if text.startswith("[") else float(text)
    return {**config, space.CHOICES: {"retriever": name}}


def _copy(value):
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


def searched(keys=None, over=("retriever",), spaces=SPACES):
    _, drawn = syntax.parse([f"{key}={text}" for key, text in (keys or {}).items()])
    return space.SearchSpace(compose, (), drawn, space.read_components(spaces), over)


def draw(found, n=40, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trials = []
    for _ in range(n):
        trial = study.ask()
        trials.append((trial, found.overrides(trial)))
        study.tell(trial, 0.0)
    return trials


def test_a_trial_sees_the_parameters_of_what_it_chose_and_no_others():
    seen = set()
    for trial, overrides in draw(searched({"retriever": "als,bpr"})):
        keys = [each.partition("=")[0] for each in overrides]
        expected = {"als": ["factors", "alpha"], "bpr": ["factors", "rate"]}[trial.params["retriever"]]
        assert keys == ["retriever", *(f"retriever.{key}" for key in expected)]
        seen.add(trial.params["retriever"])
    assert seen == {"als", "bpr"}


def test_a_composed_component_chooses_its_parts_and_only_those_are_searched():
    for trial, overrides in draw(searched({"retriever": "choice(hybrid)"})):
        chosen = trial.params["retriever[hybrid].sources"].strip("[]").split(",")
        inside = {name.split(".")[2].partition("[")[0] for name in trial.params if "definitions" in name}
        assert inside == set(chosen)
        assert all(each.startswith("retriever") for each in overrides)


def test_only_the_searched_part_of_the_config_is_searched_and_a_key_replaces_a_spaces_own():
    assert [o.partition("=")[0] for o in draw(searched(over=("ranker",)), 1)[0][1]] == ["ranker.leaves"]
    for trial, _ in draw(searched({"retriever.factors": "choice(8)"})):
        assert trial.params["retriever.factors"] == 8
        assert "retriever[als].factors" not in trial.params


def test_the_trial_of_the_defaults_changes_nothing_even_where_the_space_does_not_hold_them():
    found = searched({"retriever": "als,bpr"})
    assert found.defaults() == {"retriever": "als", "retriever[als].factors": 128, "retriever[als].alpha": 1.0}
    narrow = searched(spaces={**SPACES, "als": {**SPACES["als"], "factors": "range(8,64,step=8)"}})
    assert narrow.defaults() == {"retriever[als].alpha": 1.0}
    study = optuna.create_study()
    study.enqueue_trial(narrow.defaults(), user_attrs={space.DEFAULTS: list(narrow.defaults())})
    trial = study.ask()
    assert narrow.overrides(trial) == ["retriever.alpha=1.0"]
    assert [o.partition("=")[0] for o in narrow.overrides(study.ask())] == ["retriever.factors", "retriever.alpha"]


@pytest.mark.parametrize(
    ("spaces", "told"),
    [
        (
            {**SPACES, "bpr": {**SPACES["bpr"], "ratte": "interval(0,1)"}},
            "sweep/space/bpr: shop.BPR has no option 'ratte'. Did you mean 'rate'",
        ),
        ({"other": {"_target_": "shop.Other", "a": "interval(0,1)"}}, "nothing to search in retriever"),
        ({"als": {"_target_": "shop.ALS", "factors": 64}}, "sweep/space/als.factors: wanted what may be drawn"),
        ({"als": {"factors": "choice(1,2)"}}, "sweep/space/als: wanted the component's _target_"),
    ],
)
def test_a_wrong_space_is_told_in_one_line_before_any_trial(spaces, told):
    keys = {"retriever": "als,bpr"} if len(spaces) > 1 else {}
    with pytest.raises(ConfigError) as error:
        searched(keys, spaces=spaces).check()
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_the_override_line_and_the_experiment_file_say_what_the_trial_chose():
    trial = draw(searched({"retriever": "choice(hybrid)"}), 1)[0]
    line = results.overrides(trial[0])
    assert line == trial[1]
    written = results.experiment(
        ["dataset=csv", "dataset.path=a.csv", "seed=1", "retriever=bpr", "retriever.rate=1e-05", "x.y=[a,b]", "outputs=/tmp/x"],
        {"dataset", "retriever"},
    )
    assert written.startswith("# @package _global_\n")
    assert yaml.safe_load(written) == {
        "defaults": [{"override /dataset": "csv"}, {"override /retriever": "bpr"}, "_self_"],
        "dataset": {"path": "a.csv"},
        "seed": 1,
        "retriever": {"rate": 1e-05},
        "x": {"y": ["a", "b"]},
    }
