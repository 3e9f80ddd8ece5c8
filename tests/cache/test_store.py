import errno
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

from recsys.cache import NoCache, StageCache, store
from recsys.cache import entry as entry_on_disk
from recsys.cache.code import Code
from recsys.cache.entry import CHECKSUMS, MARK, MARK_TEXT
from recsys.component import Component, component
from recsys.datasets.synthetic import Synthetic
from recsys.features import FeatureSet, Source, UserItem
from recsys.ranking import LambdaRank
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import Hybrid, Popularity
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
def test_what_a_step_depends_on_and_nothing_else_has_it_made_again(shop, cache, fits, change, refitted):
    recommended(shop, cache)
    before = len(fits)
    assert_same(recommended(shop, cache, **change), recommended(shop, NoCache(), **change))
    assert len(fits) - before - 3 == refitted  # the three of the uncached run


def test_other_data_and_other_code_have_it_made_again(shop, cache, fits, monkeypatch):
    recommended(shop, cache)
    fold = SPLIT.fold(shop)
    last = np.arange(len(shop.log)) == np.searchsorted(shop.log.time, fold.labels[0].cutoff) - 1
    other = replace(shop, log=shop.log.where(~last))
    recommended(other, cache, scope=replace(SPLIT, cutoff=np.datetime_as_string(np.datetime64(fold.test.cutoff, "ms"))))
    assert len(fits) == 6
    monkeypatch.setattr(store, "code_of", lambda *asked: Code({"recsys.retrieval.popularity": "tomorrow"}, {}))
    recommended(shop, cache)
    assert len(fits) == 9


def test_the_entry_used_longest_ago_goes_when_there_is_no_room(tmp_path):
    one = StageCache(folder=tmp_path / "one")
    one.arrays("pool", Popularity(), lambda: 0, lambda: {"values": np.zeros(1000, np.uint8)})
    room = 3 * one.entries()[0].size
    cache = StageCache(folder=tmp_path / "three", max_gb=(room + 100) / 1e9)
    made = []

    def entry(name):
        def make():
            made.append(name)
            return {"values": np.zeros(1000, np.uint8)}

        assert cache.arrays("pool", Popularity(), lambda: name, make)["values"].shape == (1000,)
        time.sleep(0.01)

    for name in "abc" + "a" + "d" + "a":
        entry(name)
    assert made == ["a", "b", "c", "d"]
    entry("b")
    assert made == ["a", "b", "c", "d", "b"]
    assert sum(found.size for found in cache.entries()) <= room + 100


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def truncated(entry):
    os.truncate(entry / "values.npy", 100)


def of_another_type(entry):
    np.save(entry / "values.npy", np.load(entry / "values.npy").view(np.int32))


def with_a_bit_flipped(entry):
    content = (entry / "values.npy").read_bytes()
    (entry / "values.npy").write_bytes(flipped(content, len(content) - 3))


def with_a_flip_in_the_names(entry):
    (entry / "names.json").write_bytes(b"\xff\xfe")


def with_a_flip_in_the_checksums(entry):
    (entry / CHECKSUMS).write_bytes(flipped((entry / CHECKSUMS).read_bytes(), 3))


def with_checksums_of_another_form(entry):
    (entry / CHECKSUMS).write_text("[1, [2]]")


def without_a_file(entry):
    (entry / "values.npy").unlink()


def with_a_folder_for_a_file(entry):
    (entry / "values.npy").unlink()
    (entry / "values.npy").mkdir()
    (entry / "values.npy" / "file").write_text("")


DAMAGES = (
    truncated,
    of_another_type,
    with_a_bit_flipped,
    with_a_flip_in_the_names,
    with_a_flip_in_the_checksums,
    with_checksums_of_another_form,
    without_a_file,
    with_a_folder_for_a_file,
)


@pytest.mark.parametrize("size", [5, 300_000])  # one that is read, one that is mapped
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_again_with_one_line_of_warning(cache, caplog, damage, size):
    made = []

    def make():
        made.append(size)
        return {"values": np.arange(size, dtype=np.float32)}

    def ask():
        np.testing.assert_array_equal(
            cache.arrays("pool", Popularity(), lambda: 0, make)["values"], np.arange(size, dtype=np.float32)
        )

    ask()
    (entry,) = cache.entries()
    damage(entry.path)
    ask()
    assert len(made) == 2
    (warning,) = caplog.messages
    assert str(entry.path) in warning
    assert "\n" not in warning
    ask()
    assert len(made) == 2


def test_an_entry_whose_content_cannot_be_unpacked_is_made_again(cache, caplog):
    def unpack(arrays):
        raise RecursionError("whatever\nelse")

    for _ in range(2):
        made = cache.packed("dataset", Popularity(), lambda: 0, lambda: 7, lambda n: {"n": np.array(n)}, unpack)
        assert made == 7
    assert caplog.messages[0].endswith("cannot be read (RecursionError: whatever) and is made again")


def test_a_large_file_is_checked_once_in_a_process(cache, monkeypatch):
    def ask():
        return cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": np.zeros(10**6)})["values"]

    ask()
    ask()
    monkeypatch.setattr(entry_on_disk, "_checksum", None)
    assert isinstance(ask().base, np.memmap)


def test_what_cannot_be_written_is_returned_all_the_same(cache, caplog):
    made = cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": np.array([object()])})
    assert made["values"].shape == (1,)
    assert "cannot be written: ValueError" in caplog.text
    assert list(cache.folder.iterdir()) == []


def test_all_of_an_entry_is_on_the_disk_before_it_takes_its_place(cache, monkeypatch):
    calls, fsync, rename = [], os.fsync, Path.rename

    def synced(descriptor):
        calls.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def renamed(path, target):
        calls.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": FIVE})
    (entry,) = cache.entries()
    *files, folder, moved, last = calls
    assert set(files) == {path.stat().st_ino for path in entry.path.iterdir()}
    assert (folder, moved, last) == (entry.path.stat().st_ino, "renamed", cache.folder.stat().st_ino)


@component
class Lookup(Popularity):
    """Reads a file besides its settings."""

    path: str | None

    def files(self):
        return None if self.path is None else (Path(self.path),)


def test_the_content_of_a_components_files_is_part_of_the_key_at_any_depth(cache, tmp_path):
    made, file = [], tmp_path / "table.csv"
    union = Hybrid(sources=["one"], definitions={"one": Lookup(path=str(file))}, fallback=[])

    def ask():
        cache.arrays("pool", union, lambda: 0, lambda: (made.append(1), {"values": FIVE})[1])

    for content, times in (("a", 1), ("a", 1), ("b", 2), ("a", 2)):
        file.write_text(content)
        ask()
        assert len(made) == times


@pytest.mark.parametrize(("trusted", "times"), [(set(), 2), ({Lookup.__module__}, 1)])
def test_a_component_of_a_package_that_is_not_trusted_is_fitted_each_time(cache, tmp_path, monkeypatch, trusted, times):
    monkeypatch.setattr(Component, "trusted", Component.trusted | trusted)
    (tmp_path / "table.csv").write_text("")
    fits = []

    def fit():
        fits.append(1)
        return Lookup(path=str(tmp_path / "table.csv"))

    for _ in range(2):
        cache.fitted("retriever", Lookup(path=str(tmp_path / "table.csv")), lambda: 0, fit)
    assert len(fits) == times


@pytest.mark.parametrize("path", [None, "gone.csv", "."])
def test_nothing_is_kept_of_a_component_whose_files_are_not_known_or_not_there(cache, path):
    for _ in range(2):
        cache.arrays("pool", Lookup(path=path), lambda: 0, lambda: {"values": FIVE})
    assert cache.entries() == []


def test_a_full_or_forbidden_disk_does_no_harm(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = StageCache(folder=tmp_path / "file" / "cache")
    assert cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": FIVE})["values"] is FIVE
    assert "cannot be written" in caplog.text


def test_a_disk_that_is_full_at_the_last_moment_leaves_nothing_and_the_result_is_there(cache, caplog, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": FIVE})["values"] is FIVE
    assert list(cache.folder.iterdir()) == []
    (warning,) = caplog.messages
    assert "No space left on device" in warning


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
cache.store._write_arrays = slowly
cache = cache.StageCache(folder=Path(sys.argv[1]))
cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": np.arange(5)})
"""


def test_a_killed_writer_leaves_no_half_entry_and_its_draft_is_removed_later(cache, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    worker = subprocess.Popen([sys.executable, str(script), str(cache.folder)], stdout=subprocess.PIPE, text=True)
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
    cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": np.zeros(2_000_000, np.uint8)})
    folder = ["--folder", str(cache.folder)]
    assert command.main(["show", *folder]) == 0
    shown = {line.split()[0]: line.split()[1:3] for line in capsys.readouterr().out.splitlines()[3:]}
    assert shown.pop("dataset") == ["0", "0.0"]
    assert shown == {"retriever": ["0", "0.0"], "pool": ["1", "2.0"], "features": ["0", "0.0"], "all": ["1", "2.0"]}
    assert command.main(["clear", *folder]) == 0
    assert "Removed 1 entries" in capsys.readouterr().out
    assert list(Path(cache.folder).iterdir()) == []


NAME = f"pool-{'0' * 32}"
DRAFT = f".{'0' * 32}"


def foreign_folder(place, name, text=None):
    """A folder with a file in it that is not the cache's, and perhaps with a mark."""
    (place / name).mkdir()
    (place / name / "photo").write_text("mine")
    if text is not None:
        (place / name / MARK).write_text(text)


def tree(folder):
    return {path.relative_to(folder): path.is_symlink() or path.is_dir() or path.read_text() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ("pool-party-photos", None),
        ("pool-party-photos", MARK_TEXT),
        (NAME, None),
        (NAME, MARK_TEXT.splitlines()[0]),  # another program's cache
        (NAME.upper(), MARK_TEXT),
        (f"{NAME}0", MARK_TEXT),
        (DRAFT, None),
        (".git", MARK_TEXT),
    ],
)
def test_what_the_cache_did_not_make_is_never_removed(tmp_path, name, mark):
    foreign_folder(tmp_path, name, mark)
    os.utime(tmp_path / name, (0, 0))
    before = tree(tmp_path)
    cache = StageCache(folder=tmp_path, max_gb=1e-9)
    cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": FIVE})
    assert cache.clear() == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", [NAME, DRAFT])
def test_links_are_neither_followed_nor_removed(tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    foreign_folder(tmp_path, "elsewhere", MARK_TEXT)
    cache = StageCache(folder=tmp_path / "cache", max_gb=1e-9)
    cache.folder.mkdir()
    (cache.folder / name).symlink_to(elsewhere)
    (cache.folder / "pool-x").symlink_to(elsewhere / "photo")
    before = tree(tmp_path)
    cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": FIVE})
    assert cache.clear() == 1
    assert tree(tmp_path) == before


def test_a_link_inside_an_entry_goes_and_what_it_points_to_stays(cache, tmp_path):
    (tmp_path / "photo").write_text("mine")
    cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": FIVE})
    (cache.entries()[0].path / "link").symlink_to(tmp_path / "photo")
    (cache.entries()[0].path / "folder").symlink_to(tmp_path)
    assert cache.clear() == 1
    assert (tmp_path / "photo").read_text() == "mine"
    assert list(cache.folder.iterdir()) == []


def test_a_foreign_folder_in_the_place_of_an_entry_is_left_alone(cache, caplog):
    def ask():
        return cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": FIVE.copy()})["values"]

    ask()
    (entry,) = cache.entries()
    cache.clear()
    foreign_folder(cache.folder, entry.path.name)
    np.testing.assert_array_equal(ask(), FIVE)
    assert (entry.path / "photo").read_text() == "mine"
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize("action", ["show", "clear"])
def test_the_command_says_in_one_line_when_the_folder_is_no_cache(tmp_path, capsys, action):
    foreign_folder(tmp_path, "pool-party-photos")
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(SystemExit) as left:
            command.main([action, "--folder", str(folder)])
        told = capsys.readouterr()
        assert (left.value.code, told.out, told.err.count("\n")) == (2, "", 1)
        assert f"{folder} is not a cache" in told.err
    assert (tmp_path / "pool-party-photos" / "photo").exists()


def test_a_cleared_cache_is_a_cache_still(cache, capsys):
    cache.arrays("pool", Popularity(), lambda: 0, lambda: {"values": FIVE})
    for count in (1, 0):
        assert command.main(["clear", "--folder", str(cache.folder)]) == 0
        assert f"Removed {count} entries" in capsys.readouterr().out
