"""How the candidate fits what the user likes by what it is: category, price and properties, all as of the cutoff."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import PositiveInt
from scipy import sparse

from recsys.component import State, component
from recsys.features.base import FeatureFamily
from recsys.features.embedding import cosines, newest_items, profiles, unit_vectors
from recsys.features.history import ages, find, smallest
from recsys.features.words import tf_idf
from recsys.shop import ragged
from recsys.shop.catalogue import Catalogue
from recsys.shop.kinds import Kinds
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool, Float32
from recsys.shop.queries import Queries
from recsys.shop.reasons import CATEGORY, Codes
from recsys.shop.shop import Shop

LEVEL = ("events", "purchases", "share", "days_since_last")
COLUMNS = (
    *(f"category_{what}" for what in LEVEL),
    *(f"parent_{what}" for what in LEVEL),
    *("price_z", "price_to_last", "cheaper_than_seen"),
    *("property_last", "property_recent"),
)


@component
class Content(FeatureFamily):
    """Category, price and property closeness to the query's history. NaN where the catalogue does not say.

    - `category_events`, `category_purchases`: the user's events and purchases in the candidate's category;
      `category_share`: part of the user's events; `category_days_since_last`: age of the newest (NaN: none)
    - `parent_…`: the same for the category above
    - `price_z`: (ln price − mean) / (deviation + 0.1), mean and deviation over the user's events of the logarithm of price
    - `price_to_last`: ln(price / price of the last item), the geometric mean of those of one instant
    - `cheaper_than_seen`: part of the user's events with a dearer item
    - `property_last`, `property_recent`: cosine between the words of the candidate's properties and those of the last item, or
      of the `last_items` newest together, weighted by ln(items / items with the word), in a space of `dimensions` directions
      (latent semantic analysis; Deerwester et al., 1990)
    """

    speaks_for: ClassVar[Mapping[str, Codes]] = {".*": CATEGORY}
    last_items: PositiveInt = 20
    dimensions: PositiveInt = 32
    max_words: PositiveInt = 20_000
    """So many words are used at most, the most frequent first."""
    seed: int = 0

    def __post_init__(self) -> None:
        self.category = np.full(1, -1, dtype=np.int32)
        self.parent = np.full(1, -1, dtype=np.int32)
        self.log_price = np.full(1, np.nan, dtype=np.float32)
        self.vectors = np.full((1, self.dimensions), np.nan, dtype=np.float32)

    def columns(self, sources: tuple[str, ...], kinds: Kinds) -> tuple[str, ...]:
        """See the class."""
        return COLUMNS

    def fit(self, past: Shop) -> None:
        """Take categories, prices and words of the items as of the cutoff."""
        catalogue = past.catalogue
        self.category = np.append(catalogue.category, np.int32(-1))
        self.parent = catalogue.tree.parent_of(self.category)
        price = np.append(catalogue.price, np.float32(np.nan))
        self.log_price = np.log(price, out=np.full_like(price, np.nan), where=price > 0)
        self.vectors = unit_vectors(_words(catalogue, self.max_words), self.dimensions, self.seed)

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """Look up each candidate's category and price among the query's, and compare directions."""
        _level(self.category, pool, queries, out[:, :4])
        _level(self.parent, pool, queries, out[:, 4:8])
        self._prices(pool, queries, out[:, 8:11])
        row, item, place = newest_items(queries, self.last_items)
        chosen = (row[place == 0], item[place == 0]), (row, item)
        cosines(self.vectors, [profiles(self.vectors, of, its, len(queries)) for of, its in chosen], pool, out[:, 11:])

    def _prices(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        from recsys.features import _kernels

        n, price = len(queries), self.log_price.take(pool.item, mode="clip")
        seen = self.log_price.take(queries.item, mode="clip").astype(np.float64)
        known = ~np.isnan(seen)
        row, seen = queries.row[known], seen[known]
        newest = np.full(n, np.iinfo(np.int64).min)
        np.maximum.at(newest, row, queries.event_time[known])
        is_last = queries.event_time[known] == newest[row]
        with np.errstate(invalid="ignore", divide="ignore"):
            count = np.bincount(row, minlength=n)
            mean = np.bincount(row, seen, minlength=n) / count
            last = np.bincount(row[is_last], seen[is_last], minlength=n) / np.bincount(row[is_last], minlength=n)
            deviation = np.sqrt(np.bincount(row, (seen - mean[row]) ** 2, minlength=n) / count)
        z = (price - mean[pool.row]) / (deviation[pool.row] + 0.1)
        out[:, 0] = z
        out[:, 1] = price - last[pool.row]
        _kernels.share_above(price, pool.indptr, seen[np.lexsort((seen, row))], ragged.from_counts(count), out[:, 2])

    def state(self) -> State:
        """Category, its parent, log price and property direction of each item."""
        return {"category": self.category, "parent": self.parent, "log_price": self.log_price, "vectors": self.vectors}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.category, self.parent = state["category"], state["parent"]
        self.log_price, self.vectors = state["log_price"], state["vectors"]


def _level(category: npt.NDArray[np.int32], pool: CandidatePool, queries: Queries, out: Float32) -> None:
    """The four columns of one level of the tree, `category` giving each item's."""
    of_candidate, of_event = category.take(pool.item, mode="clip"), category.take(queries.item, mode="clip")
    known = of_event >= 0
    keys, pair = np.unique(pair_key(queries.row[known], of_event[known]), return_inverse=True)
    n = len(keys)
    bought = queries.has_role("purchase")[known]
    events = np.bincount(pair, minlength=n)
    per_pair: list[npt.NDArray[Any]] = [
        events,
        np.bincount(pair[bought], minlength=n),
        events / np.diff(queries.indptr)[keys >> 32],
        smallest(pair, ages(queries)[known], n),
    ]
    place, found = find(keys, pair_key(pool.row, of_candidate))
    place[~found] = n
    for column, (values, never) in enumerate(zip(per_pair, (0, 0, 0, np.nan), strict=True)):
        np.take(np.append(values, never).astype(np.float32), place, out=out[:, column], mode="clip")
        out[of_candidate < 0, column] = np.nan


def _words(catalogue: Catalogue, most: int) -> sparse.csr_matrix:
    """The words of the newest texts of each item, but not of numbers and addresses: `[items, words]`."""
    numeric = catalogue.properties.exactly([p or "" for p in (catalogue.price_property, catalogue.available_property)])
    no_words = catalogue.is_a("number", "link")
    no_words[numeric[numeric >= 0]] = True
    newest = catalogue.newest()
    return tf_idf(catalogue, newest[~no_words[catalogue.prop[newest]]], most)
