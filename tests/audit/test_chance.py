"""What chance gives: known answers, and few false alarms."""

import numpy as np
import pytest
from cheats import TEST, WORLD

from recsys.audit._chance import among_random, edge, hits_beyond_chance, luck, percentile
from recsys.shop.queries import Truth


def test_percentiles_worked_by_hand() -> None:
    row = np.array([0, 0, 0, 1, 1, 1, 1, 2])
    value = np.array([3.0, 1.0, 2.0, 5.0, 5.0, np.nan, 9.0, 4.0])
    assert percentile(row, value).tolist() == [1, 0, 0.5, 0.5, 0.5, 0, 1, 0.5]


def test_edge_is_the_exact_standard_score() -> None:
    row = np.repeat(np.arange(2), 3)
    auc, z = edge(row, np.array([0.0, 1, 2, 0, 1, 2]), np.array([2, 5]))
    assert auc == 1
    assert z == pytest.approx(1 / np.sqrt(2 / 6))  # percentiles 0, ½, 1 have the variance 1/6, twice


def test_one_lucky_target_is_no_finding() -> None:
    row = np.repeat(np.arange(14), 30)
    value, chosen = np.zeros(len(row)), np.arange(14) * 30
    value[[0, 35, 70]] = 1
    assert edge(row, value, chosen)[1] > 2
    assert luck(row, value, chosen) == pytest.approx(3 / 30, abs=0.05)
    value[chosen] = 1
    assert luck(row, value, chosen) < 0.0001


def test_hits_are_compared_with_the_same_truth_of_other_items() -> None:
    rows = np.arange(100)
    truth = Truth(np.arange(101), (rows * 20).astype(np.int32), np.ones(100, np.float32))
    hit, by_chance, p = hits_beyond_chance(truth.key, truth, 2000)
    assert (hit, p) == (100, pytest.approx(1 / 50_499))
    assert by_chance == pytest.approx(1, abs=0.2)  # 1 of 100 numbers of a block, 100 times
    same_list = np.sort(np.concatenate([(rows << 32) | item for item in range(0, 2000, 7)]))
    assert hits_beyond_chance(same_list, truth, 2000)[2] > 0.01


def test_chance_raises_few_false_alarms() -> None:
    draw = np.random.default_rng(5)
    p = []
    for seed in range(200):
        item = np.sort(draw.integers(0, 500, 80)).astype(np.int32)
        truth = Truth(np.arange(81), item, np.ones(80, np.float32))
        popular = draw.choice(500, 10, replace=False)
        keys = np.sort(np.concatenate([(np.arange(80) << 32) | i for i in popular]))
        p.append(hits_beyond_chance(keys, truth, 500, seed)[2])
    assert np.mean(np.array(p) < 0.05) <= 0.09


def test_among_random_items_each_target_stands_once() -> None:
    row, item, chosen = among_random(TEST.truth, WORLD.log.n_items, each=10)
    keys = (row << 32) | item
    assert (np.diff(keys) > 0).all()
    assert np.isin(keys[chosen], TEST.truth.key).all()
    assert np.isin(np.delete(keys, chosen), TEST.truth.key).sum() == 0
    assert len(np.unique(item[chosen])) == len(chosen)


def test_neighbours_stand_for_chance_where_numbers_tell_the_age():
    draw = np.random.default_rng(3)
    rows, n = np.arange(300), 1000
    old = np.minimum(draw.exponential(12, 300), n - 1).astype(np.int32)
    truth = Truth(np.arange(301), old, np.ones(300, np.float32))
    oldest = np.sort(np.concatenate([(rows << 32) | item for item in range(10)]))
    assert hits_beyond_chance(oldest, truth, n)[2] < 0.001
    assert hits_beyond_chance(oldest, truth, n, near=True)[2] > 0.01
    hit, by_chance, p = hits_beyond_chance(truth.key, truth, n, near=True)
    assert hit > 5 * by_chance
    assert p < 0.001


def test_what_goes_by_age_tells_no_target_from_its_neighbours():
    row, item, chosen = among_random(TEST.truth, WORLD.log.n_items, near=True)
    assert (np.diff((row << 32) | item) > 0).all()
    auc, z = edge(row, item.astype(np.float32), chosen)
    assert auc == pytest.approx(0.5, abs=0.02)
    assert abs(z) < 2
