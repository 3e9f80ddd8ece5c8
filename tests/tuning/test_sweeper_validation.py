"""What trials are judged on, and that the spaces in conf/sweep/space fit today's components."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from recsys import tuning
from recsys.datasets.synthetic import Synthetic
from recsys.errors import ConfigError
from recsys.evaluation.evidence import Past
from recsys.features import FeatureSet, Source
from recsys.judging import Evaluation
from recsys.ranking import RetrievalOrder
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import Popularity
from recsys.shop.splits import Split
from recsys.tuning import plots, results, space, validation
from recsys.tuning.settings import SweepSettings
from recsys.tuning.study import DEFAULTS, RANKER_SECONDS, open_storage
from recsys.tuning.trial import sampled, storage_url

CONF = Path(__file__).resolve().parents[2] / "conf"
SPLIT = Split(cutoff=0.8, horizon="14d", label_cutoffs=2, label_events=["view"], target_events=["view"])
EVALUATION = Evaluation(ks=[5, 10], candidate_ks=[10, 50, 500], baselines={"popularity": Popularity()})


@pytest.fixture(scope="module")
def shop():
    return Synthetic(scale=0.01).load()


def test_validation_windows_lie_before_the_test_cutoff_newest_first_and_do_not_overlap(shop):
    test = SPLIT.folds(shop)[0].test
    past, folds, _ = validation.validation_folds(SPLIT, shop, 3)
    assert past.log.time[-1] < test.cutoff
    windows = [fold.test for fold in folds]
    assert windows[0].end == test.cutoff
    assert [window.end for window in windows[1:]] == [window.cutoff for window in windows[:-1]]
    assert {window.end - window.cutoff for window in windows} == {test.end - test.cutoff}
    assert all(label.end <= fold.test.cutoff for fold in folds for label in fold.labels)
    _, near, _ = validation.validation_folds(SPLIT, shop, 2, "7d", 1)
    assert near[0].test.cutoff - near[1].test.cutoff == 7 * 86_400_000
    assert [len(fold.labels) for fold in near] == [1, 1]


@pytest.mark.parametrize("step", ["soon", "0d", "-3d"])
def test_a_distance_between_windows_that_is_none_is_refused(shop, step):
    with pytest.raises(ConfigError, match=r"sweep\.fold_step: wanted a span such as 28d or 12h"):
        validation.validation_folds(SPLIT, shop, 1, step)


def test_a_trial_logs_what_it_says_it_logs_and_its_long_tail_is_that_of_its_lists(shop):
    task = SPLIT.test_task(shop, SPLIT.folds(shop)[0].test)
    features = FeatureSet(families=["source"], definitions={"source": Source()})
    model = TwoStageRecommender(Popularity(), features, RetrievalOrder(), 100)
    model.fit(shop, task.window.cutoff)
    known = validation.names(EVALUATION, 100)
    assert {f"{system}/precision_at_5" for system in ("two_stage", "retrieval")} <= set(known)
    found = validation.judge(model, task, EVALUATION, ["beyond/two_stage/long_tail"])
    assert set(found) == set(known)
    assert not any(name.startswith("beyond/") for name in validation.judge(model, task, EVALUATION, []))
    past = Past.of(shop.before(task.window.cutoff), task.window.cutoff)
    shown = model.rank(model.pool(task.queries), task.queries, 10).item
    tail = np.where(shown >= 0, ~past.head[shown], False).sum(axis=1) / (shown >= 0).sum(axis=1)
    assert found["beyond/two_stage/long_tail"] == pytest.approx(tail.mean())
    assert found["latency_ms"] > 0


def test_short_names_mean_the_lists_of_both_stages():
    known = validation.names(EVALUATION, 100)
    meant = {name: validation.full_name(name, EVALUATION, known) for name in ("ndcg_at_10", "long_tail_at_10", "gini", "x")}
    assert meant == {
        "ndcg_at_10": "two_stage/ndcg_at_10",
        "long_tail_at_10": "beyond/two_stage/long_tail",
        "gini": "beyond/two_stage/gini",
        "x": None,
    }
    assert validation.full_name("candidates/recall_at_500", EVALUATION, known) is None
    assert validation.full_name("long_tail_at_5", EVALUATION, known) is None


def test_a_trial_learns_from_the_same_few_queries_each_time(shop):
    task = SPLIT.label_task(shop, SPLIT.folds(shop)[0].labels[0])
    few, again = (sampled(task, 20, seed=3) for _ in range(2))
    assert len(few.queries) == len(few.truth) == 20
    np.testing.assert_array_equal(few.queries.user, again.queries.user)
    for row, user in enumerate(few.queries.user):
        (whole,) = np.flatnonzero(task.queries.user == user)
        np.testing.assert_array_equal(
            few.truth.item[few.truth.indptr[row] : few.truth.indptr[row + 1]],
            task.truth.item[task.truth.indptr[whole] : task.truth.indptr[whole + 1]],
        )
    assert sampled(task, None, 0) is sampled(task, 10**9, 0) is task


def test_the_studies_own_file_is_made_where_no_folder_is_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path / "not" / "there"))
    tuning.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["sweep=ranking", "output_dir=somewhere"])
    settings = SweepSettings.of(OmegaConf.to_container(config.sweep, resolve=True))
    open_storage(storage_url(settings), 15, 60, 3)
    assert (tmp_path / "not" / "there" / "optuna.db").is_file()


def test_the_cost_of_a_trial_leaves_out_the_one_that_fills_the_cache_and_those_without_a_ranker():
    study = optuna.create_study()
    for seconds, ranker, attributes in ((100, 1, {DEFAULTS: []}), (11, 10, {}), (22, 20, {}), (60, 20, {}), (500, 0.0, {})):
        trial = optuna.create_trial(value=0.0, user_attrs={RANKER_SECONDS: ranker, **attributes})
        trial.datetime_start = trial.datetime_complete - np.timedelta64(seconds, "s").item()
        study.add_trial(trial)
    assert results.cost(study) == pytest.approx((22, 1.1))


def test_plots_name_parameters_by_their_last_part_unless_two_share_it():
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0))
    names = ("retriever[als].factors", "retriever[bpr].factors", "ranker[lambdarank].leaves", "candidates")
    study.optimize(lambda trial: (sum(trial.suggest_float(name, 0, 1) for name in names), trial.number), n_trials=8)
    shown = plots.with_short_names(study)
    assert set(shown.trials[0].params) == {"als.factors", "bpr.factors", "leaves", "candidates"}
    assert [trial.values for trial in shown.trials] == [trial.values for trial in study.trials]
    assert set(plots.figures(study, ["x", "y"])) == {"history", "importance", "slice", "parallel_coordinate", "pareto"}
    plt.close("all")


def spaces() -> dict[str, dict]:
    found: dict[str, dict] = {}
    for path in sorted((CONF / "sweep" / "space").glob("*.yaml")):
        found |= yaml.safe_load(path.read_text())
    return found


NOTHING_TO_SEARCH = ("random", "none", "rule", "blend")


@pytest.mark.parametrize(
    ("group", "member"),
    [(group, path.stem) for group in ("retriever", "ranker") for path in sorted((CONF / group).glob("[!_]*.yaml"))],
)
def test_every_retriever_and_ranker_has_a_space_whose_keys_it_has(group, member):
    tuning.register()

    def composed(overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", [*overrides, "output_dir=x"])
        return {**OmegaConf.to_container(config, resolve=True), space.CHOICES: {group: member}}

    found = space.SearchSpace(space.cached(composed), (f"{group}={member}",), {}, space.read_components(spaces()), (group,))
    if member in NOTHING_TO_SEARCH:
        return
    found.check()
    assert any(name.startswith(f"{group}[") for name in found.drawn())
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    chosen = found.overrides(trial)
    assert chosen
    assert composed((f"{group}={member}", *chosen))


def test_the_defaults_of_a_hybrid_are_in_its_space():
    values = spaces()["hybrid"]
    (component,) = space.read_components({"hybrid": values})
    default = yaml.safe_load((CONF / "retriever" / "hybrid.yaml").read_text())
    assert space.syntax.encoded(default["sources"]) in component.space["sources"].choices
    assert default["budget"] in component.space["budget"].choices
