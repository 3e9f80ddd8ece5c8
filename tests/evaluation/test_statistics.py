"""Intervals and tests against scipy, by hand, and in simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recsys.evaluation.statistics import (
    Interval,
    bootstrap,
    holm,
    mcnemar,
    mean_intervals,
    minimum_detectable_effect,
    paired,
    wilson,
)

DISCOUNTS = 1 / np.log2(np.arange(1, 11) + 1)
RECIPROCALS = 1 / np.arange(1, 11)


@given(n=st.integers(1, 2000), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(n: int, share: float, confidence: float):
    hits = round(share * n)
    found = wilson(hits, n, confidence)
    theirs = stats.binomtest(hits, n).proportion_ci(confidence, method="wilson")
    assert (found.value, found.low, found.high) == pytest.approx((hits / n, theirs.low, theirs.high), abs=1e-9)


def test_seven_of_158():
    found = wilson(7, 158)
    assert (round(found.low, 3), round(found.high, 3)) == (0.022, 0.089)


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_an_impossible_count(hits: int, n: int):
    with pytest.raises(ValueError, match="0 ≤ hits ≤ n"):
        wilson(hits, n)


@pytest.mark.parametrize(("hits", "n"), [(0, 40), (3, 40), (20, 40), (400, 1000)])
def test_the_bootstrap_of_zeros_and_ones_is_jeffreys(hits: int, n: int):
    [found] = bootstrap(np.repeat([1.0, 0.0], [hits, n - hits]), resamples=40_000)
    low, high = stats.beta(hits + 0.5, n - hits + 0.5).ppf([0.025, 0.975])
    assert found.high == pytest.approx(high, rel=0.04)
    assert found.low == (pytest.approx(low, rel=0.1) if hits else 0)


@pytest.mark.parametrize("values", [DISCOUNTS, RECIPROCALS], ids=["NDCG", "MRR"])
@pytest.mark.parametrize(("n", "hit_rate"), [(30, 0.1), (158, 0.05), (158, 0.02), (500, 0.02), (400, 0.3)])
def test_the_bootstrap_covers_rare_hits(values: np.ndarray, n: int, hit_rate: float):
    rng = np.random.default_rng(5)
    runs = 1500
    table = (rng.random((n, runs)) < hit_rate) * rng.choice(values, (n, runs))
    truth = hit_rate * values.mean()
    covered = np.mean([not interval.excludes(truth) for interval in bootstrap(table)])
    assert 0.93 <= covered <= 0.975  # ± the noise of so many runs


def test_wilson_covers_rates():
    rng = np.random.default_rng(6)
    rates = rng.uniform(0.01, 0.4, 4000)
    covered = [not wilson(rng.binomial(158, rate), 158).excludes(rate) for rate in rates]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_clustering_by_user_covers_where_queries_repeat_users():
    rng = np.random.default_rng(7)
    users, runs = 80, 800
    queries = rng.integers(1, 6, users)
    user = np.repeat(np.arange(users), queries)
    taste = rng.beta(0.6, 2.4, (users, runs))  # mean 0.2, and much the same for all queries of a user
    table = (rng.random((len(user), runs)) < taste[user]).astype(float)
    pooled, naive = (np.mean([not each.excludes(0.2) for each in bootstrap(table, of)]) for of in (user, None))
    assert 0.93 <= pooled <= 0.97
    assert naive < 0.9


def test_a_cluster_that_is_one_query_is_the_query_itself():
    values = np.random.default_rng(0).random(50)
    one, two = bootstrap(values)[0], bootstrap(values, np.arange(50)[::-1] * 3)[0]
    assert one.value == pytest.approx(two.value)
    assert one.low == pytest.approx(two.low, abs=0.01)


def test_nan_leaves_a_query_out_and_weights_make_a_ratio():
    missing, present = bootstrap(np.array([1.0, np.nan, 0.0, np.nan]))[0], bootstrap(np.array([1.0, 0.0]))[0]
    assert missing.value == present.value == 0.5
    [ratio] = bootstrap(np.array([1.0, 0.25]), weights=np.array([1.0, 4.0]))
    assert ratio.value == pytest.approx(2 / 5)
    assert np.isnan(bootstrap(np.array([np.nan]))[0].value)


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=30), seed=st.integers(0, 5))
def test_an_interval_holds_its_value_within_the_bounds_and_again_for_the_same_seed(values: list[float], seed: int):
    first, second = (bootstrap(values, seed=seed, resamples=200)[0] for _ in range(2))
    assert first == second
    assert 0 <= first.low <= first.value <= first.high <= 1


def test_rates_get_wilson_unless_a_user_comes_twice():
    values = np.column_stack([[1.0, 0, 0, 1], [0.5, 0, 0, 1], [3.0, 4, 5, 4]])
    rate, metric, count = mean_intervals(values)
    assert rate == wilson(2, 4)
    assert metric == bootstrap(values[:, 1])[0]
    assert count.value == 4
    assert count == bootstrap(values[:, 2], bounds=None)[0]
    assert mean_intervals(values, [1, 1, 2, 2])[0] != wilson(2, 4)


def test_two_runs_of_one_system_differ_by_chance_at_most_six_times_in_a_hundred():
    rng = np.random.default_rng(4)
    p_values, exact = [], []
    for _ in range(400):
        first, second = ((rng.random(150) < 0.15) * rng.choice(DISCOUNTS, 150) for _ in range(2))
        p_values.append(paired(first, second).p_value)
        exact.append(mcnemar(first > 0, second > 0))
    assert np.mean(np.array(p_values) <= 0.05) <= 0.06
    assert np.mean(np.array(exact) <= 0.05) <= 0.06


def test_p_values_of_users_with_several_queries_hold_their_level_where_differences_lean_to_one_side():
    """Sixty users with five queries each; most of them lose a little by the other run, and a few gain much: 0 on average."""
    rng, rejected, runs = np.random.default_rng(9), 0, 400
    user = np.repeat(np.arange(60), 5)
    for _ in range(runs):
        change = (rng.exponential(0.2, 60) - 0.2)[user] + rng.normal(0, 0.05, 300)
        first = np.full(300, 0.5) - change / 2
        found = paired(np.clip(first, 0, 1), np.clip(first + change, 0, 1), user)
        assert (found.p_value <= 0.05) == found.difference.excludes(0)
        rejected += found.p_value <= 0.05
    assert rejected / runs <= 0.06


@pytest.mark.parametrize("users", [6, 20])
def test_intervals_of_few_users_cover_where_nothing_bounds_the_values(users: int):
    rng = np.random.default_rng(10)
    table = np.repeat(rng.normal(3, 2, (users, 1500)), 3, axis=0) + rng.normal(0, 1, (3 * users, 1500))
    found = bootstrap(table, np.repeat(np.arange(users), 3), bounds=None)
    assert 0.93 <= np.mean([not each.excludes(3) for each in found]) <= 0.97


def test_a_value_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="wanted a number for every query, found nan"):
        paired([0.5, np.nan], [0.5, 0.5])


def test_a_comparison_counts_and_measures():
    found = paired([0, 0.5, 1, 0], [1, 0.5, 0.5, 0.25])
    assert (found.improved, found.worse, found.unchanged) == (2, 1, 1)
    assert found.difference.value == pytest.approx(0.75 / 4)
    assert found.mde == minimum_detectable_effect(found.difference)
    euros = paired([0, 50, 100, 0], [100, 50, 50, 25])
    assert euros.difference.value == pytest.approx(100 * found.difference.value)
    assert euros.difference.low < -20 < 60 < euros.difference.high, "nothing bounds what may leave [0, 1]"
    back = paired([1, 0.5, 0.5, 0.25], [0, 0.5, 1, 0])
    assert (back.difference.value, back.p_value) == (pytest.approx(-0.75 / 4), pytest.approx(found.p_value, abs=0.03))


def test_the_same_users_in_every_fold_are_one_piece_of_evidence():
    change = np.zeros(40)
    change[:8] = 1
    alone, thrice = paired(np.zeros(40), change), paired(np.zeros(120), np.tile(change, 3), np.tile(np.arange(40), 3))
    assert thrice.p_value == pytest.approx(alone.p_value, abs=0.001)
    assert thrice.difference.high == pytest.approx(alone.difference.high, abs=0.02)


def test_runs_over_other_queries_are_refused():
    with pytest.raises(ValueError, match="same queries"):
        paired([0, 1], [0])


@given(gained=st.integers(0, 30), lost=st.integers(0, 30))
def test_mcnemar_is_the_binomial_test_of_those_that_changed(gained: int, lost: int):
    first = np.repeat([False, True, True], [gained, lost, 5])
    second = np.repeat([True, False, True], [gained, lost, 5])
    wanted = min(1.0, 2 * stats.binom.cdf(min(gained, lost), gained + lost, 0.5)) if gained + lost else 1
    assert mcnemar(first, second) == pytest.approx(wanted)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_the_minimum_detectable_effect_is_found_four_times_out_of_five():
    rng = np.random.default_rng(8)
    spread, n = 0.3, 400
    half = 1.96 * spread / np.sqrt(n)
    effect = minimum_detectable_effect(Interval(0, -half, half))
    assert effect == pytest.approx(2.8 * spread / np.sqrt(n), rel=0.01)
    found = [stats.ttest_1samp(rng.normal(effect, spread, n), 0).pvalue < 0.05 for _ in range(1000)]
    assert 0.76 <= np.mean(found) <= 0.84
