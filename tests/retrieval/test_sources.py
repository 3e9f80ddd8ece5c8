"""Single retrievers on shops small enough to work out by hand, or against the library that they stand on."""

import numpy as np
import pandas as pd
import pytest
from implicit.nearest_neighbours import bm25_weight
from logs import BUY, VIEW
from logs import log_of as logged
from scipy import sparse

from recsys.datasets.synthetic import Synthetic
from recsys.retrieval import ALS, Category, Item2Vec, Properties, Retriever, Trending
from recsys.shop.catalogue import Catalogue, CategoryTree
from recsys.shop.events import EventLog
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop

DAY = 86_400_000


def log_of(*events: tuple[int, int, str, float]) -> EventLog:
    """From (user, item, kind, day); items get their numbers in order of first appearance."""
    return logged(events, DAY)


def catalogue_of(log: EventLog, tree: CategoryTree | None = None, **of_item: list[str | None]) -> Catalogue:
    """Properties of items 0, 1, … (own ids), all known from the beginning."""
    rows = [(i, 0, name, text) for name, texts in of_item.items() for i, text in enumerate(texts) if text is not None]
    changes = pd.DataFrame(rows, columns=["item", "time", "property", "value"])
    return Catalogue.build(log.items, log.item_born, changes, tree, category="category" if "category" in of_item else None)


def proposed(retriever: Retriever, log: EventLog, user: int, day: float, k: int = 10) -> dict[int, float]:
    """Own id and score of what is proposed to a user (own id), best first."""
    ranking = retriever.retrieve(Queries.at(log, log.users.numbers([user]), round(day * DAY)), k)
    return {int(log.items.ids[i]): float(s) for i, s in zip(ranking.item[0], ranking.score[0], strict=True) if i >= 0}


@pytest.fixture(scope="module")
def shop() -> EventLog:
    return Synthetic(scale=0.002).load().log


class TestALS:
    def model(self, **options: object) -> ALS:
        return ALS(factors=8, iterations=3, threads=1, **options)

    def test_bm25_is_implicits(self, shop: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []
        model = self.model(confidence="bm25", min_user_items=1, k1=1.5, b=0.6, weights={"view": 1, "cart": 3, "purchase": 5})
        confidence = model._confidence
        monkeypatch.setattr(model, "_confidence", lambda *args: seen.append((*args, confidence(*args))) or seen[-1][-1])
        model.fit(Shop.of(shop))
        row, column, weight, _, result = seen[0]
        oracle = sparse.csr_matrix(bm25_weight(sparse.csr_matrix((weight, (column, row))), K1=1.5, B=0.6).T)
        np.testing.assert_allclose(np.asarray(oracle[row, column]).ravel(), result, rtol=1e-5)

    def test_a_half_life_halves_the_confidence(self) -> None:
        log = log_of((1, 0, BUY, 0), (1, 1, BUY, 10), (2, 0, BUY, 10), (2, 1, BUY, 10))
        weight = self.model(half_life_days=10)._weight(log, 10 * DAY)
        assert weight.tolist() == [2.5, 5, 5, 5]

    def test_shared_iterations_end_near_those_that_see_all(self, shop: EventLog) -> None:
        """Both minimise the same loss: after as many iterations the query scores agree as far as those of two seeds do."""
        catalogue = Catalogue.empty(shop.items, shop.item_born)
        models = [ALS(factors=8, iterations=40, threads=1, **how) for how in ({}, {"shared": 0.5}, {"seed": 5})]
        queries = Queries.at(shop, np.arange(300, dtype=np.int32), int(shop.time[-1]) + 1)
        scores = []
        for model in models:
            model.fit(Shop.of(shop, catalogue))
            scores.append(model.query_vectors(queries) @ model.item_factors.T)
        apart = [np.linalg.norm(scores[0] - each) / np.linalg.norm(scores[0]) for each in scores[1:]]
        assert 0 < apart[0] < 1.5 * apart[1]

    def test_shared_iterations_are_made_once(self, shop: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
        made = []
        factorise = ALS._factorise
        monkeypatch.setattr(ALS, "_factorise", lambda self, log, n, start: made.append(n) or factorise(self, log, n, start))
        model = ALS(factors=8, iterations=10, shared=0.7, threads=1)
        for n in (len(shop) - 1, len(shop)):
            log = Shop.of(shop).before(int(shop.time[n - 1]) + 1).log
            model.fit(Shop.of(log))
        assert made == [7, 3, 3]


class TestItem2Vec:
    def test_items_of_one_kind_of_user_lie_together(self) -> None:
        """Two crowds that never meet: each is proposed its own items, and none of the other's."""
        events = [(u, 10 * (u % 2) + (u + step) % 6, VIEW, step) for u in range(40) for step in range(6)]
        log = log_of(*events)
        model = Item2Vec(factors=4)
        model.fit(Shop.of(log))
        score = proposed(model, log, user=1, day=7, k=12)
        own, other = [score[10 + i] for i in range(6)], [score[i] for i in range(6)]
        assert min(own) > 0.5 > 0.1 > max(np.abs(other))

    def test_mutual_information_worked_by_hand(self) -> None:
        # Pairs: (0, 1) twice and (1, 2) once, both ways round; n(0) = 2, n(1) = 3, n(2) = 1 of 6.
        log = log_of((1, 0, VIEW, 0), (1, 1, VIEW, 1), (2, 0, VIEW, 0), (2, 1, VIEW, 1), (3, 1, VIEW, 0), (3, 2, VIEW, 1))
        model = Item2Vec(window=1, smoothing=1.0, min_count=1)
        model.item = np.arange(3, dtype=np.int32)
        pmi = model._pairs(log).toarray()
        expected = np.zeros((3, 3))
        expected[0, 1] = expected[1, 0] = np.log(2 * 6 / (2 * 3))
        expected[1, 2] = expected[2, 1] = np.log(1 * 6 / (3 * 1))
        np.testing.assert_allclose(pmi, expected)

    def test_pairs_count_as_windows_of_random_size_have_them(self) -> None:
        """0 1 0 1: three neighbours, nothing two apart, one pair three apart, in 2 of 4 windows: n(0, 1) = 3.5."""
        others = (2, 0, VIEW, 0), (2, 2, VIEW, 1), (3, 1, VIEW, 0), (3, 2, VIEW, 1)
        log = log_of(*((1, step % 2, VIEW, step) for step in range(4)), *others)
        model = Item2Vec(window=4, smoothing=1.0, min_count=1)
        model.item = np.arange(3, dtype=np.int32)
        assert model._pairs(log)[0, 1] == pytest.approx(np.log(3.5 * 11 / (4.5 * 4.5)))
        assert model._pairs(log)[0, 2] == pytest.approx(np.log(1 * 11 / (4.5 * 2)))


class TestTrending:
    def test_ratio_worked_by_hand(self) -> None:
        rising = [(u, 0, VIEW, 29.5) for u in range(6)]
        steady = [(u, 1, VIEW, day + 0.5) for u, day in enumerate(range(30))]
        log = log_of(*steady, *rising)
        model = Trending(window_days=2, before_days=20, smoothing=1.0, weights={"view": 1.0})
        model.fit(Shop.of(log))
        # The windows end just after the last event, at day 29.5: two days hold 2 steady views, the 20 before them 20.
        assert proposed(model, log, 0, 30) == pytest.approx({0: 6 / (0 + 1), 1: 2 / (20 * 2 / 20 + 1)})


class TestCategory:
    tree = CategoryTree.build(["shoes", "boots", "sandals", "hats"], [None, "shoes", "shoes", None])

    def test_shares_worked_by_hand(self) -> None:
        # Items 0 and 1 are boots with 2 and 1 views, 2 is a sandal with 1, 3 a hat with 4.
        log = log_of(*((9, i, VIEW, 1) for i in (0, 0, 1, 2, 3, 3, 3, 3)))
        catalogue = catalogue_of(log, self.tree, category=["boots", "boots", "sandals", "hats"])
        model = Category(level_decay=0.5, half_life_days=1000, weights={"view": 1.0}, levels=2)
        model.fit(Shop.of(log, catalogue))
        queries = Queries.at(log_of((1, 0, VIEW, 1)), np.array([0], np.int32), 2 * DAY)
        ranking = model.retrieve(queries, 5)
        assert ranking.item.tolist() == [[0, 1, 2, -1, -1]]
        np.testing.assert_allclose(ranking.score[0, :3], [2 / 3 + 0.5 * 2 / 4, 1 / 3 + 0.5 * 1 / 4, 0.5 * 1 / 4], rtol=1e-6)

    def test_recent_events_count_more(self) -> None:
        log = log_of((1, 0, VIEW, 0), (2, 0, VIEW, 0), (3, 1, VIEW, 20))
        model = Category(half_life_days=10, levels=1, weights={"view": 1.0})
        model.fit(Shop.of(log, catalogue_of(log, category=["a", "a"])))
        assert proposed(model, log, 1, 30) == pytest.approx({0: 0.5 / 1.5, 1: 1 / 1.5})


class TestProperties:
    def test_cosine_worked_by_hand(self) -> None:
        # Of 4 items, "red" is held by 3, "wool" by 2, "felt" by 1 (no pair: it is left out).
        log = log_of(*((u, u, VIEW, 0) for u in range(4)))
        catalogue = catalogue_of(log, name=["red wool", "wool red", "red felt", None])
        model = Properties(popularity_power=0.0)
        model.fit(Shop.of(log, catalogue))
        red, wool = np.log(4 / 3), np.log(4 / 2)
        assert proposed(model, log, 0, 1) == pytest.approx({1: 1.0, 2: red / np.hypot(red, wool)})
        assert proposed(model, log, 3, 1) == {}

    def test_the_same_word_of_another_property_is_another_word(self) -> None:
        log = log_of(*((u, u, VIEW, 0) for u in range(4)))
        catalogue = catalogue_of(log, colour=["red", None, "red", None], brand=[None, "red", None, "red"])
        model = Properties()
        model.fit(Shop.of(log, catalogue))
        assert list(proposed(model, log, 0, 1)) == [2]
        assert list(proposed(model, log, 1, 1)) == [3]

    def test_popularity_breaks_the_tie_of_equal_texts(self) -> None:
        log = log_of((0, 0, VIEW, 0), (1, 1, VIEW, 0), (2, 2, BUY, 0), (3, 3, VIEW, 0))
        model = Properties(popularity_power=0.5)
        model.fit(Shop.of(log, catalogue_of(log, name=["cup", "cup", "cup", "pot"])))
        assert list(proposed(model, log, 0, 1)) == [2, 1]
