"""Every sampler and pruner of the config groups, on real studies with a made-up shop."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from optuna.trial import TrialState

from recsys import tuning
from recsys.tuning import space
from recsys.tuning.study import SharedStudy, open_storage
from recsys.tuning.sweeper import NEEDS

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

CONF = Path(__file__).resolve().parents[2] / "conf"
SAMPLERS = sorted(path.stem for path in (CONF / "sweep" / "sampler").glob("*.yaml"))
PRUNERS = sorted(path.stem for path in (CONF / "sweep" / "pruner").glob("*.yaml"))
FOLDS = 6
SPACES = {
    "als": {"_target_": "shop.ALS", "factors": "int(tag(log, interval(8, 64)))", "alpha": "range(0.5, 2, step=0.5)"},
    "bpr": {"_target_": "shop.BPR", "rate": "choice(0.01, 0.1)"},
}
CONFIGS = {
    "als": {"_target_": "shop.ALS", "factors": 64, "alpha": 1.0},
    "bpr": {"_target_": "shop.BPR", "rate": 0.1},
}


def settings(*overrides: str):
    tuning.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config", ["sweep=ranking", *overrides]).sweep, resolve=True)


def composed(overrides):
    """What Hydra would make of a choice of the retriever."""
    chosen = dict(each.split("=", 1) for each in overrides).get("retriever", "als")
    return {"retriever": CONFIGS[chosen], space.CHOICES: {"retriever": chosen}}


def swept(tmp_path, sampler="random", pruner="none", trials=14, spaces=SPACES):
    """A study of trials whose value is known: the nearer to 16 factors, the better; BPR is poor."""
    given = settings(f"sweep/sampler={sampler}", f"sweep/pruner={pruner}", f"sweep.folds={FOLDS}")
    shared = SharedStudy.open(open_storage(f"sqlite:///{tmp_path / 'study.db'}", 5, 15, 1), "shop", trials, ["x"], ["maximize"])
    keys = {"retriever": space.CategoricalDistribution(["als", "bpr"])}
    searched = space.SearchSpace(composed, (), keys, space.read_components(spaces), ("retriever",))
    shared.begin(searched.defaults())
    cut = instantiate(given["pruner"])
    while (number := shared.claim()) is not None:
        seed = {} if sampler == "grid" else {"seed": number}
        trial = shared.trial(number, instantiate({**given["sampler"], **seed}), cut)
        searched.overrides(trial)
        factors = trial.params.get("retriever[als].factors")
        value = -1.0 if factors is None else 1 - abs(factors - 16) / 48
        for step in range(1, FOLDS + 1):
            trial.report(value + 0.01 * ((step * 7 + number) % 5), step)
            if step < FOLDS and trial.should_prune():
                shared.end(trial, TrialState.PRUNED, [])
                break
        else:
            shared.end(trial, TrialState.COMPLETE, [value])
    return shared.own()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_conditional_trials_and_begins_with_the_defaults(tmp_path, sampler):
    needed = NEEDS.get(settings(f"sweep/sampler={sampler}")["sampler"]["_target_"].rpartition(".")[2])
    if needed and find_spec(needed) is None:
        pytest.skip(f"{needed}, which the sampler needs, is not installed")
    trials = swept(tmp_path, sampler)
    assert trials[0].params == {"retriever": "als", "retriever[als].factors": 64, "retriever[als].alpha": 1.0}
    for trial in trials:
        assert trial.state == TrialState.COMPLETE
        inside = {name.partition("[")[2].partition("]")[0] for name in trial.params} - {""}
        assert inside == {trial.params["retriever"]}
    assert max(trial.value for trial in trials) > trials[0].value


def test_the_grid_tries_everything_once_and_then_ends(tmp_path):
    spaces = {"als": {"_target_": "shop.ALS", "factors": "choice(8, 16, 64)"}, "bpr": SPACES["bpr"]}
    trials = swept(tmp_path, "grid", trials=30, spaces=spaces)
    drawn = [tuple(sorted(trial.params.items())) for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(set(drawn)) == 3 + 2
    assert len(drawn) == len(set(drawn))


@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_pruner_ends_poor_trials_early_and_never_the_best(tmp_path, pruner):
    trials = swept(tmp_path, pruner=pruner, trials=20)
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    best = max((trial for trial in trials if trial.state == TrialState.COMPLETE), key=lambda trial: trial.value)
    if pruner == "none":
        assert not pruned
        return
    assert pruned
    assert min(len(trial.intermediate_values) for trial in pruned) == (4 if pruner == "wilcoxon" else 1)
    assert all(trial.intermediate_values[1] < best.intermediate_values[1] + 0.05 for trial in pruned)
