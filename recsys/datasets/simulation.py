"""A simulated shop in RetailRocket's schema: as large, as sparse and as unevenly visited, and free to share.

Visitors come in sessions and look at items near their tastes. A taste is a place on the shelf, which runs depth first
through the category tree and by price inside a category. Visitors come back to items seen before, put some in the cart
and buy some of those; regulars do so over months. Items are launched week by week, rise, fade and sell out. A few bots
look at everything.

All visitors are drawn at once, a *look* at a time: a view of one item, which a cart and a purchase may follow. Events a
visitor are the quantiles of the published distribution, carts and purchases are shared out in the published proportion,
so these hold at any scale; the other published figures are met by the defaults of `ShopSettings`.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass as pydantic_dataclass

from recsys.component import SETTINGS
from recsys.errors import ConfigError
from recsys.shop import ragged
from recsys.shop.events import Int64
from recsys.shop.kinds import RETAIL

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Share = Annotated[float, Field(ge=0, le=1)]
Chance = Annotated[float, Field(gt=0, le=1)]

VISITORS, CATALOGUE = 1_407_580, 417_053
EVENTS, CARTS, PURCHASES = 2_755_641, 68_966, 22_457
EVENTS_A_VISITOR = {1: 1.0, 2: 0.288, 5: 0.058, 50: 0.001, 7757: 0.5 / VISITORS}
"""Share of visitors with at least so many events; a power law between."""
CATEGORIES = (25, 200, 1444)
"""Categories a level of the tree, 1,669 in all; items belong to the deepest."""
ITEMS_A_CATEGORY = 100
"""A small shop leaves categories empty so that the others have so many items on average."""

START = 1_430_622_000_000
"""2015-05-03 03:00 UTC, in epoch milliseconds; snapshots of the properties are taken then and every week after."""
DAYS, WEEKS = 138, 20
MINUTE, HOUR, DAY, WEEK = 60, 3600, 86_400, 604_800  # seconds

NICHE, FADED, SOLD_OUT = 0.1, 0.1, 0.02
"""Demand for a niche item, a faded one and one that is sold out, where a usual, fresh one has 1."""


@pydantic_dataclass(frozen=True, config=SETTINGS)
class ShopSettings:
    """How visitors behave and how the shop changes."""

    bots: Share = 1 / 3
    """Share of the visitors with 50 or more events, the busiest of them, who look everywhere and never buy."""
    breaks: Share = 0.31
    """Chance that the next look opens a new session."""
    pace: PositiveFloat = 0.5
    """Median days between the sessions of one visitor."""
    regulars: Share = 0.6
    """Share of the visitors with 10 or more events (without the bots) who come back over months and buy more."""
    regular_pace: PositiveFloat = 10.0
    """Median days between the sessions of a regular."""
    regular_urge: PositiveFloat = 20.0
    """How much more a regular buys than another visitor with as many events."""
    returns: Share = 0.15
    """Chance that a look is at an item that the visitor has seen before."""
    revisits: Share = 0.5
    """Chance that a look with a cart or a purchase, in a later session, is at an item seen in an earlier one."""
    delays: Share = 0.15
    """Share of purchases made in a later session than the cart."""
    memory: Chance = 0.5
    """Chance that a return goes to the newest look, else to the one before it with the same chance, and so on."""
    loyalty: NonNegativeFloat = 1.0
    """Spread (log-normal sigma) of the urge to buy between visitors: 0 for none."""
    persistence: Chance = 0.7
    """Chance that a session follows the visitor's first taste, else the second with the same chance, else the third."""
    focus: Share = 0.9
    """Share of looks at new items that stay near the taste; the rest, alike: its category, its root, the shop."""
    neighbourhood: NonNegativeInt = 20
    """Items of its category on either side of a taste that are near it; for carts and purchases a quarter of the dearer."""
    turnover: Share = 0.3
    """Share of the catalogue launched after the first day."""
    half_life: PositiveFloat = 6.0
    """Median weeks in which the demand for an item halves."""
    shelf_life: PositiveFloat = 150.0
    """Mean weeks from launch until an item is sold out (`available` 0, hardly seen any more)."""
    niche: Share = 0.66
    """Share of the catalogue that hardly anybody looks for."""
    hits: NonNegativeFloat = 1.28
    """Spread (log-normal sigma) of the demand for the other items."""


@dataclass(frozen=True, eq=False)
class Simulated:
    """A shop in RetailRocket's schema, rows in order of time.

    `events`: timestamp, visitorid, event, itemid, transactionid (one an order; missing elsewhere); `properties`:
    timestamp, itemid, property, value (text); `tree`: categoryid, parentid (missing at a root).
    """

    events: pd.DataFrame
    properties: pd.DataFrame
    tree: pd.DataFrame


def simulate(scale: float, seed: int = 0, settings: ShopSettings | None = None) -> Simulated:
    """A shop of `scale` times RetailRocket's size: 1 is 2.76 M events, 1.4 M visitors, 235 k items with events.

    The same arguments give the same shop. Raises `ConfigError` for a scale too small for one purchase, and for settings
    that ask for more sessions than the period has room for.
    """
    if not 1 <= scale * PURCHASES < np.inf:
        raise ConfigError(f"scale: wanted at least {1 / PURCHASES:.1e}, room for one purchase, found {scale}")
    settings = settings or ShopSettings()
    rng = np.random.Generator(np.random.PCG64(seed))
    shelf = _stock(rng, round(CATALOGUE * scale), settings)
    looks = _visit(rng, round(VISITORS * scale), settings)
    item = shelf.item_id[_choose(rng, looks, shelf, settings)]
    return Simulated(_events(rng, looks, item), _properties(rng, shelf), _tree(shelf))


@dataclass(frozen=True, eq=False)
class _Shelf:
    """Items in shelf order. `launch` and `sold_out` are weeks, before 0 for what happened before the first day.

    `category_id` and `parent` (a position, −1 at a root) are the tree, level after level. `demand[w * (n + 1) + i]` is
    the demand of all weeks before `w` (1 each) and that of week `w` for the items left of place `i`.
    """

    item_id: Int64
    leaf: Int64
    root: Int64
    price: Int64
    launch: Int64
    sold_out: Int64
    demand: Float64
    category_id: Int64
    parent: Int64

    def draw(self, rng: np.random.Generator, week: Int64, low: Int64, high: Int64) -> Int64:
        """For each week an item from `low` to `high` − 1, by demand; from anywhere where none of them is there yet."""
        n = len(self.item_id)
        row = week * (n + 1)
        none = self.demand[row + low] == self.demand[row + high]
        low, high = np.where(none, 0, low), np.where(none, n, high)
        left, right = self.demand[row + low], self.demand[row + high]
        wanted = left + rng.random(len(week)) * (right - left)
        place, order = np.empty(len(week), dtype=np.int64), np.argsort(wanted)
        place[order] = np.searchsorted(self.demand, wanted[order], side="right")  # neighbours' searches share the cache
        return np.clip(place - 1 - row, low, high - 1)


def _stock(rng: np.random.Generator, n: int, settings: ShopSettings) -> _Shelf:
    roots, branches, leaves = CATEGORIES
    root_of_branch = np.sort(rng.integers(roots, size=branches))
    branch_of_leaf = np.sort(rng.integers(branches, size=leaves))
    parent = np.concatenate([np.full(roots, -1), root_of_branch, roots + branch_of_leaf])
    size = rng.lognormal(sigma=1.3, size=leaves)
    size[np.argsort(size)[: -max(n // ITEMS_A_CATEGORY, roots)]] = 0
    leaf = np.sort(rng.choice(leaves, size=n, p=size / size.sum()))
    price = rng.lognormal(mean=8, sigma=1.0, size=leaves)[leaf] * rng.lognormal(sigma=0.6, size=n)

    launch = np.where(rng.random(n) < settings.turnover, rng.integers(1, WEEKS, size=n), -rng.integers(44, size=n))
    launch -= max(launch.min(), 0)
    sold_out = launch + 2 + rng.exponential(settings.shelf_life, size=n).astype(np.int64)
    half_life = settings.half_life * rng.lognormal(sigma=0.8, size=n)
    appeal = rng.lognormal(sigma=settings.hits, size=n)
    niche = rng.random(n) < settings.niche
    appeal[niche] = NICHE * rng.lognormal(sigma=0.3, size=niche.sum())
    demand = np.zeros((WEEKS, n + 1))
    for week in range(WEEKS):
        age = np.maximum(week - launch, 0)
        rise, fade = np.minimum(age + 1, 3) / 3, FADED + (1 - FADED) * 0.5 ** (age / half_life)
        on_sale = np.where(week < launch, 0, np.where(week < sold_out, 1, SOLD_OUT))
        np.cumsum(appeal * rise * fade * on_sale, out=demand[week, 1:])
        demand[week] = week + demand[week] / demand[week, -1]
    return _Shelf(
        item_id=rng.permutation(round(n * 1.12))[:n],
        leaf=leaf,
        root=root_of_branch[branch_of_leaf[leaf]],
        price=_round_price(price[np.lexsort((price, leaf))]),
        launch=launch,
        sold_out=sold_out,
        demand=demand.ravel(),
        category_id=rng.permutation(len(parent) + 31)[: len(parent)],
        parent=parent,
    )


@dataclass(frozen=True, eq=False)
class _Looks:
    """What visitors do, by visitor and then by time, before it is known with which items.

    Visitor `v` has the looks `indptr[v]:indptr[v + 1]`. A look has a `depth` (1 view, 2 also a cart, 3 also a purchase)
    and as many events; `session` (numbered through all visitors) and `week` are those of its view. Each event has a
    `time` and an `event_session`.
    """

    indptr: Int64
    bot: Bool
    depth: Int64
    session: Int64
    week: Int64
    time: Int64
    event_session: Int64


def _visit(rng: np.random.Generator, n_visitors: int, settings: ShopSettings) -> _Looks:
    events = rng.permutation(_events_a_visitor(n_visitors))
    busy = np.flatnonzero(events >= 50)
    bot = np.zeros(n_visitors, dtype=np.bool_)
    bot[busy[np.argsort(-events[busy], kind="stable")[: round(len(busy) * settings.bots)]]] = True
    regular = ~bot & (events >= 10) & (rng.random(n_visitors) < settings.regulars)

    purchases, carts = (round(events.sum() * n / EVENTS) for n in (PURCHASES, CARTS))
    urge = rng.lognormal(sigma=settings.loyalty, size=n_visitors) * np.where(regular, settings.regular_urge, 1)
    bought = _share_out(rng, purchases, np.where(bot, 0, events // 3), urge)
    left = _share_out(rng, carts - purchases, np.where(bot, 0, (events - 3 * bought) // 2), urge)

    indptr = ragged.from_counts(events - 2 * bought - left)
    visitor, place = ragged.row_numbers(indptr), ragged.within_row(indptr)
    depth = np.where(place < bought[visitor], 3, np.where(place < (bought + left)[visitor], 2, 1))
    lateness = rng.random(len(depth)) ** np.where(depth == 3, 0.5, 1)
    depth = depth[np.lexsort((lateness, visitor))]

    look_indptr = ragged.from_counts(depth)
    look, kind = ragged.row_numbers(look_indptr), ragged.within_row(look_indptr)
    opens = (place == 0) | (rng.random(len(depth)) < np.where(bot[visitor], 0.02, settings.breaks))
    delayed = rng.random(len(depth)) < settings.delays
    opening = (opens[look] & (kind == 0)) | (delayed[look] & (kind == 2))
    session = np.cumsum(opening) - 1
    pace = np.where(regular, settings.regular_pace, settings.pace) * DAY * rng.lognormal(sigma=1.0, size=n_visitors)
    time = _times(rng, ragged.from_counts(events), opening, pace, np.where(bot, 0.05, 1.0))
    views = look_indptr[:-1]
    return _Looks(indptr, bot, depth, session[views], (time[views] - START) // (1000 * WEEK), time, session)


def _events_a_visitor(n: int) -> Int64:
    """The quantiles of `EVENTS_A_VISITOR`, busiest first: no chance is involved, so all scales have the same shares."""
    count, share = np.log(list(EVENTS_A_VISITOR)), np.log(list(EVENTS_A_VISITOR.values()))
    quantile = np.log((np.arange(n) + 0.5) / n)
    return np.floor(np.exp(np.interp(-quantile, -share, count)) + 1e-9).astype(np.int64)


def _share_out(rng: np.random.Generator, n: int, capacity: Int64, weight: Float64) -> Int64:
    """How many of `n` things each visitor gets, at most its capacity.

    Weighted draws without replacement: Efraimidis and Spirakis, Information Processing Letters 97 (2006).
    """
    owner = np.repeat(np.arange(len(capacity)), capacity)
    wait = rng.exponential(size=len(owner)) / weight[owner]
    return np.bincount(owner[np.argsort(wait, kind="stable")[:n]], minlength=len(capacity))


def _times(rng: np.random.Generator, indptr: Int64, opening: Bool, pace: Float64, hesitation: Float64) -> Int64:
    """Epoch milliseconds of each event, ascending inside a visitor.

    Time first runs evenly; then the clock makes hours of the day and days of the week busier or calmer, by factors from
    0.47 to 1.53, so that a gap of at least 60 or at most 12 minutes before stays on its side of 30 minutes.
    """
    visitor, first = ragged.row_numbers(indptr), indptr[:-1]
    thinking = np.clip(rng.lognormal(np.log(90), 1.1, size=len(visitor)), 5, 12 * MINUTE) * hesitation[visitor]
    away = np.where(opening, pace[visitor] * rng.lognormal(sigma=1.0, size=len(visitor)), 0)
    least = np.where(opening, HOUR, thinking)
    away[first] = least[first] = 0
    room = DAYS * DAY - 1 - np.add.reduceat(least, first)
    if room.min() <= 0:
        raise ConfigError(f"The busiest visitor's sessions do not fit into {DAYS} days: wanted fewer breaks or more bots")
    away *= np.minimum(1, 0.98 * room / np.maximum(np.add.reduceat(away, first), 1))[visitor]
    elapsed = np.cumsum(least + away)
    elapsed -= elapsed[first][visitor]
    arrival = rng.random(len(first)) * (room - np.add.reduceat(away, first))

    hour = np.arange(24 * DAYS) + 3
    weekend = np.isin(hour // 24 % 7, (0, 6))
    traffic = (1 + 0.5 * np.cos((hour - 20) * np.pi / 12)) * np.where(weekend, 0.95, 1.02)
    clock = np.append(0, np.cumsum(traffic)) * DAYS * DAY / traffic.sum()
    seconds = np.interp(arrival[visitor] + elapsed, clock, np.arange(24 * DAYS + 1) * HOUR)
    return START + 1 + (seconds * 1000).astype(np.int64)


def _choose(rng: np.random.Generator, looks: _Looks, shelf: _Shelf, settings: ShopSettings) -> Int64:
    """The place on the shelf of each look's item: a return copies an earlier look, others are drawn near a taste."""
    n, n_items = len(looks.depth), len(shelf.item_id)
    visitor, here, serious = ragged.row_numbers(looks.indptr), np.arange(n), looks.depth > 1
    first, opening = looks.indptr[:-1][visitor], np.searchsorted(looks.session, looks.session)
    resumes = serious & (opening > first)
    chance = np.where(resumes, settings.revisits, settings.returns)
    returns = (here > first) & (rng.random(n) < chance)
    back = np.where(resumes, opening, here) - rng.geometric(settings.memory, size=n)
    source = np.where(returns, np.maximum(back, first), here)
    while (source[source] != source).any():
        source = source[source]

    arrival = np.repeat(looks.week[looks.indptr[:-1]], 3)
    tastes = shelf.draw(rng, arrival, np.zeros_like(arrival), np.full_like(arrival, n_items)).reshape(-1, 3)
    followed = np.minimum(rng.geometric(settings.persistence, size=looks.session[-1] + 1), 3) - 1
    new = np.flatnonzero(~returns)
    taste = tastes[visitor[new], followed[looks.session[new]]]
    leaf_low, leaf_high, root_low, root_high = (
        np.searchsorted(level, level[taste], side) for level in (shelf.leaf, shelf.root) for side in ("left", "right")
    )
    dearer = np.where(serious[new], settings.neighbourhood // 4, settings.neighbourhood)
    near_low = np.maximum(leaf_low, taste - settings.neighbourhood)
    near_high = np.minimum(leaf_high, taste + dearer + 1)
    scope = np.searchsorted(settings.focus + np.arange(3) * (1 - settings.focus) / 3, rng.random(len(new)))
    scope[looks.bot[visitor[new]]] = 3
    low = np.choose(scope, [near_low, leaf_low, root_low, 0])
    high = np.choose(scope, [near_high, leaf_high, root_high, n_items])
    place = np.zeros(n, dtype=np.int64)
    place[new] = shelf.draw(rng, looks.week[new], low, high)
    return place[source]


def _events(rng: np.random.Generator, looks: _Looks, item_id: Int64) -> pd.DataFrame:
    visitor_id = rng.permutation(len(looks.bot))[ragged.row_numbers(looks.indptr)]
    kind = ragged.within_row(ragged.from_counts(looks.depth))
    bought = kind == RETAIL.names.index("transaction")
    sessions, order = np.unique(looks.event_session[bought], return_inverse=True)
    transaction_id = np.zeros(len(kind), dtype=np.int64)
    transaction_id[bought] = rng.permutation(len(sessions))[order]
    events = pd.DataFrame(
        {
            "timestamp": looks.time,
            "visitorid": np.repeat(visitor_id, looks.depth),
            "event": pd.Categorical.from_codes(kind, list(RETAIL.names)),
            "itemid": np.repeat(item_id, looks.depth),
            "transactionid": pd.arrays.IntegerArray(transaction_id, mask=~bought),
        }
    )
    return events.sort_values(["timestamp", "visitorid"], ignore_index=True)


def _properties(rng: np.random.Generator, shelf: _Shelf) -> pd.DataFrame:
    """Weekly snapshots of changes: all that is known of an item at its launch, later a price or that it is sold out.

    790 is the price, 159 a brand of the root category, 888 a style that ten neighbours share, 112 a number without meaning.
    """
    items = np.arange(len(shelf.item_id))
    known = np.maximum(shelf.launch, 0)
    ending = np.flatnonzero(shelf.sold_out > known)
    repriced = np.flatnonzero(rng.random(len(items)) < 0.3)
    new_price = _round_price(shelf.price[repriced] * rng.uniform(0.7, 1.1, size=len(repriced)))
    changes = [
        ("categoryid", items, known, _texts(shelf.category_id[sum(CATEGORIES[:2]) + shelf.leaf])),
        ("available", items, known, _texts((shelf.sold_out > known).astype(np.int64))),
        ("790", items, known, _texts(shelf.price, "n{}.000")),
        ("159", items, known, _texts(100_000 + 60 * shelf.root + rng.integers(60, size=len(items)))),
        ("888", items, known, _texts(300_000 + items // 10)),
        ("112", items, known, _texts(12 * rng.integers(1, 50, size=len(items)), "n{}.000")),
        ("790", repriced, known[repriced] + rng.integers(1, WEEKS, size=len(repriced)), _texts(new_price, "n{}.000")),
        ("available", ending, shelf.sold_out[ending], _texts(np.zeros(len(ending), dtype=np.int64))),
    ]
    names, places, weeks, texts = zip(*changes, strict=True)
    place, week = np.concatenate(places), np.concatenate(weeks)
    row = np.lexsort((place, week))
    row = row[: np.searchsorted(week[row], WEEKS)]
    return pd.DataFrame(
        {
            "timestamp": START + week[row] * WEEK * 1000,
            "itemid": shelf.item_id[place[row]],
            "property": np.repeat(np.array(names, dtype=object), [len(p) for p in places])[row],
            "value": np.concatenate(texts)[row],
        }
    )


def _round_price(price: Float64) -> Int64:
    return np.maximum(np.round(price, -1), 10).astype(np.int64)


def _texts(numbers: Int64, form: str = "{}") -> npt.NDArray[np.object_]:
    values, code = np.unique(numbers, return_inverse=True)
    return np.array([form.format(value) for value in values], dtype=object)[code]


def _tree(shelf: _Shelf) -> pd.DataFrame:
    parent = pd.arrays.IntegerArray(shelf.category_id[shelf.parent], mask=shelf.parent < 0)
    return pd.DataFrame({"categoryid": shelf.category_id, "parentid": parent})
