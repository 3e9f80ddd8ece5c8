"""No reason is said that the log does not bear out: every one is checked again in slow code."""

from collections.abc import Mapping
from typing import ClassVar
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import BUY, CART, VIEW, kinds_of, queries_of
from logs import log_of as logged
from slow_facts import DAY, Event, slow_facts

from recsys.component import component
from recsys.datasets.synthetic import Synthetic
from recsys.delivery import facts
from recsys.delivery.facts import Facts, Pairs
from recsys.delivery.language import Language
from recsys.delivery.products import Products
from recsys.delivery.reasons import SUBJECTS, Explainer, explain
from recsys.errors import ConfigError
from recsys.features import (
    Content,
    DerivedFamily,
    FeatureFamily,
    FeatureMatrix,
    FeatureSet,
    Item,
    Source,
    UserItem,
    WithinQuery,
)
from recsys.ranking import LambdaRank, RetrievalOrder, Rule
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import History, Hybrid, Retriever
from recsys.shop.events import EventLog
from recsys.shop.kinds import Kinds
from recsys.shop.pools import CandidatePool, Float32, Ranking
from recsys.shop.queries import Queries
from recsys.shop.reasons import CODES, NOTHING, Codes
from recsys.shop.shop import Shop
from recsys.shop.splits import Split

T = 200 * DAY + DAY // 3
FEW = {"FEWEST_CUSTOMERS": 2, "FEWEST_RISING": 2, "CATEGORY_SIZE": 2, "CATEGORY_PLACES": 2, "SHOP_PLACES": 3, "ANCHORS": 3}


def log_of(events: list[Event]) -> EventLog:
    return logged(events)


def raw(log: EventLog) -> tuple[Event, ...]:
    """The events in numbers, in the order of the log."""
    columns = log.user.tolist(), log.item.tolist(), kinds_of(log), log.time.tolist()
    return tuple(Event(*row) for row in zip(*columns, strict=True))


def found(log: EventLog, category: np.ndarray, names: list[str]) -> dict[tuple[int, int], dict]:
    """What `Facts` holds of every user and item."""
    users, items = np.arange(log.n_users), np.arange(log.n_items)
    queries = Queries.at(log, users.astype(np.int32), T)
    row, item = (grid.ravel() for grid in np.meshgrid(users, items, indexing="ij"))
    pairs = Pairs(row.astype(np.int32), item.astype(np.int32))
    of_code = Facts(log, T, category).of(queries, pairs)
    assert set(of_code) == set(CODES) == set(SUBJECTS)
    result: dict[tuple[int, int], dict] = {(u, i): {} for u in users.tolist() for i in items.tolist()}
    for code, fact in of_code.items():
        for at in np.flatnonzero(fact.holds):
            evidence = {name: int(values[at]) for name, values in fact.evidence.items()}
            if "category" in evidence:
                evidence["category"] = names[evidence["category"]]
            result[int(row[at]), int(item[at])][code] = evidence
    return result


events_strategy = st.lists(
    st.builds(
        Event,
        st.integers(0, 5),
        st.integers(0, 6),
        st.sampled_from((VIEW, CART, BUY)),
        st.integers(1, 40).map(lambda n: T - n * DAY) | st.integers(T - 15 * DAY, T - 1),
    ),
    min_size=1,
    max_size=70,
)


@settings(max_examples=150)
@given(events_strategy, st.lists(st.sampled_from(["a", "b", None]), min_size=7, max_size=7))
def test_facts_are_those_of_slow_code(events: list[Event], categories: list[str | None]):
    log = log_of(events)
    names = ["a", "b"]
    category = np.array([names.index(c) if c else -1 for c in categories[: log.n_items]], dtype=np.int32)
    known = {i: c for i, c in enumerate(categories[: log.n_items]) if c}
    with mock.patch.multiple(facts, **FEW):
        fast = found(log, category, names)
        past = raw(log)
        assert fast == {pair: slow_facts(past, *pair, T, known) for pair in fast}


def bought(*days_ago: float, user: int = 1, item: int = 1, kind: str = BUY) -> list[Event]:
    return [Event(user, item, kind, int(T - ago * DAY)) for ago in days_ago]


def said(events: list[Event], user: int, item: int, n: int = 9) -> list[str]:
    """The texts of the reasons for one item, by a recommender that has no opinion."""
    model = plain_model(log_of(events))
    queries = model.queries([user])
    ranking = Ranking(model.history.items.numbers([item])[None, :], np.ones((1, 1), dtype=np.float32))
    return [reason.text for reason in explain(model, queries, ranking, n)[0][0]]


def plain_model(log: EventLog) -> TwoStageRecommender:
    recommender = TwoStageRecommender(History(), FeatureSet(families=[], definitions={}), RetrievalOrder())
    return recommender.fit(Shop.of(log), T)


def test_in_the_cart_is_said_only_where_it_was_not_bought_after():
    cart = bought(5, kind=CART)
    assert said(cart, 1, 1) == ["In your cart since 15 July"]
    assert said(cart + bought(8), 1, 1)[0] == "In your cart since 15 July"
    assert said(cart + bought(4), 1, 1) == ["You bought it on 16 July"]
    assert said(cart + bought(5), 1, 1) == ["You bought it on 15 July"]
    assert said(cart + bought(5, user=2), 1, 1)[0] == "In your cart since 15 July"


def test_words_for_once_and_for_more_often():
    assert said(bought(3, kind=VIEW), 1, 1) == ["You looked at it on 17 July"]
    assert said(bought(3, 4.5, kind=VIEW), 1, 1) == ["You looked at it 2 times, last on 17 July"]


def test_a_year_is_told_where_it_is_another():
    assert said(bought(250), 1, 1) == ["You bought it on 12 November 1969"]


@pytest.mark.parametrize(
    ("days_ago", "due"),
    [((40, 30, 20, 10), True), ((40, 30, 20, 2), False), ((90, 80, 70), False), ((100, 15, 10), False), ((20, 10), False)],
)
def test_due_again_wants_an_even_cycle_that_is_over(days_ago: tuple[int, ...], due: bool):
    texts = said(bought(*days_ago), 1, 1)
    assert (texts == ["You buy it about every 10 days, last on 10 July"]) == due
    assert due or texts[0].startswith("You bought it")


def test_what_others_bought_does_not_count_the_customer():
    crowd = [event for user in range(2, 7) for item in (1, 2) for event in bought(40, user=user, item=item)]
    assert said(crowd + bought(41, item=2), 1, 1) == ["5 customers bought this and your “Item 2”"]
    both = crowd[2:] + bought(41, item=2) + bought(42, item=1)
    assert all("bought this and your" not in text for text in said(both, 1, 1))


def test_a_visitor_the_log_does_not_know_is_explained_by_recent_events():
    model = plain_model(log_of(bought(5, user=2)))
    item = model.history.items.numbers([1])
    recent = queries_of([[(int(item[0]), CART, T + DAY // 2)]], now=T + DAY)
    reasons = explain(model, recent, Ranking(item[None, :], np.ones((1, 1), np.float32)), 2)
    assert [reason.text for reason in reasons[0][0]] == ["In your cart since 20 July"]


def test_lists_without_items_and_items_without_facts_have_no_reason():
    model = plain_model(log_of(bought(60)))
    ranking = Ranking(np.array([[0, -1], [-1, -1]], dtype=np.int32), np.zeros((2, 2), dtype=np.float32))
    assert explain(model, model.queries([99, 98]), ranking, 3) == [[()], []]
    assert explain(model, model.queries([1, 98]), ranking, 0) == [[()], []]


SPLIT = Split(cutoff="2015-08-15", horizon="28d", label_cutoffs=1)


@pytest.fixture(scope="module")
def model() -> TwoStageRecommender:
    shop = Synthetic(scale=0.01, seed=3).load()
    fold = SPLIT.fold(shop)
    families = {
        "source": Source(),
        "user_item": UserItem(),
        "content": Content(dimensions=4),
        "item": Item(),
        "within_query": WithinQuery(of=["user_item__weight_hl_30d"]),
    }
    recommender = TwoStageRecommender(
        History(),
        FeatureSet(families=list(families), definitions=families),
        LambdaRank(trees=20, min_data_in_leaf=5, threads=1),
        candidates=50,
    )
    labels = [SPLIT.label_task(shop, window) for window in fold.labels]
    return recommender.fit(shop, fold.test.cutoff, labels)


def test_every_reason_said_of_a_shop_is_borne_out(model: TwoStageRecommender):
    history = model.history
    english = Language.load("en")
    products = Products.of(model, english)
    buyers = np.unique(history.user[history.has_role("purchase")])[:20]
    queries = model.queries(history.users.ids[buyers])
    ranking = model.rank(model.pool(queries), queries, 4)
    lists = Explainer(model, products, english).explain(queries, ranking, 3)
    codes, names = products.categories
    category = {i: names[c] for i, c in enumerate(codes.tolist()) if c >= 0}
    past, checked = raw(history), set()
    assert all(event.time < model.cutoff for event in past)
    for q, user in enumerate(buyers.tolist()):
        for place, reasons in enumerate(lists[q]):
            item = int(ranking.item[q, place])
            truth = slow_facts(past, user, item, model.cutoff, category) if reasons else {}
            assert len({reason.code for reason in reasons}) == len(reasons) <= 3
            for reason in reasons:
                checked.add(reason.code)
                for name, value in truth[reason.code].items():
                    if name in ("since", "last", "until"):
                        value = str(np.datetime64(value, "D"))
                    elif name == "item":
                        value = str(history.items.ids[value])
                    assert reason.evidence[name] == value, (reason, name)
                    if name in ("customers", "products", "every_days") or (name == "times" and value > 1):
                        assert str(value) in reason.text
    assert {"viewed", "bought_before", "viewed_in_category"} <= checked


def test_what_moved_the_ranker_is_said_first(model: TwoStageRecommender):
    """Two rules of one feature each: the one looks at the cart, the other at how often it was viewed."""
    history = model.history
    users = history.users.ids[np.unique(history.user[history.has_role("cart")])[:80]]
    spoken = {}
    for column in ("user_item__carts", "user_item__views"):
        other = TwoStageRecommender(model.retriever, model.features, Rule(weights={column: 1.0}), 50)
        other.past, other.cutoff, other._products = model.past, model.cutoff, model.products
        queries = other.queries(users)
        ranking = other.rank(other.pool(queries), queries, 3)
        lists = Explainer.of(other).explain(queries, ranking, 9)
        spoken[column] = [[r.code for r in reasons] for of_user in lists for reasons in of_user]
    both = [codes for codes in spoken["user_item__views"] if {"in_cart", "viewed"} <= set(codes)]
    assert both
    assert all(codes[0] == "viewed" for codes in both)
    both = [codes for codes in spoken["user_item__carts"] if {"in_cart", "viewed"} <= set(codes)]
    assert both
    assert all(codes[0] == "in_cart" for codes in both)


@component
class Own(History):
    """A source of one's own, which bears nothing out."""

    name: ClassVar[str] = "own"
    speaks_for: ClassVar[Codes] = NOTHING


@component
class Glances(History):
    """A source of one's own that bears out what was looked at."""

    name: ClassVar[str] = "glances"
    speaks_for: ClassVar[Codes] = frozenset({"viewed"})


@component
class Asides(History):
    """Its pools have a source that it does not tell of."""

    name: ClassVar[str] = "asides"
    speaks_for: ClassVar[Codes] = NOTHING

    def pool(self, queries: Queries, k: int) -> CandidatePool:
        return CandidatePool.from_rankings({"another": self.retrieve(queries, k)})


@component
class Ones(FeatureFamily):
    """A family of one's own whose column is 1."""

    def columns(self, sources: tuple[str, ...], kinds: Kinds) -> tuple[str, ...]:
        return ("one",)

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        out[:] = 1


@component
class Views(Ones):
    """The same, and it bears out what was looked at."""

    speaks_for: ClassVar[Mapping[str, Codes]] = {"on.": frozenset({"viewed"})}


@component
class Copies(DerivedFamily):
    """Columns made of others that say nothing of what they bear out."""

    def columns(self, given: tuple[str, ...]) -> tuple[str, ...]:
        return given

    def compute(self, given: FeatureMatrix, out: Float32) -> None:
        out[:] = given.values


def union(source: Retriever) -> Hybrid:
    return Hybrid(sources=["any"], definitions={"any": source}, fallback=[])


def codes_said(retriever: Retriever, family: FeatureFamily, column: str) -> list[str]:
    """What is said of an item that was looked at and carted, where the one column moves the ranker."""
    features = {"source": Source(), "mine": family, "copies": Copies(), "within_query": WithinQuery(of=["mine__one"])}
    log = log_of(bought(5, kind=VIEW) + bought(4, kind=CART))
    model = TwoStageRecommender(
        retriever, FeatureSet(families=list(features), definitions=features), Rule(weights={column: 1.0})
    ).fit(Shop.of(log), T)
    queries = model.queries([1])
    return [reason.code for reason in explain(model, queries, model.rank(model.pool(queries), queries, 1), 9)[0][0]]


@pytest.mark.parametrize(
    ("retriever", "family", "column", "first"),
    [
        (Own(), Ones(), "source__own_rrf", "in_cart"),
        (Glances(), Ones(), "source__glances_rrf", "viewed"),
        (Asides(), Ones(), "source__another_rrf", "in_cart"),
        (union(Own()), Ones(), "source__any_rrf", "in_cart"),
        (union(Glances()), Ones(), "source__any_rrf", "viewed"),
        (union(union(Glances())), Ones(), "source__any_rrf", "viewed"),
        (Own(), Ones(), "mine__one", "in_cart"),
        (Own(), Views(), "mine__one", "viewed"),
        (Own(), Views(), "within_query__mine__one_to_max", "viewed"),
        (Own(), Views(), "copies__mine__one", "in_cart"),
    ],
)
def test_a_component_of_ones_own_is_heard_where_it_declares_what_it_bears_out(
    retriever: Retriever, family: FeatureFamily, column: str, first: str
):
    assert codes_said(retriever, family, column) == [first, *({"in_cart", "viewed"} - {first})]


def test_what_cannot_be_said_cannot_be_declared():
    with pytest.raises(ConfigError, match=r"^Loud.speaks_for: there is no reason called 'view'. Did you mean 'viewed'"):
        type("Loud", (History,), {"speaks_for": frozenset({"view"})})
    with pytest.raises(ConfigError, match=r"^Loud.speaks_for: o.e: there is no reason called 'view'. Did you mean 'viewed'"):
        type("Loud", (Ones,), {"speaks_for": {"o.e": frozenset({"view"})}})


def test_reasons_do_not_depend_on_who_else_is_asked_nor_on_features_at_hand(model: TwoStageRecommender):
    queries = model.queries(model.history.users.ids[:40])
    pool = model.pool(queries)
    features = model.describe(pool, queries)
    ranking = pool.order(model.ranker.score(features), 3)
    explainer = Explainer.of(model)
    together = explainer.explain(queries, ranking, 2, features)
    assert together == explainer.explain(queries, ranking, 2)
    for q in (0, 7, 39):
        alone = Ranking(ranking.item[q : q + 1], ranking.score[q : q + 1])
        assert explainer.explain(queries.block(q, q + 1), alone, 2) == together[q : q + 1]
