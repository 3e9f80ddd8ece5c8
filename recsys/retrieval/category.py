"""What sells in the categories that the user looks at."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from scipy import sparse

from recsys.component import State, component
from recsys.retrieval._recent import RecentItems
from recsys.retrieval.base import Retriever
from recsys.retrieval.factors import decayed
from recsys.retrieval.item_to_item import banned
from recsys.retrieval.sparse import SparseRows
from recsys.shop.catalogue import CategoryTree
from recsys.shop.kinds import SIGNAL_WEIGHTS, KindWeights
from recsys.shop.pools import Ranking
from recsys.shop.queries import Queries
from recsys.shop.reasons import CATEGORY, Codes
from recsys.shop.shop import Shop


@component
class Category(Retriever):
    """Items of the categories of the query's newest items, as known at the cutoff, by recent popularity in the category.

    score(b) = Σ over the query's items a of interest(a) · Σ over the levels l (0: a's category, 1: its parent, …) of
    level_decay^l · b's share of the recent events in that category and below, where interest(a) = place(a)^−recency_power ·
    Σ of the weights of the events with a. The most popular items of a user's last categories are a source of H&M's winners.
    """

    name: ClassVar[str] = "category"
    speaks_for: ClassVar[Codes] = CATEGORY
    category_items: PositiveInt = 200
    """Most items that a category keeps."""
    levels: PositiveInt = 2
    """Categories asked: 1 for an item's own, 2 with its parent, …"""
    level_decay: Annotated[float, Field(gt=0, le=1)] = 0.3
    """What a parent counts, where its child counts 1."""
    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """What an event of each kind counts, for an item's popularity and in the query."""
    half_life_days: PositiveFloat = 14.0
    """Days after which an event counts half for an item's popularity."""
    recency_power: NonNegativeFloat = 0.5
    """How fast interest falls with the place of an item in the history, newest first; 0: place does not matter."""
    query_items: PositiveInt = 20
    """So many of the query's newest items say which categories."""

    def __post_init__(self) -> None:
        self.category = np.empty(0, dtype=np.int32)
        self.best = SparseRows.empty()

    def fit(self, past: Shop) -> None:
        """Popularity inside every category."""
        log, catalogue = past.log, past.catalogue
        self.category = catalogue.category
        shape = (len(catalogue.tree), catalogue.n_items)
        age = log.time.max(initial=0) - log.time
        recent = decayed(log.weigh(self.weights), age, self.half_life_days)
        popularity = np.bincount(log.item, weights=recent, minlength=catalogue.n_items)
        item = np.flatnonzero((popularity > 0) & (self.category >= 0))
        direct = sparse.csr_matrix((popularity[item], (self.category[item], item)), shape=shape)
        inside = _line(catalogue.tree, len(catalogue.tree), 1.0).T @ direct
        total = np.asarray(inside.sum(axis=1)).ravel()
        share = (sparse.diags(1 / np.where(total > 0, total, 1)) @ inside).tocsr()
        best = SparseRows.from_matrix(share).pruned(self.category_items).matrix(catalogue.n_items)
        self.best = SparseRows.from_matrix((_line(catalogue.tree, self.levels, self.level_decay) @ best).tocsr())

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        """The items that sell best where the query's items are."""
        recent = RecentItems.of(queries)
        weight = np.zeros(len(recent.item))
        np.add.at(weight, recent.of_event, queries.weigh(self.weights))
        weight *= (recent.place + 1.0) ** -self.recency_power
        category = np.append(self.category, np.int32(-1))[np.minimum(recent.item, len(self.category))]
        kept = (recent.rank < self.query_items) & (weight > 0) & (category >= 0)
        of_query = SparseRows.from_sorted(recent.row[kept], category[kept], weight[kept], len(queries))
        return of_query.times_top(self.best, k, banned=banned(self, queries))

    def state(self) -> State:
        """The category of each item, and for each category the shares of items in it and in its ancestors."""
        return {**self.best.state(), "category": self.category}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.category = state["category"]
        self.best = SparseRows(state["indptr"], state["item"], state["weight"])


def _line(tree: CategoryTree, levels: int, decay: float) -> sparse.csr_matrix:
    """decay^l where a column is the l-th ancestor of a row (0: itself), for l below `levels`: `[categories, categories]`."""
    n = len(tree)
    line, ancestor = sparse.csr_matrix((n, n)), np.arange(n, dtype=np.int32)
    for level in range(levels):
        known = np.flatnonzero(ancestor >= 0)
        if not len(known):
            break
        line = line + sparse.csr_matrix((np.full(len(known), decay**level), (known, ancestor[known])), shape=(n, n))
        ancestor = tree.parent_of(ancestor)
    return line
