"""A linear model of items from items, in closed form."""

from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from scipy import linalg, sparse
from threadpoolctl import threadpool_limits

from recsys.component import component
from recsys.retrieval._dense import most_used, strongest
from recsys.retrieval.item_to_item import ItemToItem
from recsys.retrieval.sparse import SparseRows
from recsys.shop.events import EventLog
from recsys.shop.kinds import KindWeights
from recsys.shop.pairs import pair_key


@component
class EASE(ItemToItem):
    """The ridge regression of every item on all others (Steck, WWW 2019): M = I − P / diag(P), P = (XᵀX + λI)⁻¹.

    X holds the strongest signal of each (user, item) pair. An item's own weight is 0 by construction, hence `revisit`. The
    model is dense while it is fitted: it covers the `max_items` items with most users and takes three matrices of
    4 · max_items² bytes (300 MB by default). Of each row the `neighbours` weights of greatest magnitude are kept.
    """

    name: ClassVar[str] = "ease"
    regularization: PositiveFloat = 200.0
    """λ: the higher, the more only frequent pairs count."""
    weights: KindWeights = Field(default={"view": 0.5, "cart": 1.0, "purchase": 1.0})
    """Signal of an event of each kind (Polimi, RecSys Challenge 2022: views 0.2 to 0.5)."""
    max_items: Annotated[int, Field(gt=0, le=30_000)] = 5_000
    """Most items in the model: time grows with its third power, memory with its second (11 GB at the most allowed)."""
    min_users: PositiveInt = 2
    """Items with fewer users stay out."""
    revisit: NonNegativeFloat = 1.0
    """How much an item of the query points to itself; the weights of its neighbours are rarely above 0.2."""

    def learn(self, log: EventLog) -> SparseRows:
        """Solve for the most used items; the others have empty rows."""
        signal = log.weigh(self.weights)
        keys, of_event = np.unique(pair_key(log.user, log.item)[signal > 0], return_inverse=True)
        most = np.zeros(len(keys))
        np.maximum.at(most, of_event, signal[signal > 0])
        user, item = keys >> 32, keys & 0xFFFFFFFF
        chosen, column = most_used(np.bincount(item, minlength=log.n_items), self.max_items, self.min_users)
        if not len(chosen):
            return SparseRows.empty(log.n_items)
        kept = column[item] >= 0
        x = sparse.csc_matrix((most[kept], (user[kept], column[item[kept]])), shape=(log.n_users, len(chosen)))
        model = solve((x.T @ x).astype(np.float32).toarray(), self.regularization)
        return strongest(model, self.neighbours, chosen, log.n_items)


def solve(gram: npt.NDArray[np.float32], regularization: float) -> npt.NDArray[np.float32]:
    """EASE's weights from XᵀX, which is overwritten: −P / diag(P) by column, with a diagonal of 0."""
    diagonal = np.diag_indices_from(gram)
    gram[diagonal] += regularization
    with threadpool_limits(1, user_api="blas"):
        factor, failed = linalg.lapack.spotrf(gram.T, lower=False, overwrite_a=True)
        inverse, failed_too = linalg.lapack.spotri(factor, lower=False, overwrite_c=True)
    if failed or failed_too:
        raise np.linalg.LinAlgError("EASE: XᵀX + λI is not positive definite in float32; raise regularization")
    weights: npt.NDArray[np.float32] = np.triu(inverse, 1)
    weights += weights.T
    weights /= -np.diag(inverse)
    return weights
