"""Item vectors from what is seen close together, as word2vec has them for words."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from scipy import sparse
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

from recsys.component import component
from recsys.retrieval.factors import Factors, decayed
from recsys.shop.events import EventLog
from recsys.shop.kinds import SIGNAL_WEIGHTS, KindWeights
from recsys.shop.pools import Float32
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop


@component
class Item2Vec(Factors):
    """Item2vec (Barkan and Koenigstein, 2016) without its sampling: what skip-gram with negative sampling factorises.

    By Levy and Goldberg (NIPS 2014) that is the shifted positive pointwise mutual information of two items,
    max(0, log p(a, b) − log(p(a) · q(b)) − log(negatives)), with q ∝ count^smoothing. Pairs are at most `window` events apart
    in a user's history and count (window − distance + 1) / window, what word2vec's windows of random size come to (Levy,
    Goldberg and Dagan, TACL 2015). The truncated SVD, U · Σ^scale, is fast and the same every time. Vectors have unit length;
    a query's is the weighted mean over its history.
    """

    name: ClassVar[str] = "item2vec"
    factors: PositiveInt = 64
    window: PositiveInt = 10
    """Events on either side of an item that are its context."""
    negatives: PositiveFloat = 1.0
    """Negative samples a positive one: the shift is log(negatives)."""
    smoothing: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Power of a context's count: below 1, rare contexts count for less."""
    min_count: PositiveInt = 2
    """Items with fewer events have no vector."""
    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """Weight of an event of each kind in a query's history."""
    half_life_days: PositiveFloat | None = 7.0
    """Days after which an event of a query's history counts half; none: age does not matter."""
    scale: NonNegativeFloat = 0.5
    """Power of the singular values."""

    def fit(self, past: Shop) -> None:
        """Count pairs, weigh them, decompose."""
        log = past.log
        often = np.bincount(log.item, minlength=log.n_items) >= self.min_count
        self.item = np.flatnonzero(often).astype(np.int32)
        self.item_factors = np.zeros((len(self.item), self.factors), dtype=np.float32)
        pairs = self._pairs(log.where(often[log.item]))
        if not pairs.nnz:
            return
        rank = min(self.factors, len(self.item) - 1)
        with threadpool_limits(1, user_api="blas"):
            left, value, _ = svds(pairs, k=rank, v0=np.ones(len(self.item)), random_state=0)
        vectors = left * value**self.scale
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        self.item_factors[:, :rank] = vectors / np.where(length > 1e-9, length, np.inf)

    def query_vectors(self, queries: Queries) -> Float32:
        """The weighted mean of the items' unit vectors."""
        weight = decayed(queries.weigh(self.weights), queries.time - queries.event_time, self.half_life_days)
        return self.mean_of_history(queries, weight)

    def _pairs(self, log: EventLog) -> sparse.csr_matrix:
        """Shifted positive PMI of each pair of items: symmetric but for the smoothing."""
        _, order = log.by_user
        user, column = log.user[order], self.column(log.item[order])
        fresh = np.ones(len(order), dtype=bool)
        fresh[1:] = (user[1:] != user[:-1]) | (column[1:] != column[:-1])
        user, column = user[fresh], column[fresh]
        n = len(self.item)
        count = sparse.csr_matrix((n, n), dtype=np.float64)
        for distance in range(1, min(self.window, len(user) - 1) + 1):
            a, b = column[:-distance], column[distance:]
            near = (user[:-distance] == user[distance:]) & (a != b)
            weight = np.full(int(near.sum()), (self.window - distance + 1) / self.window)
            count = count + sparse.csr_matrix((weight, (a[near], b[near])), shape=(n, n))
        count = (count + count.T).tocoo()
        of_item = np.bincount(count.row, weights=count.data, minlength=n)
        of_context = of_item**self.smoothing
        with np.errstate(divide="ignore"):
            pmi = np.log(count.data * of_context.sum()) - np.log(of_item[count.row] * of_context[count.col] * self.negatives)
        kept = pmi > 0
        return sparse.csr_matrix((pmi[kept], (count.row[kept], count.col[kept])), shape=(n, n))
