"""A query asked alone gets the answer that it gets among others, to the last bit: what is served is what the batch writes."""

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from logs import VIEW, queries_of
from omegaconf import OmegaConf

from recsys.component import construct
from recsys.datasets import Dataset
from recsys.datasets.synthetic import Synthetic
from recsys.features import FeatureSet
from recsys.ranking import Ranker
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import ALS, Retriever
from recsys.shop.pools import CandidatePool
from recsys.shop.queries import Queries
from recsys.shop.splits import Split

CONF = Path(__file__).resolve().parents[2] / "conf"
SPLIT = Split(cutoff="2015-08-15", horizon="28d", label_cutoffs=1)
SOURCES = (
    "als,bpr,category,covisitation,ease,history,item2vec,item_knn,popularity,properties,rp3beta,session_knn,slit,trending,"
    "user_knn"
)


def parts(*overrides: str) -> tuple[Retriever, FeatureSet, Ranker]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", [*overrides, "output_dir=none"]), resolve=True)
    return tuple(construct(config[name], name) for name in ("retriever", "features", "ranker"))


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return Synthetic(scale=0.01, seed=3).load()


@pytest.fixture(scope="module")
def model(shop: Dataset) -> TwoStageRecommender:
    fold = SPLIT.fold(shop)
    labels = [SPLIT.label_task(shop, window) for window in fold.labels]
    wide = parts("retriever=hybrid", f"retriever.sources=[{SOURCES}]", "features=full", "ranker.trees=20")
    return TwoStageRecommender(*wide, candidates=60).fit(shop, fold.test.cutoff, labels)


@pytest.fixture(scope="module")
def queries(shop: Dataset, model: TwoStageRecommender) -> Queries:
    busy = np.argsort(-np.bincount(model.history.user, minlength=model.history.n_users), kind="stable")[:40]
    users = model.history.users.ids[np.r_[busy, 100:120]]
    return model.queries([*users, -1])


def alone(queries: Queries) -> list[Queries]:
    return [queries.block(i, i + 1) for i in range(len(queries))]


def test_its_candidates_and_their_evidence(model: TwoStageRecommender, queries: Queries):
    together, apart = model.pool(queries), CandidatePool.concatenate([model.pool(each) for each in alone(queries)])
    for name in ("indptr", "item", "rank", "score", "fusion"):
        np.testing.assert_array_equal(getattr(together, name), getattr(apart, name), err_msg=name)


def test_its_features(model: TwoStageRecommender, queries: Queries):
    together = model.describe(model.pool(queries), queries)
    apart = np.concatenate([model.describe(model.pool(each), each).values for each in alone(queries)])
    differing = [name for i, name in enumerate(together.names) if not np.array_equal(together.values[:, i], apart[:, i], True)]
    assert not differing


def test_its_list(model: TwoStageRecommender, queries: Queries):
    together = model.rank(model.pool(queries), queries, 10)
    apart = [model.rank(model.pool(each), each, 10) for each in alone(queries)]
    np.testing.assert_array_equal(together.item, np.concatenate([each.item for each in apart]))
    np.testing.assert_array_equal(together.score, np.concatenate([each.score for each in apart]))
    assert (together.item[-1] >= 0).any(), "a visitor who is not known gets what everybody wants"


def test_als_at_any_place_among_any_number(shop: Dataset):
    retriever, _, _ = parts("retriever=als")
    cutoff = SPLIT.fold(shop).test.cutoff
    retriever.fit(shop.before(cutoff))
    history = shop.before(cutoff).log
    queries = Queries.at(history, np.arange(0, 300, dtype=np.int32), cutoff)
    together = retriever.retrieve(queries, 50)
    for first, last in ((0, 1), (3, 4), (5, 21), (8, 17), (250, 300)):
        part = retriever.retrieve(queries.block(first, last), 50)
        np.testing.assert_array_equal(part.item, together.item[first:last])
        np.testing.assert_array_equal(part.score, together.score[first:last])


def test_inner_products_are_exact_however_many_items_tie():
    """All but a few items share one vector: no margin is wide enough, and ties still go by item number."""
    rng = np.random.default_rng(0)
    factors = np.repeat(rng.normal(size=(1, 16)), 1000, axis=0).astype(np.float32)
    factors[[7, 900]] *= 2
    als = ALS(factors=16)
    als.restore({"item": np.arange(1000, dtype=np.int32), "item_factors": factors, "length": factors[:, 0]})
    history = queries_of([[(item, VIEW, 0)] for item in (3, 7, 999)], now=10)
    ranking = als.retrieve(history, 20)
    assert ranking.item.tolist() == [[7, 900, *(item for item in range(1000) if item != 7)][:20]] * 3
    exact = (als.query_vectors(history).astype(np.float64) @ factors.astype(np.float64).T).astype(np.float32)
    np.testing.assert_array_equal(ranking.score, np.take_along_axis(exact, ranking.item, axis=1))
