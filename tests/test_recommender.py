from pathlib import Path

import numpy as np
import pytest
import yaml

from recsys.datasets import Dataset
from recsys.datasets.synthetic import Synthetic
from recsys.errors import DataError, NotFittedError
from recsys.features import FeatureSet, Item, Source, User, UserItem
from recsys.ranking import LambdaRank, RetrievalOrder
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import ALS, History
from recsys.shop.catalogue import Catalogue
from recsys.shop.events import EventLog
from recsys.shop.shop import Shop
from recsys.shop.splits import Split

SPLIT = Split(cutoff="2015-08-15", horizon="28d", label_cutoffs=2)


def two_stages(ranker: object = None) -> TwoStageRecommender:
    families = {"source": Source(), "user_item": UserItem(), "item": Item(), "user": User()}
    return TwoStageRecommender(
        ALS(factors=8, iterations=3, threads=1),
        FeatureSet(families=list(families), definitions=families),
        ranker or LambdaRank(trees=20, min_data_in_leaf=5, threads=1),
        candidates=50,
    )


def fitted(log: EventLog, catalogue: Catalogue) -> TwoStageRecommender:
    fold = SPLIT.fold(Shop.of(log))
    labels = [SPLIT.label_task(Shop.of(log), window) for window in fold.labels]
    return two_stages().fit(Shop.of(log, catalogue), fold.test.cutoff, labels)


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return Synthetic(scale=0.01, seed=3).load()


@pytest.fixture(scope="module")
def model(shop: Dataset) -> TwoStageRecommender:
    return fitted(shop.log, shop.catalogue)


@pytest.fixture(scope="module")
def users(shop: Dataset) -> np.ndarray:
    return np.asarray(shop.before(SPLIT.fold(shop).test.cutoff).log.users.ids[:300])


def scrambled(log: EventLog, cutoff: int) -> EventLog:
    """The same past; after the cutoff other users do other things with other items, some of them new."""
    rng = np.random.default_rng(1)
    past = int(np.searchsorted(log.time, cutoff))
    future = len(log) - past
    users = np.r_[log.users.ids[log.user[:past]], rng.choice(np.r_[log.users.ids, 10**9 + np.arange(99)], future)]
    items = np.r_[log.items.ids[log.item[:past]], rng.choice(np.r_[log.items.ids, 10**9 + np.arange(99)], future)]
    kinds = np.r_[log.kind[:past], rng.integers(0, len(log.kinds), future)]
    times = np.r_[log.time[:past], rng.integers(cutoff, log.time[-1], future)]
    known = log.item_born < cutoff
    return EventLog.build(users, items, kinds, times, log.items.ids[known], log.item_born[known])


def test_scrambling_all_events_after_the_cutoff_changes_no_bit(
    shop: Dataset, model: TwoStageRecommender, users: np.ndarray, tmp_path: Path
):
    cutoff = SPLIT.fold(shop).test.cutoff
    log = scrambled(shop.log, cutoff)
    assert log.fingerprint != shop.log.fingerprint
    past = shop.before(cutoff).catalogue
    other = fitted(log, past)
    mine, theirs = (each.pool(each.queries(users)) for each in (model, other))
    for name in ("indptr", "item", "rank", "score", "fusion"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    np.testing.assert_array_equal(
        model.describe(mine, model.queries(users)).values, other.describe(theirs, other.queries(users)).values
    )
    model.save(tmp_path / "mine")
    other.save(tmp_path / "theirs")
    for path in sorted((tmp_path / "mine").rglob("*")):
        if path.suffix in (".txt", ".yaml"):
            assert path.read_bytes() == (tmp_path / "theirs" / path.relative_to(tmp_path / "mine")).read_bytes()
    np.testing.assert_array_equal(model.recommend(users).item, other.recommend(users).item)
    np.testing.assert_array_equal(model.recommend(users).score, other.recommend(users).score)


def test_the_model_does_depend_on_the_past(shop: Dataset, model: TwoStageRecommender, users: np.ndarray):
    """Without this, the test above would pass for a model that looks at nothing."""
    cutoff = SPLIT.fold(shop).test.cutoff
    other = fitted(scrambled(shop.log, cutoff - 86_400_000), shop.catalogue)
    assert (model.recommend(users).item != other.recommend(users).item).any()


def test_a_loaded_model_recommends_the_same(model: TwoStageRecommender, users: np.ndarray, tmp_path: Path):
    model.save(tmp_path / "model")
    loaded = TwoStageRecommender.load(tmp_path / "model")
    expected, got = model.recommend(users, 20), loaded.recommend(users, 20)
    np.testing.assert_array_equal(got.item, expected.item)
    np.testing.assert_array_equal(got.score, expected.score)


def test_lists_are_of_known_items_without_repeats(shop: Dataset, model: TwoStageRecommender, users: np.ndarray):
    lists = model.recommend(users, 20).item
    known = set(shop.before(model.cutoff).log.items.ids.tolist())
    for row in lists:
        proposed = [item for item in row if item is not None]
        assert set(proposed) <= known
        assert len(set(proposed)) == len(proposed)
        assert row.tolist() == proposed + [None] * (20 - len(proposed))


def test_an_unknown_user_gets_an_empty_list_from_a_source_of_histories(model: TwoStageRecommender):
    assert model.recommend([-5], 3).item.tolist() == [[None, None, None]]


def test_without_a_second_stage_the_order_is_that_of_retrieval(shop: Dataset, users: np.ndarray):
    cutoff = SPLIT.fold(shop).test.cutoff
    model = TwoStageRecommender(History(), two_stages().features, RetrievalOrder()).fit(shop, cutoff)
    queries = model.queries(users)
    own = History().retrieve(queries, 5).item
    np.testing.assert_array_equal(model.rank(model.pool(queries), queries, 5).item, own)


def test_a_label_window_past_the_cutoff_is_refused(shop: Dataset):
    fold = SPLIT.fold(shop)
    label = SPLIT.label_task(shop, fold.test)
    with pytest.raises(ValueError, match="reaches past the cutoff"):
        two_stages().fit(shop, fold.test.cutoff, [label])


def test_a_ranker_that_learns_wants_label_windows(shop: Dataset):
    with pytest.raises(DataError, match=r"set split\.label_cutoffs to 1 or more, or ranker=none"):
        two_stages().fit(shop, SPLIT.fold(shop).test.cutoff)


def test_before_fit_there_is_nothing_to_recommend(tmp_path: Path):
    with pytest.raises(NotFittedError):
        two_stages().recommend([1])
    with pytest.raises(NotFittedError):
        two_stages().save(tmp_path / "model")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"wanted model\.yaml"):
        TwoStageRecommender.load(tmp_path)


def test_loading_constructs_trusted_classes_only(model: TwoStageRecommender, tmp_path: Path):
    model.save(tmp_path / "model")
    settings = tmp_path / "model" / "retriever" / "settings.yaml"
    settings.write_text(yaml.safe_dump({"_target_": "os.system", "command": "true"}))
    with pytest.raises(DataError, match=r"os\.system is not of a trusted package"):
        TwoStageRecommender.load(tmp_path / "model")
    settings.write_text(yaml.safe_dump({"_target_": "recsys.recommender.TwoStageRecommender"}))
    with pytest.raises(DataError, match="is not a recsys Component"):
        TwoStageRecommender.load(tmp_path / "model")


def test_saving_replaces_a_model_whole(model: TwoStageRecommender, tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "stale.txt").write_text("of an older version")
    model.save(folder)
    assert not (folder / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
