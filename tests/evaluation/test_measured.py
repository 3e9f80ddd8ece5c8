"""What a run measures, by name: which metric leads, at which k, and what follows from it."""

import pytest

from recsys.errors import ConfigError
from recsys.evaluation import metrics
from recsys.evaluation.measured import Measured
from recsys.report import run_table

SETTINGS = {"ks": [1, 3, 5, 10, 20], "candidate_ks": [10, 200, 1000], "baselines": {"popularity": {}, "history": {}}}


def measured(**settings: object) -> Measured:
    return Measured.of(SETTINGS | settings)


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, ("ndcg_at_10", "hit_rate_at_10", "mrr_at_10", "recall_at_10")),
        ({"ks": [5, 20]}, ("ndcg_at_20", "hit_rate_at_20", "mrr_at_20", "recall_at_20")),
        ({"ks": [20, 5], "metrics": ["recall", "my.shop.margin", "map"]}, ("recall_at_20", "margin_at_20")),
        ({"metrics": ["precision", "map"]}, ("precision_at_10", "map_at_10")),
        ({"shown": ["map_at_3", "ndcg_at_10"]}, ("map_at_3", "ndcg_at_10")),
    ],
)
def test_what_is_shown_follows_what_is_measured(settings: dict[str, object], shown: tuple[str, ...]):
    found = measured(**settings)
    assert found.shown == shown
    assert found.leading == shown[0]
    assert f"at_{found.k}" in found.leading


@pytest.mark.parametrize("shown", ["ndcg", "ndgc_at_10", "ndcg_at_7", "revenue_at_10"])
def test_a_metric_that_is_shown_has_to_be_measured(shown: str):
    with pytest.raises(ConfigError, match=f"evaluation.shown: no '{shown}' among evaluation.metrics and ks"):
        measured(shown=["mrr_at_10", shown])


@pytest.mark.parametrize(
    ("shown", "diagnosed", "apart"),
    [
        ("ndcg_at_10", ("hit_rate", "ndcg"), ("hit_rate", "ndcg", "recall")),
        ("hit_rate_at_10", ("hit_rate", "ndcg"), ("hit_rate", "recall")),
        ("recall_at_5", ("hit_rate", "recall"), ("hit_rate", "recall")),
        ("margin_at_5", ("hit_rate", "ndcg"), ("hit_rate", "margin", "recall")),
    ],
)
def test_the_diagnosis_speaks_of_hits_and_of_the_leading_metric_if_that_has_a_ceiling(
    shown: str, diagnosed: tuple[str, ...], apart: tuple[str, ...]
):
    found = measured(metrics=[*metrics.BUILT_IN, "my.margin"], shown=[shown])
    assert (found.diagnosed, found.apart) == (diagnosed, apart)


def test_the_run_table_opens_with_the_leading_metric_of_each_stage():
    assert run_table.columns(measured(), 200) == (
        *("two_stage/ndcg_at_10", "two_stage/hit_rate_at_10", "retrieval/ndcg_at_10", "history/ndcg_at_10"),
        "candidates/recall_at_200",
    )
    few = measured(ks=[5], shown=["map_at_5"], baselines={"popularity": {}})
    assert run_table.columns(few, 50) == ("two_stage/map_at_5", "retrieval/map_at_5", "candidates/recall_at_10")


def test_the_headline_is_what_is_shown_of_every_system_and_the_objective():
    shown = ["map_at_5", "mrr_at_5"]
    of_lists = ("map_at_5", "mrr_at_5", "map_at_10")
    figures = {f"{system}/{name}": 0.5 for system in ("history", "two_stage") for name in of_lists}
    always = dict.fromkeys(("mde/two_stage/map_at_5", "candidates/recall_at_10", "queries/count", "seconds/load"), 1.0)
    extra = {"cohort/age/new/ndcg_at_5": 0.1, "beyond/two_stage/gini": 0.2, "interval/two_stage/map_at_5/low": 0.0}
    found = run_table.headline(figures | always | extra, measured(shown=shown), "beyond/two_stage/gini")
    assert set(found) == {f"{s}/{name}" for s in ("history", "two_stage") for name in shown} | {
        *always,
        "beyond/two_stage/gini",
    }


def test_the_text_above_the_runs_says_what_each_metric_is():
    def margin(lists: metrics.Lists) -> metrics.Float64:
        """Euros that the first k bring in.

        More of it.
        """
        raise NotImplementedError

    functions = {"margin": margin, "recall": metrics.recall}
    text = run_table.about(measured(metrics=["recall", "my.margin"]), functions)
    assert "| `two_stage/recall_at_10` | the headline: Share of the query's relevant items" in text
    assert "| `two_stage/margin_at_10` | Euros that the first k bring in (k = 10) |" in text
    assert "ndcg" not in text


def test_names_of_folds_and_of_sources_are_foretold():
    names = measured().logged(200, ["als", "history"], folds=2)
    assert {"fold/1/two_stage/ndcg_at_10", "fold/0/queries/count", "attribution/als/shapley"} <= set(names)
    assert "fold/0/two_stage/ndcg_at_5" not in names
    assert not any(name.startswith("fold/") for name in measured().logged(200, [], folds=1))
    assert "candidates/recall_at_5" in measured(candidate_ks=[10]).logged(5, [], 1), "the budget, where it is below all depths"
    assert len(names) == len(set(names))
