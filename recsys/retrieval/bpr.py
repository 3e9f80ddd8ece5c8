"""Matrix factorisation for order: an item of the user before one that is not."""

from typing import ClassVar

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from scipy import sparse

from recsys.component import component
from recsys.retrieval.factors import Factors, decayed, summed_pairs
from recsys.shop.kinds import SIGNAL_WEIGHTS, KindWeights
from recsys.shop.pools import Float32
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop


@component
class BPR(Factors):
    """Bayesian personalised ranking (Rendle et al., UAI 2009), by `implicit` on one thread: more would race for the factors.

    A query's vector is the mean of its items' factors, weighted by kind and age, instead of a user's own: the same for known
    and new users.
    """

    name: ClassVar[str] = "bpr"
    factors: PositiveInt = 64
    learning_rate: PositiveFloat = 0.05
    regularization: NonNegativeFloat = 0.01
    iterations: PositiveInt = 50
    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """Weight of an event of each kind in a query's history; the fit asks only whether it is above 0."""
    half_life_days: PositiveFloat | None = 30.0
    """Days after which an event of a query's history counts half; none: age does not matter."""
    min_user_items: PositiveInt = 2
    """Users with fewer distinct items are left out of the fit."""
    seed: int = 0

    def fit(self, past: Shop) -> None:
        """Factorise the (user, item) pairs of the log."""
        log = past.log
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        row, item, _ = summed_pairs(log.user, log.item, log.weigh(self.weights))
        kept = (np.bincount(row, minlength=log.n_users) >= self.min_user_items)[row]
        users, row = np.unique(row[kept], return_inverse=True)
        items, column = np.unique(item[kept], return_inverse=True)
        self.item = items.astype(np.int32)
        self.item_factors = np.empty((0, self.factors + 1), dtype=np.float32)
        if not len(users):
            return
        matrix = sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=(len(users), len(items)))
        model = BayesianPersonalizedRanking(
            factors=self.factors,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            iterations=self.iterations,
            num_threads=1,
            random_state=self.seed,
        )
        model.fit(matrix, show_progress=False)
        self.item_factors = model.item_factors

    def query_vectors(self, queries: Queries) -> Float32:
        """The weighted mean of the items' factors; the last one, an item's bias, counts once."""
        weight = decayed(queries.weigh(self.weights), queries.time - queries.event_time, self.half_life_days)
        vectors = self.mean_of_history(queries, weight)
        vectors[:, -1] = vectors[:, :-1].any(axis=1)
        return vectors
