"""Items that are described alike."""

from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeFloat, PositiveFloat
from scipy import sparse

from recsys.component import component
from recsys.retrieval.factors import decayed
from recsys.retrieval.item_to_item import ItemToItem
from recsys.retrieval.sparse import SparseRows
from recsys.shop import ragged
from recsys.shop.catalogue import Catalogue
from recsys.shop.events import EventLog, Int64
from recsys.shop.identity import Int32
from recsys.shop.kinds import SIGNAL_WEIGHTS, KindWeights
from recsys.shop.pairs import pair_key
from recsys.shop.reasons import CATEGORY, Codes
from recsys.shop.shop import Shop


@component
class Properties(ItemToItem):
    """Items whose properties share rare words with those of the query's items, as known at the cutoff.

    M[a, b] = popularity(b)^popularity_power · Σ over the words v of both of idf(v)² / (|a| · |b|), the cosine of TF-IDF vectors
    over (property, word). The text source of KDD Cup 2023's 6th (chimuichimu); it works on hashed texts such as RetailRocket's.
    """

    name: ClassVar[str] = "properties"
    speaks_for: ClassVar[Codes] = CATEGORY
    max_items: Annotated[int, Field(ge=2)] = 1000
    """A word of more items says little of any, and is left out; it bounds the work: items · words · `max_items`."""
    popularity_power: NonNegativeFloat = 0.3
    """How much an item's recent popularity counts; 0: not at all."""
    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """What an event of each kind counts for an item's popularity, beside 1 that every item has."""
    half_life_days: PositiveFloat = 14.0
    """Days after which such an event counts half."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.words = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)

    def fit(self, past: Shop) -> None:
        """Compare the words of the items."""
        self.words = _words(past.catalogue)
        super().fit(past)

    def learn(self, log: EventLog) -> SparseRows:
        """The likeness of items that share a word, times the popularity of the second."""
        (item, word), n = self.words, log.n_items
        count = np.bincount(word, minlength=1)
        kept = (count[word] >= 2) & (count[word] <= self.max_items)
        idf = np.log(n / np.maximum(count, 1))
        matrix = sparse.csr_matrix((idf[word[kept]], (item[kept], word[kept])), shape=(n, len(count)))
        length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1))).ravel()
        unit = sparse.diags(1 / np.where(length > 0, length, 1)) @ matrix
        recent = decayed(log.weigh(self.weights), log.time[-1] - log.time, self.half_life_days)
        popularity = 1 + np.bincount(log.item, weights=recent, minlength=n)
        target = (sparse.diags(popularity**self.popularity_power) @ unit).T.tocsr()
        likeness = SparseRows.from_matrix(unit.tocsr()).times_pruned(SparseRows.from_matrix(target), self.neighbours + 1)
        row = ragged.row_numbers(likeness.indptr)
        other = row != likeness.item
        return SparseRows.from_sorted(row[other], likeness.item[other], likeness.weight[other], n)


def _words(catalogue: Catalogue) -> tuple[Int32, Int64]:
    """Item and word of each distinct pair; a word is a part of a property's newest text, numbered per property.

    Properties that are known to hold numbers or addresses have no words.
    """
    newest = catalogue.newest()
    newest = newest[~catalogue.is_a("number", "link")[catalogue.prop[newest]]]
    item, text, prop = catalogue.owner[newest], catalogue.value[newest], catalogue.prop[newest]
    used, place = np.unique(text, return_inverse=True)
    parts = pd.Series(catalogue.texts.ids[used], dtype=object).astype(str).str.split().explode().dropna()
    number, _ = pd.factorize(parts, sort=True)
    of_text = sparse.csr_matrix((np.ones(len(parts)), (parts.index.to_numpy(), number)), shape=(len(used), len(parts) + 1))
    pairs = of_text[place].tocoo()
    words = pair_key(prop[pairs.row], pairs.col)
    _, word = np.unique(words, return_inverse=True)
    both = np.unique(pair_key(item[pairs.row], word))
    return (both >> 32).astype(np.int32), both & 0xFFFFFFFF
