"""Items reached by a random walk over users."""

from typing import ClassVar

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat

from recsys.component import component
from recsys.retrieval.item_to_item import ItemToItem, signals
from recsys.retrieval.sparse import SparseRows
from recsys.shop import ragged
from recsys.shop.events import EventLog
from recsys.shop.kinds import KindWeights


@component
class RP3Beta(ItemToItem):
    """M[a, b] = Σ over users u of (P[a, u] · P[u, b])^alpha / popularity(b)^beta (Paudel et al., ACM TiiS 2017).

    P[a, u] is the share of u in the signals of a, P[u, b] that of b in the signals of u, popularity(b) the sum of b's signals.
    An item is among its own neighbours.
    """

    name: ClassVar[str] = "rp3beta"
    alpha: PositiveFloat = 0.8
    """Below 1, rare transitions gain."""
    beta: NonNegativeFloat = 0.4
    """Discount of popular items."""
    weights: KindWeights = Field(default={"view": 1.0, "cart": 1.0, "purchase": 1.0})
    """Weight of an event of each kind, summed over a (user, item) pair."""
    revisit: NonNegativeFloat = 1.0
    """How much an item of the query points to itself, beside its way back to itself."""

    def learn(self, log: EventLog) -> SparseRows:
        """The items reached most from each item."""
        of_users, n_items = signals(log, self.weights)
        user, signal = ragged.row_numbers(of_users.indptr), of_users.weight.astype(np.float64)
        activity = np.bincount(user, weights=signal, minlength=len(of_users))
        popularity = np.bincount(of_users.item, weights=signal, minlength=n_items)
        to_item = (signal / activity[user]) ** self.alpha * popularity[of_users.item] ** -self.beta
        to_user = (signal / popularity[of_users.item]) ** self.alpha
        by_item = np.argsort(of_users.item, kind="stable")
        items = SparseRows.from_sorted(of_users.item[by_item], user[by_item], to_user[by_item], n_items)
        users = SparseRows(of_users.indptr, of_users.item, to_item.astype(np.float32))
        return items.times_pruned(users, self.neighbours)
