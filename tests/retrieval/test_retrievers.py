"""What every retriever of conf/retriever/ has to keep to, whatever it does."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from logs import BUY, log_of
from omegaconf import OmegaConf

from recsys.component import construct
from recsys.datasets.base import Dataset, Funnel
from recsys.datasets.retailrocket import from_frames
from recsys.datasets.simulation import Simulated, simulate
from recsys.retrieval import Retriever
from recsys.shop.events import EventLog
from recsys.shop.pairs import pair_key
from recsys.shop.pools import Ranking
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop

CONF = Path(__file__).parents[2] / "conf"
K = 30
DAY = 86_400_000
SMALL = {"threads": 1, "factors": 8, "iterations": 3}
"""Enough to see that the contract holds."""
LEARNING = ["retriever.budget=learn", "retriever.fusion=learned", "retriever.learn_candidates=40", "retriever.depth=60"]
CASES = {path.stem: [f"retriever={path.stem}"] for path in sorted((CONF / "retriever").glob("*.yaml"))}
CASES |= {"hybrid, learned": ["retriever=hybrid", *LEARNING], "als, bm25": ["retriever=als", "retriever.confidence=bm25"]}
CASES |= {"hybrid, quotas": ["retriever=hybrid", "retriever.quotas={history: 5, als: 10}"]}


def settings_of(case: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=CASES[case])
    settings = OmegaConf.to_container(config.retriever, resolve=True)
    for part in (settings, *settings.get("definitions", {}).values()):
        part.update({name: value for name, value in SMALL.items() if name in part})
    return settings


@pytest.fixture(scope="module", params=CASES)
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return settings_of(request.param)


def test_every_source_speaks_for_something_but_chance(settings: dict[str, Any]) -> None:
    spoken = construct(settings).speakers()
    assert spoken
    assert all(bool(codes) == (name != "random") for name, codes in spoken.items())


@pytest.fixture(scope="module")
def shop() -> Simulated:
    return simulate(0.002, seed=3)


@pytest.fixture(scope="module")
def dataset(shop: Simulated) -> Dataset:
    return dataset_of(shop)


@pytest.fixture(scope="module")
def cutoff(dataset: Dataset) -> int:
    return int(np.quantile(dataset.log.time, 0.7))


@pytest.fixture(scope="module")
def queries(dataset: Dataset, cutoff: int) -> Queries:
    """All users who touched two items, one who touched one, and a visitor that nobody knows."""
    past = dataset.before(cutoff).log
    pairs = np.unique(pair_key(past.user, past.item))
    touched = np.bincount(pairs >> 32, minlength=past.n_users)
    users = np.concatenate([np.flatnonzero(touched > 1)[:150], np.flatnonzero(touched == 1)[:1], [-1]])
    return Queries.at(past, users.astype(np.int32), cutoff)


@pytest.fixture(scope="module")
def fitted(settings: dict[str, Any], dataset: Dataset, cutoff: int) -> Retriever:
    return fit(settings, dataset, cutoff)


@pytest.fixture(scope="module")
def ranking(fitted: Retriever, queries: Queries) -> Ranking:
    return fitted.retrieve(queries, K)


def dataset_of(shop: Simulated) -> Dataset:
    return from_frames(shop.events, shop.properties, shop.tree, name="shop", source="shop", funnel=Funnel())


def fit(settings: dict[str, Any], dataset: Dataset, cutoff: int) -> Retriever:
    retriever = construct(settings, "retriever")
    retriever.fit(dataset.before(cutoff))
    return retriever


def small_log(user: list[int], item: list[int]) -> EventLog:
    return log_of([(u, i, BUY, day) for day, (u, i) in enumerate(zip(user, item, strict=True))], DAY)


def well_formed(ranking: Ranking, n_queries: int, k: int) -> None:
    assert ranking.item.shape == ranking.score.shape == (n_queries, k)
    assert (ranking.item.dtype, ranking.score.dtype) == (np.int32, np.float32)
    filled = ranking.item >= 0
    np.testing.assert_array_equal(filled, np.arange(k) < ranking.length[:, None], err_msg="padding comes last")
    assert np.isfinite(ranking.score[filled]).all()
    assert (ranking.score[~filled] == -np.inf).all()
    row, place = np.nonzero(filled)
    key = pair_key(row, ranking.item[row, place])
    assert len(np.unique(key)) == len(key), "an item stands twice in a list"
    both = filled[:, 1:]
    better, worse = ranking.score[:, :-1][both], ranking.score[:, 1:][both]
    assert (better >= worse).all(), "scores descend"
    ascending = ranking.item[:, :-1][both] < ranking.item[:, 1:][both]
    assert ascending[better == worse].all(), "ties stand by item number"


def same(a: Ranking, b: Ranking) -> None:
    np.testing.assert_array_equal(a.item, b.item)
    np.testing.assert_array_equal(a.score, b.score)


def test_lists_are_well_formed(ranking: Ranking, queries: Queries, dataset: Dataset, cutoff: int) -> None:
    well_formed(ranking, len(queries), K)
    assert ranking.item.max() < dataset.before(cutoff).catalogue.n_items
    assert (ranking.length > 0).mean() > 0.5, "hardly a list has an item"


def test_a_shorter_list_is_the_beginning_of_a_longer_one(fitted: Retriever, ranking: Ranking, queries: Queries) -> None:
    np.testing.assert_array_equal(fitted.retrieve(queries, 7).item, ranking.item[:, :7])


def test_a_pool_holds_the_lists_with_their_evidence(fitted: Retriever, ranking: Ranking, queries: Queries) -> None:
    pool = fitted.pool(queries, K)
    assert pool.n_queries == len(queries)
    assert ((pool.rank > 0).any(axis=0)).all(), "a candidate that no source proposed"
    np.testing.assert_array_equal(pool.rank > 0, np.isfinite(pool.score))
    np.testing.assert_array_equal(pool.retrieved(K).item, ranking.item)


def test_the_same_from_a_fresh_object(
    settings: dict[str, Any], ranking: Ranking, queries: Queries, dataset: Dataset, cutoff: int
) -> None:
    same(fit(settings, dataset, cutoff).retrieve(queries, K), ranking)


def test_a_later_cutoff_goes_on_from_an_earlier_one(
    settings: dict[str, Any], fitted: Retriever, ranking: Ranking, queries: Queries, dataset: Dataset, cutoff: int
) -> None:
    """What it has learned saves work, and changes neither what comes of it nor the earlier one."""
    later = int(np.quantile(dataset.log.time, 0.8))
    for earlier, at in ((fitted, later), (fit(settings, dataset, later), cutoff)):
        before = {name: array.copy() for name, array in earlier.state().items()}
        gone_on, fresh = earlier.twin(), fit(settings, dataset, at)
        gone_on.fit(dataset.before(at))
        asked = Queries.at(dataset.before(at).log, queries.user, at)
        same(gone_on.retrieve(asked, K), fresh.retrieve(asked, K))
        for name, array in earlier.state().items():
            np.testing.assert_array_equal(before[name], array, err_msg=name)
    same(fitted.retrieve(queries, K), ranking)


def test_one_by_one_as_in_a_batch(fitted: Retriever, ranking: Ranking, queries: Queries) -> None:
    last = len(queries) - 1
    for row in (last, last - 1, 3, 0):
        alone = fitted.retrieve(queries.take(np.array([row])), K)
        np.testing.assert_array_equal(alone.item[0], ranking.item[row])
        np.testing.assert_allclose(alone.score[0], ranking.score[row], rtol=1e-4)


def test_the_same_after_save_and_open(fitted: Retriever, ranking: Ranking, queries: Queries, tmp_path: Path) -> None:
    fitted.save(tmp_path / "retriever")
    same(Retriever.open(tmp_path / "retriever").retrieve(queries, K), ranking)


def test_no_query(fitted: Retriever, queries: Queries) -> None:
    nobody = queries.take(np.empty(0, dtype=np.int64))
    well_formed(fitted.retrieve(nobody, K), 0, K)
    assert len(fitted.pool(nobody, K)) == 0


def test_items_that_are_new_since_the_fit_are_passed_over(
    fitted: Retriever, queries: Queries, dataset: Dataset, cutoff: int
) -> None:
    unknown = dataset.before(cutoff).catalogue.n_items + 5
    item = np.where(np.arange(len(queries.item)) % 2 == 0, unknown, queries.item).astype(np.int32)
    later = Queries(queries.user, queries.time, queries.indptr, item, queries.kind, queries.event_time, queries.kinds)
    well_formed(fitted.retrieve(later, K), len(queries), K)


@pytest.mark.parametrize("events", [([], []), ([1], [1]), ([1, 2, 3], [1, 1, 1]), ([1, 1, 2], [1, 2, 3])])
def test_a_log_with_hardly_an_event(settings: dict[str, Any], events: tuple[list[int], list[int]]) -> None:
    log = small_log(*events)
    retriever = construct(settings, "retriever")
    retriever.fit(Shop.of(log))
    queries = Queries.at(log, np.array([-1, *range(log.n_users)], dtype=np.int32), 10 * DAY)
    ranking = retriever.retrieve(queries, 4)
    well_formed(ranking, len(queries), 4)
    assert ranking.item.max(initial=-1) < log.n_items


@pytest.mark.parametrize("policy", ["drop_bought", "drop_touched"])
def test_seen_items_as_the_policy_says(
    settings: dict[str, Any], policy: str, queries: Queries, dataset: Dataset, cutoff: int
) -> None:
    ranking = fit({**settings, "seen": policy}, dataset, cutoff).retrieve(queries, K)
    well_formed(ranking, len(queries), K)
    gone = queries.has_role("purchase") if policy == "drop_bought" else np.full(len(queries.kind), True)
    row, place = np.nonzero(ranking.item >= 0)
    assert not np.isin(pair_key(row, ranking.item[row, place]), pair_key(queries.row[gone], queries.item[gone])).any()


def test_the_future_is_out_of_reach(
    settings: dict[str, Any], fitted: Retriever, ranking: Ranking, queries: Queries, shop: Simulated, cutoff: int
) -> None:
    """Events and property changes at and after the cutoff are scrambled: nothing before it may move by a digit."""
    poisoned = dataset_of(
        Simulated(
            scrambled(shop.events, cutoff, "visitorid", "itemid", "event"),
            scrambled(shop.properties, cutoff, "itemid", "value"),
            shop.tree,
        )
    )
    past = poisoned.before(cutoff).log
    retriever = fit(settings, poisoned, cutoff)
    same(retriever.retrieve(Queries.at(past, queries.user, cutoff), K), ranking)
    before, after = fitted.state(), retriever.state()
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


def scrambled(frame: pd.DataFrame, cutoff: int, *columns: str) -> pd.DataFrame:
    frame = frame.copy()
    late = np.flatnonzero(frame["timestamp"].to_numpy() >= cutoff)
    assert len(late) > 20
    rng = np.random.default_rng(1)
    for column in columns:
        values = frame[column].to_numpy(copy=True)
        values[late] = values[rng.choice(late, len(late))]
        frame[column] = values
    return frame
