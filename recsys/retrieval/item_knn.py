"""Items liked by the same users."""

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from scipy import sparse
from threadpoolctl import threadpool_limits

from recsys.component import component
from recsys.retrieval.item_to_item import ItemToItem, signals
from recsys.retrieval.sparse import SparseRows
from recsys.shop.events import EventLog
from recsys.shop.kinds import SIGNAL_WEIGHTS, KindWeights


@component
class ItemKNN(ItemToItem):
    """Item-item likeness of the (user, item) signals, by `implicit`'s nearest neighbours.

    `cosine` of the signals as they are (Sarwar et al., WWW 2001), of signals weighted by `tfidf`, or the inner product of
    signals weighted by `bm25`. An item is among its own neighbours.
    """

    name: ClassVar[str] = "item_knn"
    similarity: Literal["cosine", "tfidf", "bm25"] = "tfidf"
    """How two items are compared."""
    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """Weight of an event of each kind, summed over a (user, item) pair."""
    k1: NonNegativeFloat = 1.2
    """BM25 only: the higher, the more repetition counts."""
    b: Annotated[float, Field(ge=0, le=1)] = 0.75
    """BM25 only: how much long histories are discounted."""
    revisit: NonNegativeFloat = 1.0
    """How much an item of the query points to itself, beside its likeness to itself."""
    threads: NonNegativeInt = 0
    """0: all cores. The result does not depend on it."""

    def learn(self, log: EventLog) -> SparseRows:
        """The likest items of each item."""
        from implicit.nearest_neighbours import all_pairs_knn

        rows, n_items = signals(log, self.weights)
        if not len(rows.item):
            return SparseRows.empty(n_items)
        weighted = self._weighted(rows.matrix(n_items))
        with threadpool_limits(1, user_api="blas"):
            likest = all_pairs_knn(weighted, self.neighbours, show_progress=False, num_threads=self.threads)
        kept = likest.data != 0  # rows ascend, and those with fewer neighbours are padded with zeros
        return SparseRows.from_sorted(likest.row[kept], likest.col[kept], likest.data[kept], n_items)

    def _weighted(self, signals: sparse.csr_matrix) -> sparse.csr_matrix:
        """The (user, item) signals as `implicit` weighs them for this similarity; 0 where it divides by nothing."""
        from implicit.nearest_neighbours import bm25_weight, normalize, tfidf_weight

        of_items = signals.T.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.similarity == "bm25":
                weighted = bm25_weight(of_items, self.k1, self.b)
            else:
                weighted = normalize(tfidf_weight(of_items) if self.similarity == "tfidf" else of_items)
        weighted.data = np.nan_to_num(weighted.data, nan=0.0, posinf=0.0, neginf=0.0)
        return weighted.T.tocsr()
