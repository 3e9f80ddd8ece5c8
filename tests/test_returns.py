"""What is returned counts as bought until then, and not from then on: in features, reasons, candidates, labels and requests."""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from logs import Row, log_of
from mlflow.exceptions import MlflowException
from omegaconf import OmegaConf

from recsys.component import construct
from recsys.delivery import facts
from recsys.delivery.reasons import explain
from recsys.errors import DataError
from recsys.features import FeatureMatrix, FeatureSet, UserItem
from recsys.ranking import RetrievalOrder
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import History, Popularity
from recsys.serving.advisor import Advisor, RecentEvents
from recsys.serving.endpoint import Endpoint
from recsys.shop.events import MILLISECONDS_PER_DAY
from recsys.shop.kinds import Kinds
from recsys.shop.pools import CandidatePool, Ranking
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop
from recsys.shop.splits import Split, Window

CONF = Path(__file__).resolve().parent.parent / "conf"
DAY = MILLISECONDS_PER_DAY
KINDS = Kinds.of(
    {
        "view": {"role": "view"},
        "wishlist": {},
        "addtocart": {"role": "cart"},
        "remove": {"undoes": "addtocart"},
        "buy": {"role": "purchase"},
        "return": {"undoes": "buy"},
    }
)
CROWD: list[Row] = [(user, item, "buy", 3 + user) for user in range(10, 16) for item in (1, 2, 3)]
ANN: list[Row] = [(1, 1, "view", 9), (1, 1, "buy", 10), (1, 1, "buy", 20), (1, 1, "buy", 30), (1, 2, "buy", 31)]
RETURN: Row = (1, 1, "return", 35)


def shop_of(*rows: Row, kinds: Kinds = KINDS) -> Shop:
    """Events at noon of their day."""
    return Shop.of(log_of([(user, item, kind, day + 0.5) for user, item, kind, day in rows], DAY, kinds))


def history_model(shop: Shop, day: int, **settings: str) -> TwoStageRecommender:
    """What a customer had before, in that order."""
    model = TwoStageRecommender(History(**settings), FeatureSet(families=[], definitions={}), RetrievalOrder())
    return model.fit(shop, day * DAY)


def pool_of(items: np.ndarray) -> CandidatePool:
    """One source that proposes the items of each row."""
    return CandidatePool.from_rankings({"s": Ranking(items.astype(np.int32), np.ones(items.shape, dtype=np.float32))})


def said(model: TwoStageRecommender, user: int, item: int) -> list[str]:
    """The codes of the reasons for one item."""
    ranking = Ranking(model.history.items.numbers([item])[None, :], np.ones((1, 1), dtype=np.float32))
    return [reason.code for reason in explain(model, model.queries([user]), ranking, 9)[0][0]]


class TestFeatures:
    def described(self, shop: Shop, day: int) -> FeatureMatrix:
        """All families, of every customer and product."""
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", ["features=full", "output_dir=somewhere"])
        features = construct(OmegaConf.to_container(config.features, resolve=True), "features")
        past = shop.before(day * DAY)
        features.fit(past)
        users, items = np.arange(past.log.n_users), np.arange(past.log.n_items)
        pool = pool_of(np.tile(items, (len(users), 1)))
        return features.compute(pool, Queries.at(past.log, users.astype(np.int32), day * DAY))

    def test_every_column_is_as_if_it_had_never_been_bought(self) -> None:
        with_it = shop_of(*CROWD, *ANN, RETURN)
        without = shop_of(*CROWD, *ANN[:3], ANN[4], RETURN, kinds=replace(KINDS, undoes=(None,) * len(KINDS)))
        for day in (36, 50):
            found, expected = self.described(with_it, day), self.described(without, day)
            assert found.names == expected.names
            assert {"user_item__wishlists", "user__returns", "item__wishlists_28d", "item__returns"} <= set(found.names)
            np.testing.assert_array_equal(found.values, expected.values)

    def test_before_the_return_every_column_is_as_if_it_would_stay(self) -> None:
        found, expected = (self.described(shop_of(*CROWD, *ANN, *more), 35) for more in ([RETURN], []))
        np.testing.assert_array_equal(found.values, expected.values)

    def test_repeat_purchases_by_hand(self) -> None:
        """Bought on days 10, 20 and 30; that of day 30 goes back on day 35."""
        found = {}
        for day in (35, 36):
            past, family = shop_of(*ANN, RETURN).before(day * DAY), UserItem(smoothing=1e-9)
            family.fit(past)
            pool, queries = (
                pool_of(past.log.items.numbers([1])[None, :]),
                Queries.at(past.log, np.zeros(1, np.int32), day * DAY),
            )
            names = family.columns(pool.sources, KINDS)
            out = np.empty((1, len(names)), dtype=np.float32, order="F")
            family.compute(pool, queries, out)
            found[day] = dict(zip(names, out[0].tolist(), strict=True))
        wanted = {"purchases": 3, "purchase_days": 3, "returns": 0, "days_since_purchase": 4.5, "cycle_days": 10, "due": 0.45}
        assert {name: found[35][name] for name in wanted} == pytest.approx(wanted)
        wanted = {"purchases": 2, "purchase_days": 2, "returns": 1, "days_since_purchase": 15.5, "cycle_days": 10, "due": 1.55}
        assert {name: found[36][name] for name in wanted} == pytest.approx(wanted)


class TestReasons:
    def test_bought_before_is_said_of_what_was_kept(self) -> None:
        rows: list[Row] = [(1, 1, "buy", 10), (1, 1, "return", 20)]
        assert said(history_model(shop_of(*rows), 20), 1, 1) == ["bought_before"]
        assert said(history_model(shop_of(*rows), 21), 1, 1) == []

    def test_due_again_counts_no_returned_purchase(self) -> None:
        rows: list[Row] = [(1, 1, "buy", day) for day in (10, 20, 30, 39)]
        assert said(history_model(shop_of(*rows), 41), 1, 1)[0] == "bought_before"
        assert said(history_model(shop_of(*rows, (1, 1, "return", 40)), 41), 1, 1)[0] == "due_again"

    def test_in_the_cart_is_said_until_it_is_taken_out(self) -> None:
        rows: list[Row] = [(1, 1, "addtocart", 10), (1, 1, "remove", 20)]
        assert said(history_model(shop_of(*rows), 20), 1, 1) == ["in_cart"]
        assert said(history_model(shop_of(*rows), 21), 1, 1) == []
        assert said(history_model(shop_of(*rows, (1, 1, "addtocart", 22)), 23), 1, 1) == ["in_cart"]

    def test_what_was_in_the_cart_when_it_was_bought_is_not_there_again_after_the_return(self) -> None:
        rows: list[Row] = [(1, 1, "addtocart", 9), (1, 1, "buy", 10)]
        assert said(history_model(shop_of(*rows), 21), 1, 1) == ["bought_before"]
        assert said(history_model(shop_of(*rows, (1, 1, "return", 20)), 21), 1, 1) == ["in_cart"]

    def test_who_sends_it_back_does_not_make_a_product_trend(self) -> None:
        rows: list[Row] = [(user, item, "buy", item) for user in (10, 11, 12) for item in (1, 2)]
        late: list[Row] = [(user, 1, "return", 39) for user in (10, 11, 12)] + [(user, 2, "view", 39) for user in (10, 11, 12)]
        with mock.patch.object(facts, "FEWEST_RISING", 2):
            model = history_model(shop_of(*rows, *late, (1, 1, "view", 20), (1, 2, "view", 20)), 41)
            assert [("trending" in said(model, 1, item)) for item in (1, 2)] == [False, True]


def test_a_returned_product_may_be_proposed_again() -> None:
    rows: list[Row] = [*CROWD, (1, 1, "buy", 10), (1, 2, "buy", 10), (1, 1, "return", 20)]
    for day, proposed in ((20, {3}), (21, {1, 3})):
        model = TwoStageRecommender(
            Popularity(window_days=None, seen="drop_bought"), FeatureSet(families=[], definitions={}), RetrievalOrder()
        ).fit(shop_of(*rows), day * DAY)
        found = model.recommend([1], 3).item[0]
        assert {item for item in found if item is not None} == proposed


def test_a_purchase_returned_inside_the_window_is_no_target() -> None:
    shop = shop_of((1, 1, "view", 5), (1, 1, "buy", 11), (1, 2, "view", 5), (1, 2, "buy", 12), (1, 1, "return", 15))
    split = Split(cutoff="1970-01-11", label_events=["purchase"], label_cutoffs=0)
    for ask in (split.test_task, split.label_task):
        targets = {end: shop.log.items.ids[ask(shop, Window(10 * DAY, end * DAY)).truth.item].tolist() for end in (15, 16)}
        assert {end: sorted(items) for end, items in targets.items()} == {15: [1, 2], 16: [2]}


VIEWS: list[Row] = [(1, item, "view", 9) for item in (1, 2, 4)]
KEPT_ONE: list[Row] = [*CROWD, *VIEWS, (1, 1, "buy", 10), (1, 1, "buy", 20), (1, 1, "return", 25)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TwoStageRecommender:
    """What was looked at and not bought, saved and loaded again."""
    folder = tmp_path_factory.mktemp("model") / "model"
    history_model(shop_of(*KEPT_ONE), 30, seen="drop_bought").save(folder)
    return TwoStageRecommender.load(folder)


class TestRequests:
    """Ann kept one of two purchases of item 1, looked at items 1, 2 and 4, and asks on day 40."""

    def asked(self, model: TwoStageRecommender, *events: tuple[int, str, int]) -> tuple[set[object], list[str]]:
        """What Ann is proposed after more events (item, kind, day), and the reasons for item 1."""
        items, kinds, days = zip(*events, strict=True)
        times = np.array(days) * DAY + DAY // 2
        recent = RecentEvents(np.zeros(len(events), np.int64), list(items), KINDS.numbers(kinds), times)
        answers = Advisor(model).advise([1], 5, recent, 40 * DAY, reasons=3)
        reasons = dict(zip(answers.item[0].tolist(), answers.reasons[0], strict=False))
        return set(answers.item[0]) - {None}, [reason.code for reason in reasons.get(1, ())]

    def test_the_kinds_survive_the_folder(self, model: TwoStageRecommender) -> None:
        assert model.history.kinds == KINDS

    def test_a_return_takes_back_what_the_history_holds(self, model: TwoStageRecommender) -> None:
        assert 1 not in self.asked(model, (4, "view", 32))[0]
        assert 1 in self.asked(model, (1, "return", 33))[0]

    def test_a_return_takes_back_what_the_request_holds(self, model: TwoStageRecommender) -> None:
        assert 2 not in self.asked(model, (2, "buy", 32))[0]
        assert 2 in self.asked(model, (2, "buy", 32), (2, "return", 33))[0]

    def test_told_twice_it_takes_back_one(self, model: TwoStageRecommender) -> None:
        twice = ((1, "buy", 31), (1, "return", 33), (1, "return", 33))
        assert 1 not in self.asked(model, *twice)[0]
        assert 1 in self.asked(model, *twice, (1, "return", 34))[0]

    def test_one_that_the_history_holds_takes_back_nothing_more(self, model: TwoStageRecommender) -> None:
        assert 1 not in self.asked(model, (1, "return", 25))[0]

    def test_a_request_may_tell_of_all_that_was_before(self, model: TwoStageRecommender) -> None:
        """The history no longer has the purchase of day 20, whose return it has."""
        again = tuple((item, kind, day) for user, item, kind, day in KEPT_ONE if user == 1)
        assert 1 not in self.asked(model, *again)[0]
        assert 1 in self.asked(model, *again, (1, "return", 33))[0]

    def test_a_cart_is_emptied(self, model: TwoStageRecommender) -> None:
        returned = ((1, "return", 31), (1, "addtocart", 32))
        assert "in_cart" in self.asked(model, *returned)[1]
        assert "in_cart" not in self.asked(model, *returned, (1, "remove", 33), (1, "view", 34))[1]

    def test_the_endpoint_knows_the_kinds_of_the_model(self) -> None:
        late = [(user, item, kind, day + 2000) for user, item, kind, day in KEPT_ONE]
        endpoint = Endpoint(history_model(shop_of(*late), 2030, seen="drop_bought"))

        def proposed(*kinds: str) -> list[int]:
            events = [{"item": 1, "event": kind, "time": 2033 * DAY} for kind in kinds]
            answers = endpoint.predict(pd.DataFrame({"user": [1], "events": [events]}), {"time": 2040 * DAY})
            return answers.loc[0, "items"]

        assert sorted(proposed("wishlist")) == [2, 4]
        assert sorted(proposed("wishlist", "return")) == [1, 2, 4]
        wanted = r"row 0, events\[1\]\.event: wanted view, wishlist, .*, found 'retrun'\. Did you mean 'return'"
        with pytest.raises(MlflowException, match=wanted):
            proposed("view", "retrun")


def test_a_model_of_an_older_format_is_refused(tmp_path: Path) -> None:
    history_model(shop_of(*ANN), 40).save(tmp_path / "model")
    about = tmp_path / "model" / "model.yaml"
    about.write_text(about.read_text().replace("format: 2", "format: 1"))
    with pytest.raises(DataError, match="wanted format 2, found 1; run again to make the model in this format"):
        TwoStageRecommender.load(tmp_path / "model")
