import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys import cache as cache_module
from recsys.cache import NoCache, StageCache
from recsys.datasets.synthetic import Synthetic
from recsys.digest import digest
from recsys.features import FeatureSet, Source, UserItem
from recsys.ranking import LambdaRank
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import Popularity
from recsys.shop.identity import Vocabulary
from recsys.shop.splits import Split
from scripts import cache as command

SPLIT = Split(cutoff=0.7, label_cutoffs=2, label_horizon="10d", label_events=["view"], target_events=["view"])
FIVE = np.arange(5, dtype=np.float32)


@pytest.fixture(scope="module")
def shop():
    return Synthetic(scale=0.003).load()


@pytest.fixture
def cache(tmp_path):
    return StageCache(folder=tmp_path / "cache")


@pytest.fixture
def fits(monkeypatch):
    """The number of events that each fit of the retriever was given."""
    seen, fit = [], Popularity.fit
    monkeypatch.setattr(Popularity, "fit", lambda self, past: (seen.append(len(past.log)), fit(self, past))[1])
    return seen


def recommended(shop, cache, candidates=30, window_days=7, half_life=7.0, leaves=7, scope=SPLIT):
    """Everything that a run makes: pool, features, scores, lists."""
    fold = scope.fold(shop)
    labels = [scope.label_task(shop, window) for window in fold.labels]
    task = scope.test_task(shop, fold.test)
    families = {"source": Source(), "user_item": UserItem(half_lives_days=[half_life])}
    model = TwoStageRecommender(
        Popularity(window_days=window_days),
        FeatureSet(families=list(families), definitions=families),
        LambdaRank(trees=8, leaves=leaves, min_data_in_leaf=5, threads=1),
        candidates,
        cache,
    ).fit(shop, fold.test.cutoff, labels)
    pool = model.pool(task.queries)
    matrix = model.describe(pool, task.queries)
    ranking = model.rank(pool, task.queries, 10)
    kept = (pool.indptr, pool.item, pool.rank, pool.score, pool.fusion, matrix.values, ranking.item, ranking.score)
    return kept, (pool.sources, matrix.names, matrix.families, matrix.values.flags.f_contiguous)


def assert_same(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert one[1] == other[1]


def test_results_are_the_same_to_the_last_digit_without_with_a_cold_and_with_a_warm_cache(shop, cache, fits):
    plain = recommended(shop, NoCache())
    assert_same(plain, recommended(shop, cache))
    assert len(fits) == 6  # two label cutoffs and the test cutoff, each time
    assert_same(plain, recommended(shop, cache))
    assert len(fits) == 6


def test_another_ranker_refits_no_retriever_and_computes_no_feature(shop, cache, fits, monkeypatch):
    recommended(shop, cache)
    monkeypatch.setattr(FeatureSet, "compute", None)
    cold, warm = len(fits), recommended(shop, cache, leaves=3)
    assert len(fits) == cold
    monkeypatch.undo()
    assert_same(warm, recommended(shop, NoCache(), leaves=3))


def test_the_saved_model_of_a_warm_run_recommends_as_the_run_did(shop, cache, tmp_path):
    fold = SPLIT.fold(shop)
    labels = [SPLIT.label_task(shop, window) for window in fold.labels]
    users = shop.log.users.ids[:20]

    def model():
        features = FeatureSet(families=["source"], definitions={"source": Source()})
        made = TwoStageRecommender(Popularity(), features, LambdaRank(trees=5, min_data_in_leaf=5, threads=1), 20, cache)
        return made.fit(shop, fold.test.cutoff, labels)

    cold = model().recommend(users)
    warm = model()
    warm.save(tmp_path / "model")
    for found in (warm.recommend(users), TwoStageRecommender.load(tmp_path / "model").recommend(users)):
        np.testing.assert_array_equal(cold.item, found.item)
        np.testing.assert_array_equal(cold.score, found.score)


@pytest.mark.parametrize(
    ("change", "refitted"),
    [
        ({"window_days": 3}, 3),
        ({"scope": replace(SPLIT, cutoff=0.75)}, 3),
        ({"candidates": 20}, 0),  # the fitted retriever serves any depth
        ({"half_life": 3.0}, 0),
        ({}, 0),
    ],
)
def test_what_a_stage_depends_on_and_nothing_else_makes_it_anew(shop, cache, fits, change, refitted):
    recommended(shop, cache)
    before = len(fits)
    assert_same(recommended(shop, cache, **change), recommended(shop, NoCache(), **change))
    assert len(fits) - before - 3 == refitted  # the three of the uncached run


def test_other_data_and_other_code_make_it_anew(shop, cache, fits, monkeypatch):
    recommended(shop, cache)
    fold = SPLIT.fold(shop)
    last = np.arange(len(shop.log)) == np.searchsorted(shop.log.time, fold.labels[0].cutoff) - 1
    other = replace(shop, log=shop.log.where(~last))
    recommended(other, cache, scope=replace(SPLIT, cutoff=np.datetime_as_string(np.datetime64(fold.test.cutoff, "ms"))))
    assert len(fits) == 6
    monkeypatch.setattr(cache_module, "code_version", lambda stage, *files: "tomorrow")
    recommended(shop, cache)
    assert len(fits) == 9


def test_the_entry_used_longest_ago_goes_when_there_is_no_room(tmp_path):
    cache = StageCache(folder=tmp_path, max_gb=3.6e-6)  # three entries of 1,000 numbers and the names
    made = []

    def entry(name):
        def make():
            made.append(name)
            return {"values": np.zeros(1000, np.int8)}

        assert cache.arrays("pool", Popularity(), lambda: name, make)["values"].shape == (1000,)
        time.sleep(0.01)

    for name in "abc" + "a" + "d" + "a":
        entry(name)
    assert made == ["a", "b", "c", "d"]
    entry("b")
    assert made == ["a", "b", "c", "d", "b"]
    assert sum(found.size for found in cache.entries()) <= 3600


def test_a_broken_entry_is_made_anew(cache):
    def ask():
        return cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": FIVE.copy()})

    ask()
    (entry,) = cache.entries()
    for broken in (b"", b"not an array"):
        (entry.path / "values.npy").write_bytes(broken)
        np.testing.assert_array_equal(ask()["values"], FIVE)
    np.testing.assert_array_equal(np.load(entry.path / "values.npy"), FIVE)


def test_a_full_or_forbidden_disk_does_no_harm(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = StageCache(folder=tmp_path / "file" / "cache")
    assert cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": FIVE})["values"] is FIVE
    assert "cannot be written" in caplog.text


def test_many_writers_of_one_entry_leave_one_and_all_get_it(cache):
    def make():
        time.sleep(0.05)
        return {"values": FIVE.copy()}

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cache.arrays("pool", Popularity(), lambda: 0, make), range(8)))
    assert all(np.array_equal(each["values"], FIVE) for each in found)
    assert len(cache.entries()) == 1
    assert len(list(cache.folder.iterdir())) == 1


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from recsys import cache
from recsys.retrieval import Popularity
def slowly(arrays, folder):
    np.save(folder / "values.npy", arrays["values"])
    print("half", flush=True)
    time.sleep(60)
cache._write_arrays = slowly
store = cache.StageCache(folder=Path(sys.argv[1]))
store.arrays("pool", Popularity(), lambda: 0, lambda: {"values": np.arange(5)})
"""


def test_a_killed_writer_leaves_no_half_entry_and_its_draft_is_removed_later(cache):
    worker = subprocess.Popen([sys.executable, "-c", KILLED, str(cache.folder)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "half\n"
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert cache.entries() == []
    (draft,) = cache.folder.iterdir()
    os.utime(draft, (0, 0))
    cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": FIVE})
    assert [path.name[:5] for path in cache.folder.iterdir()] == ["pool-"]


def test_an_error_while_making_leaves_nothing(cache):
    with pytest.raises(ZeroDivisionError):
        cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": np.zeros(1 // 0)})
    assert cache.entries() == []


def test_the_command_shows_and_clears(cache, capsys):
    cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": np.zeros(2_000_000, np.int8)})
    folder = ["--folder", str(cache.folder)]
    assert command.main(["show", *folder]) == 0
    shown = {line.split()[0]: line.split()[1:3] for line in capsys.readouterr().out.splitlines()[3:]}
    assert shown.pop("dataset") == ["0", "0.0"]
    assert shown == {"retriever": ["0", "0.0"], "pool": ["1", "2.0"], "features": ["0", "0.0"], "all": ["1", "2.0"]}
    assert command.main(["clear", *folder]) == 0
    assert "Removed 1 entries" in capsys.readouterr().out
    assert list(Path(cache.folder).iterdir()) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        ([1, [2]], [[1], 2]),
        (np.zeros(2, np.int32), np.zeros(1, np.int64)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (1, "1"),
        (np.array(["a", "b"], dtype=object), np.array(["b", "a"], dtype=object)),
        ({"a": 1}, {"a": 2}),
        (Vocabulary(np.array([1, 2])), Vocabulary(np.array([2, 1]))),
    ],
)
def test_different_content_has_a_different_digest(one, other):
    assert digest(one) != digest(other)


def test_equal_content_has_an_equal_digest():
    values = np.arange(12).reshape(3, 4)
    assert digest(values) == digest(np.asfortranarray(values))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(Vocabulary(np.arange(5)).prefix(3)) == digest(Vocabulary(np.arange(3)))
