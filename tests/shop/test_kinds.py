"""Kinds of event: what is declared, who is refused, what counts for whom, and what is taken back when."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import Row, kinds_of, log_of
from pydantic import Field

from recsys.audit.worlds import scrambled_future, without_future
from recsys.component import Component, component
from recsys.errors import ConfigError
from recsys.retrieval import Covisitation, Hybrid, Popularity
from recsys.shop.events import NEVER, EventLog
from recsys.shop.kinds import RETAIL, ROLES, KindName, Kinds, KindWeights, named
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop

DECLARED: Mapping[str, Mapping[str, str]] = {
    "view": {"role": "view"},
    "wishlist": {},
    "unwish": {"undoes": "wishlist"},
    "addtocart": {"role": "cart"},
    "buy": {"role": "purchase"},
    "subscribe": {"role": "purchase"},
    "return": {"undoes": "buy"},
    "refund": {"undoes": "buy"},
}
KINDS = Kinds.of(DECLARED)

rows_strategy = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from(KINDS.names), st.integers(0, 12)), min_size=1, max_size=40
)


class TestDeclaration:
    def test_goes_there_and_back(self) -> None:
        assert KINDS.declared() == DECLARED
        assert Kinds.of(KINDS.declared()) == KINDS
        assert (
            Kinds.of({"view": {"role": "view"}, "addtocart": {"role": "cart"}, "transaction": {"role": "purchase"}}) == RETAIL
        )

    @pytest.mark.parametrize(
        ("declared", "message"),
        [
            ({}, "dataset.kinds: expected distinct names, got none"),
            ({"buy": {"rolle": "purchase"}}, "dataset.kinds.buy: expected role or undoes, got 'rolle'. Did you mean 'role'?"),
            (
                {"buy": {"role": "purchse"}},
                "dataset.kinds.buy.role: expected a role, got 'purchse'. Did you mean 'purchase'?",
            ),
            (
                {"buy": {"role": "purchase"}, "return": {"undoes": "bye"}},
                "dataset.kinds.return.undoes: expected a kind that takes nothing back, got 'bye'. Did you mean 'buy'?",
            ),
            (
                {"buy": {}, "return": {"undoes": "return"}},
                "dataset.kinds.return.undoes: expected a kind that takes nothing back, got 'return'. Known: buy.",
            ),
            (
                {"buy": {}, "return": {"undoes": "buy"}, "keep": {"undoes": "return"}},
                "dataset.kinds.keep.undoes: expected a kind that takes nothing back, got 'return'. Known: buy.",
            ),
            ({"cart": {}}, "dataset.kinds.cart.role: expected cart, as it is called, got none"),
            ({"view": {"role": "purchase"}}, "dataset.kinds.view.role: expected view, as it is called, got purchase"),
            ({"a b": {}}, "dataset.kinds: expected a name of letters, digits, _ and -, got 'a b'"),
        ],
    )
    def test_a_mistake_is_one_line(self, declared: Mapping[str, Mapping[str, str]], message: str) -> None:
        with pytest.raises(ConfigError) as error:
            Kinds.of(declared)
        assert str(error.value) == message

    def test_names_become_numbers(self) -> None:
        assert KINDS.numbers(["buy", "view", "buy"]).tolist() == [KINDS.names.index(name) for name in ("buy", "view", "buy")]
        assert len(KINDS.numbers([])) == 0
        for wrong, message in (("by", r"'by'\. Did you mean 'buy'\?"), (None, "nan"), ("cart", "'cart'")):
            with pytest.raises(ConfigError, match=f"expected a kind of event, got {message}"):
                KINDS.numbers(["view", wrong])


class TestWhoIsMeant:
    def of(self, values: np.ndarray) -> dict[str, float]:
        return {name: value for name, value in zip(KINDS.names, values.tolist(), strict=True) if value}

    def test_a_weight_goes_by_name_before_role(self) -> None:
        weights = KINDS.weights({"view": 1, "purchase": 5, "subscribe": 9, "wishlist": 2})
        assert self.of(weights) == {"view": 1, "buy": 5, "subscribe": 9, "wishlist": 2}
        assert self.of(KINDS.weights({"purchase": 5, "buy": 0})) == {"subscribe": 5}

    def test_a_role_means_all_of_its_kinds(self) -> None:
        assert self.of(KINDS.with_role("purchase")) == {"buy": True, "subscribe": True}
        assert self.of(KINDS.among(["purchase", "wishlist"])) == {"buy": True, "subscribe": True, "wishlist": True}
        assert self.of(KINDS.among(["buy"])) == {"buy": True}

    def test_a_role_that_no_kind_has_means_none(self) -> None:
        assert Kinds.of({"buy": {"role": "purchase"}}).weights({"view": 1, "cart": 3}).tolist() == [0]

    @pytest.mark.parametrize("ask", [KINDS.weights, lambda given, key: KINDS.among(list(given), key)])
    def test_a_name_that_is_neither_is_refused(self, ask) -> None:
        with pytest.raises(ConfigError) as error:
            ask({"view": 1, "wishlst": 2}, "retriever.weights")
        wanted = "retriever.weights: expected a kind of event of the data or a role, got 'wishlst'."
        assert str(error.value) == f"{wanted} Did you mean 'wishlist' or 'unwish'?"

    def test_counts_are_kept_by_role_then_by_kind(self) -> None:
        assert KINDS.columns == (*ROLES, "wishlist", "unwish", "return", "refund")
        assert [KINDS.columns[place] for place in KINDS.column] == [
            *("view", "wishlist", "unwish", "cart", "purchase", "purchase", "return", "refund")
        ]


@component
class Part(Component):
    """Names kinds in every form."""

    weights: KindWeights = Field(default={"view": 1.0})
    first: KindName = "cart"
    others: list[KindName] | None = None
    pairs: dict[str, float] = Field(default={"no kind": 1.0})


@component
class Whole(Component):
    """Holds parts at any depth."""

    part: Part
    parts: dict[str, list[Part]] = Field(default={})


class TestNamed:
    def test_walks_through_components_of_ones_own(self) -> None:
        whole = Whole(part=Part(others=["buy", "view"]), parts={"a": [Part(weights={}, first="return")]})
        assert list(named(whole, "mine")) == [
            ("mine.part.weights", "view"),
            ("mine.part.first", "cart"),
            ("mine.part.others", "buy"),
            ("mine.part.others", "view"),
            ("mine.parts.a.0.first", "return"),
        ]

    def test_finds_the_settings_of_a_union_and_of_its_members(self) -> None:
        popular = Popularity(weights={"wishlist": 1.0})
        union = Hybrid(sources=["p"], fallback=[], definitions={"p": popular}, learn_events=["buy"])
        assert set(named(union, "retriever")) == {
            ("retriever.learn_events", "buy"),
            ("retriever.definitions.p.weights", "wishlist"),
        }


def left_slowly(rows: list[Row], t: int) -> list[Row]:
    """What is known before `t`: each undoing event takes back the newest of its pair that is left, at its time or earlier."""
    left: dict[tuple[int, int, str], list[Row]] = defaultdict(list)
    for row in sorted((row for row in rows if row[3] < t), key=lambda row: (row[3], DECLARED[row[2]].get("undoes", ""))):
        user, item, kind, _ = row
        taken = left[user, item, DECLARED[kind].get("undoes", "")]
        if taken:
            taken.pop()
        left[user, item, kind].append(row)
    return sorted(row for of_pair in left.values() for row in of_pair)


def own(log: EventLog) -> list[Row]:
    """The log's events under their own ids."""
    columns = log.users.ids[log.user].tolist(), log.items.ids[log.item].tolist(), kinds_of(log), log.time.tolist()
    return sorted(zip(*columns, strict=True))


class TestTakingBack:
    @given(rows_strategy, st.integers(0, 13))
    def test_a_cut_holds_what_slow_code_leaves(self, rows: list[Row], t: int) -> None:
        shop = Shop.of(log_of(rows, kinds=KINDS))
        assert own(shop.before(t).log) == left_slowly(rows, t)
        assert own(shop.log) == sorted(rows)

    @given(rows_strategy, st.integers(0, 13), st.integers(0, 13))
    def test_a_window_is_as_of_its_end(self, rows: list[Row], a: int, b: int) -> None:
        start, end = sorted((a, b))
        assert own(log_of(rows, kinds=KINDS).between(start, end)) == [row for row in left_slowly(rows, end) if row[3] >= start]

    @given(rows_strategy, st.randoms(), st.integers(0, 13))
    def test_row_order_does_not_matter(self, rows: list[Row], random, t: int) -> None:
        logs = [log_of(each, kinds=KINDS) for each in (rows, random.sample(rows, len(rows)))]
        assert logs[0].fingerprint == logs[1].fingerprint
        cuts = [Shop.of(log).before(t).log for log in logs]
        for name in ("user", "item", "kind", "time", "user_born", "item_born"):
            np.testing.assert_array_equal(getattr(cuts[0], name), getattr(cuts[1], name))

    @given(rows_strategy, rows_strategy, st.integers(0, 12))
    def test_the_past_does_not_know_what_will_be_taken_back(self, rows: list[Row], others: list[Row], t: int) -> None:
        past = [row for row in rows if row[3] < t]
        if not past:
            return
        late = [(user, item, kind, time + t) for user, item, kind, time in others]
        cuts = [Shop.of(log_of([*past, *more], kinds=KINDS)).before(t).log for more in ([], late)]
        assert cuts[0].fingerprint == cuts[1].fingerprint
        assert [cut.undone for cut in cuts] == [None, None]

    @given(rows_strategy, st.integers(1, 13))
    def test_the_worlds_of_the_audit_have_the_same_past(self, rows: list[Row], t: int) -> None:
        shop = Shop.of(log_of(rows, kinds=KINDS))
        past = shop.before(t).log
        for world in (without_future(shop, t), scrambled_future(shop, t), scrambled_future(shop, t, seed=1)):
            assert world.before(t).log.fingerprint == past.fingerprint
            assert own(world.before(t).log) == own(past)

    def test_a_purchase_is_there_until_it_is_returned(self) -> None:
        shop = Shop.of(log_of([(1, 1, "buy", 10), (1, 1, "return", 20), (2, 1, "buy", 30)], kinds=KINDS))
        shown = {t: kinds_of(shop.before(t).log) for t in (10, 11, 20, 21, 31)}
        assert shown == {10: [], 11: ["buy"], 20: ["buy"], 21: ["return"], 31: ["return", "buy"]}
        assert kinds_of(shop.log.between(10, 20)) == ["buy"]
        assert kinds_of(shop.log.between(10, 21)) == ["return"]

    def test_the_newest_is_taken_back_first_and_once_whatever_kind_does_it(self) -> None:
        rows = [(1, 1, "buy", 10), (1, 1, "buy", 12), (1, 1, "return", 13), (1, 1, "refund", 15), (1, 1, "return", 17)]
        assert log_of(rows, kinds=KINDS).undone.tolist() == [15, 13, NEVER, NEVER, NEVER]

    def test_other_items_users_and_kinds_stay(self) -> None:
        rows = [(1, 1, "buy", 10), (1, 2, "buy", 10), (2, 1, "buy", 10), (1, 1, "subscribe", 10), (1, 1, "return", 11)]
        log = log_of(rows, kinds=KINDS)
        assert [row for row, undone in zip(own_in_order(log), log.undone, strict=True) if undone < NEVER] == [rows[0]]

    def test_in_one_instant_the_purchase_comes_first(self) -> None:
        kinds = Kinds.of({"return": {"undoes": "buy"}, "buy": {"role": "purchase"}})
        log = log_of([(1, 1, "return", 5), (1, 1, "buy", 5)], kinds=kinds)
        assert kinds_of(Shop.of(log).before(6).log) == ["return"]

    def test_a_return_without_a_purchase_takes_back_none_that_comes_later(self) -> None:
        log = log_of([(1, 1, "return", 5), (1, 1, "buy", 6)], kinds=KINDS)
        assert kinds_of(Shop.of(log).before(9).log) == ["return", "buy"]


def own_in_order(log: EventLog) -> list[Row]:
    columns = log.users.ids[log.user].tolist(), log.items.ids[log.item].tolist(), kinds_of(log), log.time.tolist()
    return list(zip(*columns, strict=True))


class TestIncrementalFits:
    @given(rows_strategy, st.lists(st.integers(1, 13), min_size=1, max_size=4))
    def test_equal_fresh_ones_though_events_are_taken_back(self, rows: list[Row], cutoffs: list[int]) -> None:
        shop = Shop.of(log_of(rows, 86_400_000, KINDS))
        continued = Covisitation()
        for cutoff in cutoffs:
            past, fresh = shop.before(cutoff * 86_400_000), Covisitation()
            continued.fit(past)
            fresh.fit(past)
            for name, array in fresh.state().items():
                np.testing.assert_array_equal(continued.state()[name], array, err_msg=name)

    def test_a_log_from_which_an_event_was_taken_back_does_not_continue(self) -> None:
        shop = Shop.of(log_of([(1, 1, "buy", 10), (2, 1, "buy", 11), (1, 1, "return", 20)], kinds=KINDS))
        early, late, later = (shop.before(t).log for t in (15, 21, 30))
        assert later.continues(late)
        assert early.continues(shop.before(11).log)
        assert not late.continues(early)


def test_queries_see_roles_and_weights_of_their_log() -> None:
    shop = Shop.of(log_of([(1, 1, "wishlist", 1), (1, 2, "buy", 2), (1, 3, "buy", 3), (1, 3, "refund", 4)], kinds=KINDS))
    queries = Queries.at(shop.before(9).log, np.array([0], np.int32), 9)
    assert queries.has_role("purchase").tolist() == [False, True, False]
    assert queries.weigh({"wishlist": 2.0, "purchase": 5.0}).tolist() == [2, 5, 0]
