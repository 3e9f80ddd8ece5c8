"""How the candidate does with everybody."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveFloat

from recsys.component import State, component
from recsys.features.base import FeatureFamily
from recsys.features.history import Float64, count_distinct
from recsys.shop.catalogue import Catalogue
from recsys.shop.events import MILLISECONDS_PER_DAY, EventLog, days
from recsys.shop.kinds import RETAIL, Kinds
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool, Float32
from recsys.shop.queries import Queries
from recsys.shop.reasons import SHOP, Codes
from recsys.shop.shop import Shop

AGES = ("days_since_last", "days_since_purchase", "age_days")


@component
class Item(FeatureFamily):
    """Activity, conversion, loyalty, price and age of an item. Windows and ages count back from the newest event of the log.

    - `views_<d>d`, `carts_<d>d`, `purchases_<d>d`: log(1 + events of the role in the last d days); `views`, …: the same over
      all time; `<kind>s_<d>d`, `<kind>s`: as these, for each kind without a role
    - `users`, `buyers`: log(1 + distinct users with any event, with a purchase); `users_<d>d`: in the last d days
    - `trend_<a>d_<b>d`, for neighbouring windows: ((events in a + 1) / a) / ((events in b + 1) / b)
    - `cart_rate`, `conversion`: (cart events or purchases + m · p) / (events + m), p the shop's own rate, m = `smoothing`
    - `repeat`: events a distinct user; `repeat_buyers`: (buyers with two purchase days or more + m · p) / (buyers + m)
    - `category_share`: part of its category's events that are with it (NaN: no category)
    - `price`, `price_change` (newest / the one before − 1, 0 for a price that never changed), `available`: as of the cutoff
    - `days_since_last`, `days_since_purchase`, `age_days`: days since the newest event, the newest purchase, and since the item
      appeared in the log or the catalogue
    """

    speaks_for: ClassVar[Mapping[str, Codes]] = {
        r"users(_.*)?|available": SHOP,
        r"(views|carts|purchases)_7d|category_share": frozenset({"popular_in_category"}),
        r"trend_.*|\w+_[17]d": frozenset({"trending"}),
        r"purchases(_.*)?|buyers|conversion|repeat_buyers": frozenset({"bestseller"}),
        r"(views|carts)(_.*)?|cart_rate": frozenset({"popular"}),
    }
    windows_days: Annotated[list[PositiveFloat], Field(min_length=2)] = Field(default=[1.0, 7.0, 28.0, 91.0])
    """Windows before the cutoff, ascending."""
    smoothing: PositiveFloat = 20.0
    """Events' (or buyers') worth of the shop's own rate."""

    def __post_init__(self) -> None:
        self.table = np.full((1, len(self.columns((), RETAIL))), np.nan, dtype=np.float32)

    def columns(self, sources: tuple[str, ...], kinds: Kinds) -> tuple[str, ...]:
        """See the class."""
        windows = [f"{window:g}d" for window in self.windows_days]
        return (
            *(f"{kind}s_{window}" for window in windows for kind in kinds.columns),
            *(f"{kind}s" for kind in kinds.columns),
            *("users", "buyers"),
            *(f"users_{window}" for window in windows),
            *(f"trend_{short}_{long}" for short, long in pairwise(windows)),
            *("cart_rate", "conversion", "repeat", "repeat_buyers", "category_share"),
            *("price", "price_change", "available"),
            *AGES,
        )

    def fit(self, past: Shop) -> None:
        """One row of values an item, and one for items that are not known."""
        log, catalogue = past.log, past.catalogue
        n = log.n_items
        end = int(log.time[-1]) + 1 if len(log) else 0
        first = [int(np.searchsorted(log.time, end - days(window))) for window in self.windows_days]
        windows = [_counts(log, start, n) for start in first]
        total = _counts(log, 0, n)
        events = total.sum(axis=1)
        rates = [_smoothed(total[:, log.kinds.columns.index(role)], events, self.smoothing) for role in ("cart", "purchase")]
        bought = log.where(log.has_role("purchase"))
        users, buyers = count_distinct(log.item, log.user, n), count_distinct(bought.item, bought.user, n)
        newest, newest_purchase = np.full(n, np.nan), np.full(n, np.nan)
        newest[log.item] = log.time
        newest_purchase[bought.item] = bought.time
        ages = [(end - time) / MILLISECONDS_PER_DAY for time in (newest, newest_purchase, log.item_born)]
        self.table = np.full((n + 1, len(self.columns((), log.kinds))), np.nan, dtype=np.float32)
        columns = [
            *np.log1p(np.hstack([*windows, total])).T,
            np.log1p(users),
            np.log1p(buyers),
            *(np.log1p(count_distinct(log.item[start:], log.user[start:], n)) for start in first),
            *(
                ((a.sum(axis=1) + 1) / short) / ((b.sum(axis=1) + 1) / long)
                for (a, short), (b, long) in pairwise(zip(windows, self.windows_days, strict=True))
            ),
            *rates,
            _ratio(events, users),
            _smoothed(_repeat_buyers(bought, n), buyers, self.smoothing),
            _category_share(catalogue.category, events),
            catalogue.price,
            _price_change(catalogue),
            catalogue.available,
            *ages,
        ]
        for column, values in enumerate(columns):
            self.table[: len(values), column] = values

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """Gather by item."""
        from recsys.features import _kernels

        _kernels.gather(self.table, pool.item, out)

    def state(self) -> State:
        """The table of items."""
        return {"table": self.table}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.table = state["table"]


def _counts(log: EventLog, first: int, n: int) -> Float64:
    """Events of each item, by `Kinds.columns`, from position `first` on: `float64[n, columns]`."""
    width = len(log.kinds.columns)
    cell = log.item[first:].astype(np.int64) * width + log.kinds.column[log.kind[first:]]
    return np.bincount(cell, minlength=n * width).reshape(n, width).astype(np.float64)


def _ratio(part: npt.NDArray[np.number], whole: npt.NDArray[np.number]) -> Float64:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _smoothed(part: npt.NDArray[np.number], whole: npt.NDArray[np.number], weight: float) -> Float64:
    """`part / whole`, drawn towards the rate over all by `weight`."""
    rate = part.sum() / max(whole.sum(), 1)
    return np.asarray((part + weight * rate) / (whole + weight), dtype=np.float64)


def _repeat_buyers(bought: EventLog, n: int) -> npt.NDArray[np.int64]:
    """Users that bought an item on two days or more."""
    pairs, of_event = np.unique(pair_key(bought.item, bought.user), return_inverse=True)
    purchase_days = count_distinct(of_event, bought.time // MILLISECONDS_PER_DAY, len(pairs))
    return np.bincount(pairs[purchase_days > 1] >> 32, minlength=n)


def _category_share(category: npt.NDArray[np.int32], events: Float64) -> Float64:
    share = np.full(len(events), np.nan)
    known = np.flatnonzero(category >= 0)
    total = np.bincount(category[known], weights=events[known]) if len(known) else events[:0]
    share[known] = _ratio(events[known], total[category[known]])
    return share


def _price_change(catalogue: Catalogue) -> Float32:
    change = catalogue.price / np.where(np.isnan(catalogue.previous_price), catalogue.price, catalogue.previous_price) - 1
    return np.where(np.isfinite(change), change, np.nan).astype(np.float32)
