"""Every family against a slow implementation, row by row, that follows the documented formulas to the letter."""

import math
import re
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import BUY, CART, VIEW, kinds_of, queries_of
from omegaconf import OmegaConf

from recsys.component import construct
from recsys.errors import ConfigError
from recsys.features import (
    Affinity,
    Calendar,
    Content,
    Customer,
    FeatureFamily,
    FeatureMatrix,
    FeatureSet,
    Item,
    Source,
    User,
    UserItem,
    WithinQuery,
)
from recsys.features import base as features_base
from recsys.features.embedding import newest_items
from recsys.shop import ragged
from recsys.shop.catalogue import Catalogue, CategoryTree
from recsys.shop.customers import Customers
from recsys.shop.events import MILLISECONDS_PER_DAY, EventLog, days
from recsys.shop.kinds import RETAIL
from recsys.shop.pools import CandidatePool, Ranking
from recsys.shop.queries import Queries
from recsys.shop.reasons import NOTHING, TASTE, TOGETHER
from recsys.shop.shop import Shop

CONF = Path(__file__).parents[2] / "conf" / "features"
HALF_HOUR = 30 * 60 * 1000
NAN = math.nan
Row = dict[str, float]
Event = tuple[int, int, str]
"""Time, item, kind."""
COUNTED = {"views": VIEW, "carts": CART, "purchases": BUY}


def chosen(name: str, **options: object) -> FeatureSet:
    """A set as the command line would compose it."""
    config = OmegaConf.load(CONF / "full.yaml")
    if name != "full":
        config = OmegaConf.merge(config, {k: v for k, v in OmegaConf.load(CONF / f"{name}.yaml").items() if k != "defaults"})
    plain = OmegaConf.to_container(OmegaConf.merge({"seed": 0}, {"features": config}), resolve=True)
    return construct(plain["features"] | options, "features")


class Case:
    """A small random log and catalogue, cut at a time, with a pool of candidates for all users and a stranger."""

    def __init__(self, seed: int, n_events: int = 60, scramble_future: bool = False, shuffle: bool = False) -> None:
        rng = np.random.default_rng(seed)
        user, item = rng.integers(0, 5, n_events), rng.integers(0, 8, n_events)
        kind = rng.choice(RETAIL.names, n_events, p=[0.5, 0.2, 0.3])
        time = np.sort(days(100) + rng.integers(0, 60 * 48, n_events) * HALF_HOUR // rng.choice([1, 1, 40], n_events))
        self.time = int(time[int(n_events * 0.8)])
        items = np.arange(8)
        changes = pd.DataFrame(
            {
                "item": np.tile(items[:7], 6),
                "time": np.repeat([days(90), days(100), days(110), days(90), days(90), days(95)], 7),
                "property": np.repeat(["price", "price", "price", "category", "words", "available"], 7),
                "value": [
                    *(f"n{p}.000" for p in rng.integers(1, 9, 21)),
                    *rng.choice(["a", "b", "c"], 7),
                    *(" ".join(rng.choice(["red", "blue", "tin", "paper"], 2)) for _ in range(7)),
                    *rng.choice(["0", "1"], 7),
                ],
            }
        )
        if scramble_future:
            future = time >= self.time
            user[future], item[future] = rng.integers(0, [[9], [8]], (2, future.sum()))
            kind[future] = rng.choice(RETAIL.names, future.sum())
            time[future] += rng.integers(0, days(5), future.sum())
            late = changes["time"] >= self.time
            changes.loc[late, "value"] = "n77.000"
        if shuffle:
            order = rng.permutation(n_events)
            user, item, kind, time = user[order], item[order], kind[order], time[order]
            changes = changes.sample(frac=1, random_state=1)
        log = EventLog.build(user, item, kind, time, changes["item"].to_numpy(), changes["time"].to_numpy())
        tree = CategoryTree.build(["a", "b", "c"], ["top", "top", None])
        catalogue = Catalogue.build(
            log.items, log.item_born, changes, tree, category="category", price="price", available="available"
        )
        customers = self._customers(log, np.random.default_rng(seed + 2), scramble_future)
        self.log, self.catalogue = log, catalogue
        self.shop = Shop(log, catalogue, customers).before(self.time)
        self.past, self.known = self.shop.log, self.shop.catalogue
        self.queries = Queries.at(self.past, np.r_[np.arange(self.past.n_users), -1].astype(np.int32), self.time)
        self.pool = self._pool(np.random.default_rng(seed + 1))

    def _customers(self, log: EventLog, rng: np.random.Generator, scramble_future: bool) -> Customers:
        """Country, age and words of most of the first five users from before the first event on, and what changes later."""
        now = pd.DataFrame(
            {
                "user": np.tile(np.arange(5), 3),
                "time": days(90),
                "property": np.repeat(["country", "age", "about me"], 5),
                "value": [
                    *rng.choice(["FR", "DE"], 5),
                    *map(str, rng.integers(18, 70, 5)),
                    *(" ".join(rng.choice(["likes", "red", "tin", "hats"], 3)) for _ in range(5)),
                ],
            }
        )
        now = now[rng.random(len(now)) < 0.9]
        later = now.assign(time=self.time + 5, value=["XX" if scramble_future else value for value in now["value"]])
        rows = pd.concat([now, later])
        types = {"country": "category", "age": "number", "about me": "words"}
        return Customers.build(log.users, log.user_born, rows[log.users.numbers(rows["user"].to_numpy()) >= 0], types)

    def _pool(self, rng: np.random.Generator) -> CandidatePool:
        n, n_items = len(self.queries), self.past.n_items
        rankings = {}
        for source in ("one", "two"):
            items = np.array([rng.permutation(n_items)[:4] for _ in range(n)], dtype=np.int32)
            scores = -np.sort(-rng.normal(size=(n, 4)).astype(np.float32), axis=1)
            items[rng.random(n) < 0.2] = -1
            rankings[source] = Ranking(items, scores)
        return CandidatePool.from_rankings(rankings)

    def events(self, row: int) -> list[Event]:
        """(time, item, kind) of a query's history, in order."""
        history = slice(self.queries.indptr[row], self.queries.indptr[row + 1])
        time, item = (column[history].tolist() for column in (self.queries.event_time, self.queries.item))
        return list(zip(time, item, kinds_of(self.queries)[history], strict=True))


def compare(shop: Case, family: FeatureFamily, expected: Callable[[int, int], Row], tolerance: float = 2e-5) -> None:
    """All columns of a fitted family against the reference, candidate by candidate."""
    names = family.columns(shop.pool.sources, shop.past.kinds)
    out = np.full((len(shop.pool), len(names)), -77, dtype=np.float32, order="F")
    family.compute(shop.pool, shop.queries, out)
    for at, (row, item) in enumerate(zip(shop.pool.row.tolist(), shop.pool.item.tolist(), strict=True)):
        wanted = expected(row, item)
        assert set(wanted) == set(names)
        for name, found in zip(names, out[at].tolist(), strict=True):
            assert found == pytest.approx(wanted[name], rel=tolerance, abs=tolerance, nan_ok=True), (name, row, item)


def sessions_of(events: list[Event]) -> list[int]:
    numbers = [0] * len(events)
    for i in range(1, len(events)):
        numbers[i] = numbers[i - 1] + (events[i][0] - events[i - 1][0] > HALF_HOUR)
    return numbers


def ratio(a: float, b: float) -> float:
    return a / b if b else NAN


def mean_cycle(shop: Case, smoothing: float) -> Callable[[int], float]:
    """Days between purchase days of an item by one user, drawn towards the shop's mean."""
    bought = defaultdict(set)
    for user, item, kind, time in zip(shop.past.user, shop.past.item, kinds_of(shop.past), shop.past.time, strict=True):
        if kind == BUY:
            bought[int(item), int(user)].add(int(time) // MILLISECONDS_PER_DAY)
    gaps = defaultdict(list)
    for (item, _), dates in bought.items():
        gaps[item] += [b - a for a, b in pairwise(sorted(dates))]
    every = [gap for of_item in gaps.values() for gap in of_item]
    shop_mean = ratio(sum(every), len(every))
    return lambda item: (sum(gaps[item]) + smoothing * shop_mean) / (len(gaps[item]) + smoothing)


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_user_item_by_hand(seed: int) -> None:
    shop = Case(seed)
    family = UserItem(half_lives_days=[1.0, 30.0], smoothing=2.0)
    family.fit(shop.shop)
    usual = mean_cycle(shop, 2.0)
    weight = {VIEW: 1.0, CART: 3.0, BUY: 5.0}

    def expected(row: int, item: int) -> Row:
        events = shop.events(row)
        session = sessions_of(events)
        own = [i for i, event in enumerate(events) if event[1] == item]
        age = {i: (shop.time - events[i][0]) / MILLISECONDS_PER_DAY for i in range(len(events))}
        kinds = {kind: [i for i in own if events[i][2] == kind] for kind in RETAIL.names}
        stay = [min(events[i + 1][0] - events[i][0], HALF_HOUR) / 1000 if i + 1 < len(events) else 0 for i in own]
        newest = {e[1]: e[0] for e in events}
        dates = sorted({events[i][0] // MILLISECONDS_PER_DAY for i in kinds[BUY]})
        order_dates = {e[0] // MILLISECONDS_PER_DAY for e in events if e[2] == BUY}
        since = min((age[i] for i in kinds[BUY]), default=NAN)
        cycle = (dates[-1] - dates[0] + 2 * usual(item)) / (len(dates) - 1 + 2) if dates else NAN
        return {
            **{name: len(kinds[kind]) for name, kind in COUNTED.items()},
            "weight_hl_1d": sum(weight[events[i][2]] * 2 ** -age[i] for i in own),
            "weight_hl_30d": sum(weight[events[i][2]] * 2 ** (-age[i] / 30) for i in own),
            "harmonic": sum(1 / (1 + math.log(1 + (shop.time - events[i][0]) / 1000)) for i in own),
            "share": len(own) / len(events) if own else 0,
            "sessions": len({session[i] for i in own}),
            "in_last_session": float(any(session[i] == session[-1] for i in own)),
            "dwell": math.log(1 + sum(stay)),
            "in_cart": float(
                max((events[i][0] for i in kinds[CART]), default=0) > max((events[i][0] for i in kinds[BUY]), default=0)
            ),
            "purchase_days": len(dates),
            "days_since_last": min((age[i] for i in own), default=NAN),
            "days_since_first": max((age[i] for i in own), default=NAN),
            "recency_rank": 1 + sum(t > newest[item] for t in newest.values()) if own else NAN,
            "sessions_since": session[-1] - max(session[i] for i in own) if own else NAN,
            "days_since_purchase": since,
            "cycle_days": cycle,
            "due": since / max(cycle, 1) if dates else NAN,
            "order_share": len(dates) / len({d for d in order_dates if d >= dates[0]}) if dates else NAN,
        }

    compare(shop, family, expected)


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_user_by_hand(seed: int) -> None:
    shop = Case(seed)
    family = User()
    family.fit(shop.shop)

    def entropy(values: list[int]) -> float:
        if not values:
            return NAN
        shares = [values.count(v) / len(values) for v in set(values)]
        return -sum(p * math.log(p) for p in shares)

    def expected(row: int, item: int) -> Row:
        events = shop.events(row)
        n, session = len(events), sessions_of(shop.events(row))
        age = [(shop.time - e[0]) / MILLISECONDS_PER_DAY for e in events]
        dates = sorted({e[0] // MILLISECONDS_PER_DAY for e in events if e[2] == BUY})
        baskets = {(e[1], e[0] // MILLISECONDS_PER_DAY) for e in events if e[2] == BUY}
        since = min((a for a, e in zip(age, events, strict=True) if e[2] == BUY), default=NAN)
        gap = (dates[-1] - dates[0]) / (len(dates) - 1) if len(dates) > 1 else NAN
        repeats = sum(any(other == i and d < date for other, d in baskets) for i, date in baskets)
        categories = [int(shop.known.category[e[1]]) for e in events]
        n_days = len({e[0] // MILLISECONDS_PER_DAY for e in events})
        return {
            **{name: sum(e[2] == kind for e in events) for name, kind in COUNTED.items()},
            "items": len({e[1] for e in events}),
            "repeat": ratio(n, len({e[1] for e in events})),
            "active_days": n_days,
            "events_a_day": ratio(n, n_days),
            "days_since_last": min(age, default=NAN),
            "days_since_first": max(age, default=NAN),
            "days_since_purchase": since,
            "sessions": len(set(session)),
            "events_a_session": ratio(n, len(set(session))),
            "last_session_events": sum(s == session[-1] for s in session),
            "cart_rate": ratio(sum(e[2] == CART for e in events), n),
            "conversion": ratio(sum(e[2] == BUY for e in events), n),
            "events_7d_share": ratio(sum(a <= 7 for a in age), n),
            "purchase_days": len(dates),
            "purchase_gap": gap,
            "due": since / gap,
            "items_a_purchase_day": ratio(len(baskets), len(dates)),
            "repurchase_share": ratio(repeats, len(baskets)),
            "item_entropy": entropy([e[1] for e in events]),
            "category_entropy": entropy([c for c in categories if c >= 0]),
            "candidates": int(np.sum(shop.pool.row == row)),
        }

    compare(shop, family, expected)


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_item_by_hand(seed: int) -> None:
    shop = Case(seed)
    family = Item(windows_days=[2.0, 20.0], smoothing=10.0)
    family.fit(shop.shop)
    log = shop.past
    end = int(log.time[-1]) + 1
    rows = list(zip(log.user.tolist(), log.item.tolist(), kinds_of(log), log.time.tolist(), strict=True))
    price_changes = defaultdict(list)
    for item, _, prop, value in zip(shop.known.owner, shop.known.time, shop.known.prop, shop.known.value, strict=True):
        if shop.known.properties.ids[prop] == "price":
            price_changes[int(item)].append(float(shop.known.texts.ids[value].removeprefix("n")))

    def repeaters(item: int) -> tuple[int, int]:
        dates = defaultdict(set)
        for u, i, k, t in rows:
            if i == item and k == BUY:
                dates[u].add(t // MILLISECONDS_PER_DAY)
        return sum(len(d) > 1 for d in dates.values()), len(dates)

    loyal = [repeaters(i) for i in range(log.n_items)]

    def smoothed(part: float, whole: float, all_part: float, all_whole: float) -> float:
        return (part + 10 * all_part / max(all_whole, 1)) / (whole + 10)

    def expected(row: int, item: int) -> Row:
        def count(window: float | None, kind: str | None = None) -> int:
            return sum(
                i == item and (kind is None or k == kind) and (window is None or t >= end - days(window)) for _, i, k, t in rows
            )

        own = [(u, k, t) for u, i, k, t in rows if i == item]
        users = {u for u, _, _ in own}
        category = int(shop.known.category[item])
        of_category = sum(category >= 0 and int(shop.known.category[i]) == category for _, i, _, _ in rows)
        prices = price_changes[item]
        others = [p for p in prices if p != prices[-1]]
        bought = [t for _, k, t in own if k == BUY]
        return {
            **{f"{name}_{w:g}d": math.log(1 + count(w, k)) for w in (2, 20) for name, k in COUNTED.items()},
            **{name: math.log(1 + count(None, k)) for name, k in COUNTED.items()},
            "users": math.log(1 + len(users)),
            "buyers": math.log(1 + loyal[item][1]),
            **{f"users_{w}d": math.log(1 + len({u for u, _, t in own if t >= end - days(w)})) for w in (2, 20)},
            "trend_2d_20d": ((count(2) + 1) / 2) / ((count(20) + 1) / 20),
            "cart_rate": smoothed(count(None, CART), len(own), sum(k == CART for _, _, k, _ in rows), len(rows)),
            "conversion": smoothed(count(None, BUY), len(own), sum(k == BUY for _, _, k, _ in rows), len(rows)),
            "repeat": ratio(len(own), len(users)),
            "repeat_buyers": smoothed(*loyal[item], sum(a for a, _ in loyal), sum(b for _, b in loyal)),
            "category_share": ratio(len(own), of_category) if category >= 0 else NAN,
            "price": prices[-1] if prices else NAN,
            "price_change": prices[-1] / others[-1] - 1 if others else (0 if prices else NAN),
            "available": float(shop.known.available[item]),
            "days_since_last": (end - max(t for _, _, t in own)) / MILLISECONDS_PER_DAY if own else NAN,
            "days_since_purchase": (end - max(bought)) / MILLISECONDS_PER_DAY if bought else NAN,
            "age_days": (end - int(log.item_born[item])) / MILLISECONDS_PER_DAY,
        }

    compare(shop, family, expected)


def newest_distinct(events: list[Event], kind: str | None = None) -> list[int]:
    seen: list[int] = []
    for _, item, k in reversed(events):
        if item not in seen and kind in (None, k):
            seen.append(item)
    return seen


def test_all_items_of_the_newest_basket_are_last() -> None:
    """Items 9 and 3 of one instant share place 0, whatever their numbers; item 5 before them has two that are newer."""
    events = [(1, 5, BUY), (2, 3, BUY), (2, 9, BUY), (2, 3, VIEW)]
    queries = queries_of([[(item, kind, time) for time, item, kind in events]], now=3)
    assert [values.tolist() for values in newest_items(queries, 1)] == [[0, 0], [3, 9], [0, 0]]
    assert [values.tolist() for values in newest_items(queries, 3)] == [[0, 0, 0], [3, 9, 5], [0, 0, 2]]


def newest_placed(events: list[Event], k: int, kind: str | None = None) -> dict[int, int]:
    """The last `k` items with the number of items that are newer; those of one instant share it, and come all."""
    last = {item: when for when, item, what in events if kind in (None, what)}
    placed = {item: sum(other > when for other in last.values()) for item, when in last.items()}
    return {item: place for item, place in placed.items() if place < k}


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / length) if length > 0 else NAN


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_affinity_by_hand(seed: int) -> None:
    shop = Case(seed)
    family = Affinity(last_items=3, neighbours=50, max_user_items=4, dimensions=50)
    family.fit(shop.shop)
    n = shop.past.n_items
    sets = [set(newest_distinct(shop.events(row))[:4]) for row in range(shop.past.n_users)]
    together = np.array([[sum(i in s and j in s for s in sets) for j in range(n)] for i in range(n)], dtype=float)
    users = np.maximum(np.diag(together), 1)
    matrix = together / np.sqrt(np.outer(users, users))
    np.fill_diagonal(matrix, 0)
    dense = family.matrix.toarray()
    np.testing.assert_allclose(dense, matrix, atol=1e-6)

    def expected(row: int, item: int) -> Row:
        last = newest_placed(shop.events(row), 3)
        newest = {k: [matrix[j, item] for j in newest_placed(shop.events(row), 1, k)] for k in (None, CART, BUY)}
        links = [matrix[j, item] for j in last]
        vectors = family.vectors
        profile = {
            "cosine_last": newest_placed(shop.events(row), 1),
            "cosine_recent": last,
            "cosine_bought": newest_placed(shop.events(row), 3, BUY),
        }
        known = {name: [j for j in items if not np.isnan(vectors[j, 0])] for name, items in profile.items()}
        return {
            "covisit_last": sum(newest[None]) / max(len(newest[None]), 1),
            "covisit_carted": sum(newest[CART]) / max(len(newest[CART]), 1),
            "covisit_bought": sum(newest[BUY]) / max(len(newest[BUY]), 1),
            "covisit_sum": sum(links),
            "covisit_decayed": sum(0.8**place * link for place, link in zip(last.values(), links, strict=True)),
            "covisit_max": max(links, default=0),
            "covisit_links": sum(link > 0 for link in links),
            **{name: cosine(vectors[js].sum(axis=0), vectors[item]) if js else NAN for name, js in known.items()},
        }

    compare(shop, family, expected, tolerance=1e-4)


def test_embedding_keeps_the_geometry_of_the_links() -> None:
    """With all directions, cosines between item vectors are those between the items' rows of links."""
    shop = Case(3)
    family = Affinity(dimensions=50)
    family.fit(shop.shop)
    rows = family.matrix.toarray().astype(float)
    left, strength, _ = np.linalg.svd(rows)
    keep = shop.past.n_items - 1  # the most that a truncated decomposition has
    exact = left[:, :keep] * strength[:keep]
    for i in range(shop.past.n_items):
        for j in range(i):
            if rows[i].any() and rows[j].any():
                assert family.vectors[i] @ family.vectors[j] == pytest.approx(cosine(exact[i], exact[j]), abs=1e-3)


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_content_by_hand(seed: int) -> None:
    shop = Case(seed)
    family = Content(last_items=3, dimensions=8)
    family.fit(shop.shop)
    category, price = shop.known.category, shop.known.price.astype(float)
    parent = shop.known.tree.parent_of(category)
    vectors = family.vectors

    def level(of: np.ndarray, row: int, item: int, name: str) -> Row:
        events = shop.events(row)
        mine = [e for e in events if of[e[1]] == of[item]] if of[item] >= 0 else None
        if mine is None:
            return {f"{name}_{what}": NAN for what in ("events", "purchases", "share", "days_since_last")}
        return {
            f"{name}_events": len(mine),
            f"{name}_purchases": sum(e[2] == BUY for e in mine),
            f"{name}_share": len(mine) / len(events) if mine else 0,
            f"{name}_days_since_last": min(((shop.time - e[0]) / MILLISECONDS_PER_DAY for e in mine), default=NAN),
        }

    def expected(row: int, item: int) -> Row:
        events = shop.events(row)
        seen = [math.log(price[e[1]]) for e in events if not np.isnan(price[e[1]])]
        mine = math.log(price[item]) if price[item] > 0 else NAN
        groups = newest_placed(events, 1), newest_placed(events, 3)
        known = [[j for j in items if not np.isnan(vectors[j, 0])] for items in groups]
        priced = [(e[0], math.log(price[e[1]])) for e in events if not np.isnan(price[e[1]])]
        newest = [value for when, value in priced if when == priced[-1][0]]
        deviation = np.std(seen) if seen else NAN
        return {
            **level(category, row, item, "category"),
            **level(parent, row, item, "parent"),
            "price_z": (mine - np.mean(seen)) / (deviation + 0.1) if seen else NAN,
            "price_to_last": mine - np.mean(newest) if seen else NAN,
            "cheaper_than_seen": ratio(sum(p > mine + 1e-9 for p in seen), len(seen)) if not math.isnan(mine) else NAN,
            "property_last": cosine(vectors[known[0]].sum(axis=0), vectors[item]) if known[0] else NAN,
            "property_recent": cosine(vectors[known[1]].sum(axis=0), vectors[item]) if known[1] else NAN,
        }

    compare(shop, family, expected, tolerance=1e-4)


def test_items_that_share_words_are_close() -> None:
    items = np.arange(4)
    names = ["red tin box", "red tin box", "blue paper", "blue paper"]
    changes = pd.DataFrame({"item": items, "time": 0, "property": "name", "value": names})
    log = EventLog.build(np.zeros(4, int), items, [VIEW] * 4, np.arange(4) + 1, items, np.zeros(4, np.int64))
    family = Content(dimensions=3)
    family.fit(Shop.of(log, Catalogue.build(log.items, log.item_born, changes, name="name")))
    close = family.vectors[:4] @ family.vectors[:4].T
    np.testing.assert_allclose(close, [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], atol=1e-5)


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_customer_by_hand(seed: int) -> None:
    shop = Case(seed)
    family = Customer(smoothing=5.0, dimensions=8)
    family.fit(shop.shop)
    known = shop.shop.customers
    age = known.number("age")
    country = known.texts.own(known.latest("country"))
    events = list(zip(shop.past.user.tolist(), shop.past.item.tolist(), strict=True))
    words = family.customer_words[0] if len(family.customer_words) else None
    born = {country[u]: int(known.texts.exactly([country[u]])[0]) for u in range(shop.past.n_users) if country[u]}
    having = {value: sum(c == value for c in country) for value in born}
    place = sorted(born, key=lambda value: (-having[value], born[value]))

    def expected(row: int, item: int) -> Row:
        user = int(shop.queries.user[row])
        unknown = dict.fromkeys(("about_me_closeness", "age", "country_rank", "country_share", "country_lift"), NAN)
        if user < 0:
            return unknown
        row_of = {**unknown, "age": float(age[user])}
        if value := country[user]:
            row_of |= {"country_rank": place.index(value) + 1, "country_share": having[value] / sum(having.values())}
            of_value = [i for u, i in events if country[u] == value]
            share = sum(i == item for _, i in events) / len(events)
            if share:
                row_of["country_lift"] = math.log((of_value.count(item) + 5 * share) / (len(of_value) + 5) / share)
        fans = sorted({u for u, i in events if i == item and not np.isnan(words[u, 0])})
        if fans:
            row_of["about_me_closeness"] = cosine(words[fans].sum(axis=0), words[user])
        return row_of

    compare(shop, family, expected, tolerance=1e-4)


def test_nobody_known_no_columns() -> None:
    shop = Case(3)
    family = Customer()
    family.fit(Shop.of(shop.past, shop.known))
    assert family.columns((), shop.past.kinds) == ()
    matrix = computed(chosen("full", families=["source", "customer"]), shop)
    assert set(matrix.families) == {"source", "customer"}


def test_attributes_become_names_of_columns() -> None:
    shop = Case(3)
    rows = pd.DataFrame({"user": 0, "time": 0, "property": ["Größe (cm)", "größe cm", "?"], "value": ["1", "2", "3"]})
    family = Customer()
    family.fit(Shop.of(shop.past, shop.known, Customers.build(shop.past.users, shop.past.user_born, rows)))
    assert family.columns((), shop.past.kinds) == ("attribute", "größe_cm", "größe_cm_2")


@given(st.integers(0, 10_000))
@settings(max_examples=10)
def test_source_by_hand(seed: int) -> None:
    shop = Case(seed)
    pool = shop.pool

    def expected(row: int, item: int) -> Row:
        at = int(np.flatnonzero((pool.row == row) & (pool.item == item))[0])
        values: Row = {}
        ranks = []
        for s, source in enumerate(pool.sources):
            rank, score = int(pool.rank[s, at]), float(pool.score[s, at])
            best = pool.score[s, (pool.row == row) & (pool.rank[s] == 1)]
            ranks += [rank] if rank else []
            values |= {
                f"{source}_rank": rank or NAN,
                f"{source}_rrf": 1 / (60 + rank) if rank else 0,
                f"{source}_score": score,
                f"{source}_score_ratio": score / abs(float(best[0])) if rank else NAN,
            }
        return values | {
            "n_sources": len(ranks),
            "best_rank": min(ranks),
            "mean_rank": sum(ranks) / len(ranks),
            "fusion": sum(1 / (60 + r) for r in ranks),
        }

    compare(shop, Source(), expected)


def test_calendar_of_a_known_moment() -> None:
    pool = CandidatePool(
        np.array([0, 2]), np.array([0, 1], np.int32), (), np.empty((0, 2), np.int16), *[np.empty((0, 2), np.float32)] * 2
    )
    family = Calendar()
    for moment, wanted in {
        "2024-12-24 06:30": [6.5, 1, 24, 7, 359, 1],
        "2024-12-25 00:00": [0, 2, 25, 6, 360, 0],
        "2023-12-31 12:00": [12, 6, 31, 0, 365, 360],
    }.items():
        time = pd.Timestamp(moment).value // 10**6
        out = np.empty((2, 6), dtype=np.float32, order="F")
        family.compute(pool, queries_of([[]], now=time), out)
        assert out.tolist() == [wanted, wanted]


@given(st.lists(st.lists(st.sampled_from([NAN, -2.0, -0.0, 0.0, 1.0, 1.5, 3e8]), max_size=6), min_size=1, max_size=5))
def test_within_query_by_hand(values: list[list[float]]) -> None:
    x = np.array([v for row in values for v in row], dtype=np.float32)
    indptr = ragged.from_counts(np.array([len(row) for row in values]))
    item = ragged.within_row(indptr).astype(np.int32)
    empty = np.empty((0, len(x)))
    pool = CandidatePool(indptr, item, (), empty.astype(np.int16), empty.astype(np.float32), x)
    family = WithinQuery(of=["a__x", "left__out"])
    assert family.columns(("a__x",)) == ("a__x_rank", "a__x_z", "a__x_to_max")
    out = np.empty((len(x), 3), dtype=np.float32, order="F")
    family.compute(FeatureMatrix(x[:, None], ("a__x",), ("a",), pool), out)
    at = 0
    for row in values:
        known = [v for v in row if not math.isnan(v)]
        for v in row:
            if math.isnan(v):
                wanted = [NAN] * 3
            else:
                deviation, largest = np.std(known), max(abs(k) for k in known)
                z = (v - np.mean(known)) / deviation if deviation else 0
                wanted = [(1 + sum(k > v for k in known)) / len(row), z, v / largest if largest else 0]
            assert out[at].tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-4, nan_ok=True)
            at += 1


@pytest.mark.parametrize("family", [Affinity(), Content(), Item(), UserItem()])
def test_what_a_family_speaks_for_is_said_of_columns_that_it_has(family: FeatureFamily) -> None:
    for pattern in family.speaks_for:
        assert any(re.fullmatch(pattern, column) for column in family.columns((), RETAIL)), pattern
    silent = {column for column, codes in family.speakers({}, RETAIL).items() if not codes}
    ages = {"days_since_last", "days_since_purchase", "age_days"}
    assert silent == ({"repeat", "price", "price_change", *ages} if isinstance(family, Item) else set())


def test_columns_speak_for_what_their_source_or_column_does() -> None:
    features = chosen("standard")
    spoken = features.speakers({"als": TASTE, "random": NOTHING}, RETAIL)
    assert spoken["source__als_rank"] == TASTE
    assert not spoken["source__random_rank"]
    assert "source__fusion" not in spoken
    assert spoken["user_item__due"] == spoken["within_query__user_item__due_rank"] == {"due_again"}
    assert spoken["affinity__covisit_carted"] == TOGETHER | {"in_cart"}
    assert spoken["item__views_7d"] == {"popular_in_category", "trending", "popular"}
    assert not spoken["item__price"]
    assert not spoken["user__views"]
    assert spoken.keys() <= {name for of_family in features.columns(("als", "random"), RETAIL).values() for name in of_family}


def computed(features: FeatureSet, shop: Case) -> FeatureMatrix:
    features.fit(shop.shop)
    return features.compute(shop.pool, shop.queries)


@pytest.mark.parametrize("name", ["base", "standard", "full"])
def test_sets(name: str) -> None:
    """Column names carry the family; every family of a smaller set is in `full`; threads and blocks change nothing."""
    shop = Case(1)
    features = chosen(name)
    matrix = computed(features, shop)
    assert matrix.values.shape == (len(shop.pool), len(matrix.names))
    assert matrix.values.flags.f_contiguous
    assert all(column.startswith(f"{family}__") for column, family in zip(matrix.names, matrix.families, strict=True))
    assert len(set(matrix.names)) == len(matrix.names)
    assert set(matrix.families) == set(features.families) <= set(chosen("full").families)
    assert not np.isinf(matrix.values).any()


def test_small_blocks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Case(2)
    whole = computed(chosen("full"), shop)
    monkeypatch.setattr(features_base, "BLOCK", 5)
    np.testing.assert_array_equal(computed(chosen("full", threads=3), shop).values, whole.values)


@pytest.mark.parametrize("family", list(chosen("full").definitions))
def test_each_family_alone(family: str, tmp_path: Path) -> None:
    """The same twice, in any row order of the source, whatever the future holds, and after save and open."""
    families = [family] if family != "within_query" else ["source", "user_item", "within_query"]
    shop = Case(5)
    features = chosen("full", families=families)
    values = computed(features, shop).values
    assert len(values)
    np.testing.assert_array_equal(computed(chosen("full", families=families), shop).values, values)
    np.testing.assert_array_equal(computed(chosen("full", families=families), Case(5, shuffle=True)).values, values)
    np.testing.assert_array_equal(computed(chosen("full", families=families), Case(5, scramble_future=True)).values, values)
    features.save(tmp_path / "set")
    again = FeatureSet.open(tmp_path / "set")
    np.testing.assert_array_equal(again.compute(shop.pool, shop.queries).values, values)


def test_the_poison_is_poisonous() -> None:
    """A family that was given the whole log instead of the past would show that the future differs."""
    tables = []
    for shop in (Case(5), Case(5, scramble_future=True)):
        family = Item()
        family.fit(Shop.of(shop.log, shop.catalogue))
        tables.append(family.table)
    assert tables[0].shape != tables[1].shape or not np.array_equal(*tables, equal_nan=True)


def test_families_without_anything_to_learn_from() -> None:
    """An empty log and an item that came after the fit are described, not refused."""
    shop = Case(7)
    features = chosen("full")
    features.fit(shop.shop.before(0))
    assert len(features.compute(shop.pool, shop.queries).values) == len(shop.pool)
    empty = shop.pool.where(np.zeros(len(shop.pool), dtype=bool))
    assert features.compute(empty, shop.queries).values.shape[0] == 0


def test_mistakes_are_told_by_name() -> None:
    with pytest.raises(ConfigError, match=r"no family is called 'sorce'.*'source'"):
        chosen("full", families=["sorce"])
    with pytest.raises(ConfigError, match="more than once: item"):
        chosen("full", families=["item", "item"])
    shop = Case(1)
    wrong = FeatureSet(families=["source", "w"], definitions={"source": Source(), "w": WithinQuery(of=["source__fushion"])})
    with pytest.raises(ConfigError, match="source__fushion"):
        computed(wrong, shop)
