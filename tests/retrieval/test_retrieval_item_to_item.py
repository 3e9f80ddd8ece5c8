"""Item kNN, RP3beta and EASE: against implicit, against dense formulas, by hand."""

import numpy as np
import pytest
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
from logs import BUY, VIEW, queries_of
from scipy import sparse

from recsys.component import construct
from recsys.errors import ConfigError
from recsys.retrieval import EASE, ItemKNN, RP3Beta
from recsys.retrieval.item_to_item import ItemToItem
from recsys.shop.events import MILLISECONDS_PER_DAY, EventLog
from recsys.shop.kinds import RETAIL
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop

DAY = MILLISECONDS_PER_DAY
ONE = {"view": 1.0, "cart": 1.0, "purchase": 1.0}
FLAT = {"query_weights": ONE, "recency_power": 0.0, "revisit": 0.0}


@pytest.fixture(scope="module")
def log() -> EventLog:
    """300 users with 8 events each among 60 items, of which low numbers are more popular."""
    rng = np.random.default_rng(5)
    n = 2400
    item = np.minimum(rng.exponential(12, n), 59).astype(np.int64)
    kind = rng.choice(RETAIL.names, n, p=[0.7, 0.2, 0.1])
    return EventLog.build(np.arange(n) % 300, item, kind, rng.permutation(n).astype(np.int64) * (DAY // 100))


def fitted(retriever: ItemToItem, log: EventLog) -> ItemToItem:
    retriever.fit(Shop.of(log))
    return retriever


def everyone(log: EventLog) -> Queries:
    return Queries.at(log, np.arange(log.n_users, dtype=np.int32), int(log.time[-1]) + DAY)


def signals(log: EventLog, weights: dict[str, float]) -> np.ndarray:
    x = np.zeros((log.n_users, log.n_items))
    np.add.at(x, (log.user, log.item), log.weigh(weights))
    return x


@pytest.mark.parametrize(
    ("similarity", "peer"),
    [("cosine", CosineRecommender(K=20)), ("tfidf", TFIDFRecommender(K=20)), ("bm25", BM25Recommender(K=20, K1=1.2, B=0.75))],
)
def test_item_knn_scores_as_implicit_recommends(log: EventLog, similarity, peer) -> None:
    weights = {"view": 1.0, "cart": 3.0, "purchase": 5.0}
    x = sparse.csr_matrix(signals(log, weights))
    peer.fit(x, show_progress=False)
    retriever = fitted(
        ItemKNN(similarity=similarity, neighbours=20, weights=weights, **(FLAT | {"query_weights": weights})), log
    )
    ranking = retriever.retrieve(everyone(log), 10)
    for user in range(0, log.n_users, 7):
        _, scores = peer.recommend(user, x[user], N=10, filter_already_liked_items=False)
        np.testing.assert_allclose(ranking.score[user], scores, rtol=1e-4)


def test_rp3beta_is_the_dense_formula(log: EventLog) -> None:
    weights = {"view": 1.0, "purchase": 2.0}
    retriever = fitted(RP3Beta(alpha=0.7, beta=0.3, neighbours=60, weights=weights), log)
    x = signals(log, weights)
    x = x[:, : log.n_items]
    with np.errstate(invalid="ignore", divide="ignore"):
        p_iu = np.nan_to_num(x.T / x.sum(axis=0)[:, None])
        p_ui = np.nan_to_num(x / x.sum(axis=1, keepdims=True))
        expected = np.nan_to_num((p_iu**0.7) @ (p_ui**0.7) * x.sum(axis=0) ** -0.3, posinf=0)
    np.testing.assert_allclose(retriever.matrix.matrix(log.n_items).toarray(), expected, rtol=1e-5)


def test_ease_is_the_ridge_regression_of_each_item_on_the_others(log: EventLog) -> None:
    """Column b solves min ‖X_b − X_−b w‖² + λ‖w‖², which is written down here as it stands."""
    retriever = fitted(EASE(regularization=7.0, neighbours=60, weights=ONE, min_users=1), log)
    x = np.minimum(signals(log, ONE), 1)
    model = retriever.matrix.matrix(log.n_items).toarray()
    for b in (0, 3, 17):
        others = [i for i in range(log.n_items) if i != b]
        design = x[:, others]
        w = np.linalg.solve(design.T @ design + 7.0 * np.eye(len(others)), design.T @ x[:, b])
        np.testing.assert_allclose(model[others, b], w, rtol=1e-3, atol=1e-6)
        assert model[b, b] == 0


def test_ease_covers_the_most_used_items_and_keeps_the_greatest_weights(log: EventLog) -> None:
    whole = fitted(EASE(neighbours=60, max_items=10, weights=ONE), log).matrix.matrix(log.n_items).toarray()
    users = (signals(log, ONE) > 0).sum(axis=0)
    used = sorted(sorted(range(log.n_items), key=lambda i: (-users[i], i))[:10])
    assert np.flatnonzero(np.abs(whole).sum(axis=1)).tolist() == used
    kept = fitted(EASE(neighbours=3, max_items=10, weights=ONE), log).matrix.matrix(log.n_items).toarray()
    for row in used:
        strongest = np.sort(np.argsort(-np.abs(whole[row]), kind="stable")[:3])
        assert np.flatnonzero(kept[row]).tolist() == strongest.tolist()
        np.testing.assert_array_equal(kept[row, strongest], whole[row, strongest])


def test_ease_beyond_its_memory_bound_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"retriever.max_items.*30000.*found 30001"):
        construct({"_target_": "recsys.retrieval.EASE", "max_items": 30_001}, "retriever")


class TestInterest:
    def history(self) -> Queries:
        """One query: item 0 viewed and, a day later, bought in a basket with 1; item 2 viewed another day later."""
        return queries_of([[(0, VIEW, 0), (0, BUY, DAY), (1, BUY, DAY), (2, VIEW, 2 * DAY)]], now=3 * DAY)

    def test_kinds_and_places_by_hand(self) -> None:
        retriever = RP3Beta(query_weights={"view": 1.0, "purchase": 4.0}, recency_power=1.0)
        interest = retriever.interest(self.history())
        assert interest.item.tolist() == [0, 1, 2]
        np.testing.assert_allclose(interest.weight, [5 / 2, 4 / 2, 1])

    def test_age_by_hand(self) -> None:
        retriever = RP3Beta(query_weights=ONE, recency_power=0.0, query_half_life_days=1.0)
        np.testing.assert_allclose(retriever.interest(self.history()).weight, [1 / 8 + 1 / 4, 1 / 4, 1 / 2])

    def test_only_the_newest_items_are_asked(self) -> None:
        assert RP3Beta(query_items=2).interest(self.history()).item.tolist() == [0, 2]

    def test_a_kind_without_weight_has_no_interest(self) -> None:
        assert RP3Beta(query_weights={"purchase": 1.0}).interest(self.history()).item.tolist() == [0, 1]


def test_revisit_is_what_an_item_points_to_itself(log: EventLog) -> None:
    queries = everyone(log)
    plain, revisited = (fitted(EASE(**(FLAT | {"revisit": r})), log) for r in (0.0, 9.0))
    assert not np.array_equal(plain.retrieve(queries, 3).item, revisited.retrieve(queries, 3).item)
    top = revisited.retrieve(queries, 1).item[:, 0]
    own = [top[q] in queries.item[queries.indptr[q] : queries.indptr[q + 1]] for q in range(len(queries))]
    assert np.mean(own) == 1
