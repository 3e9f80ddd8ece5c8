"""How the candidate goes with what the user touched last, by what all users touched together."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import PositiveInt
from scipy import sparse

from recsys.component import State, component
from recsys.features.base import FeatureFamily
from recsys.features.embedding import Int64, cosines, newest_items, profiles, unit_vectors
from recsys.features.history import Rows, find
from recsys.shop import ragged
from recsys.shop.events import EventLog
from recsys.shop.kinds import Kinds
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool, Float32
from recsys.shop.queries import Queries
from recsys.shop.reasons import TOGETHER, Codes
from recsys.shop.shop import Shop

COLUMNS = (
    *("covisit_last", "covisit_carted", "covisit_bought"),
    *("covisit_sum", "covisit_decayed", "covisit_max", "covisit_links"),
    *("cosine_last", "cosine_recent", "cosine_bought"),
)


@component
class Affinity(FeatureFamily):
    """Co-visitation and embedding closeness between the candidate i and the query's own items j, i itself never counted.

    M(j, i) = users of both / √(users of j · users of i), over each user's newest `max_user_items` distinct items; the
    `neighbours` strongest i are kept for each j. (Linden, Smith and York, IEEE Internet Computing 2003; of the winners of OTTO
    all have such counts.)

    - `covisit_last`, `covisit_carted`, `covisit_bought`: mean M(j, i) over the items j touched, carted, bought last: several
      where they are of one instant, a basket
    - `covisit_sum`, `covisit_max`: Σ and max over the `last_items` newest j; `covisit_links`: how many of them have M > 0
    - `covisit_decayed`: Σ over them of 0.8^(items newer than j) · M(j, i)
    - `cosine_last`, `cosine_recent`, `cosine_bought`: cosine between i and the sum of the last j, that of the newest j and that
      of the newest j bought, in the space of the `dimensions` strongest singular directions of M
    """

    speaks_for: ClassVar[Mapping[str, Codes]] = {".*": TOGETHER, "covisit_carted": frozenset({"in_cart"})}
    last_items: PositiveInt = 20
    neighbours: PositiveInt = 50
    max_user_items: PositiveInt = 100
    dimensions: PositiveInt = 32
    seed: int = 0

    def __post_init__(self) -> None:
        self.matrix = sparse.csr_matrix((0, 0), dtype=np.float32)
        self.vectors = np.full((1, self.dimensions), np.nan, dtype=np.float32)

    def columns(self, sources: tuple[str, ...], kinds: Kinds) -> tuple[str, ...]:
        """See the class."""
        return COLUMNS

    def fit(self, past: Shop) -> None:
        """Count co-visits of the past and find their directions."""
        log = past.log
        user_item = _newest_pairs(log, self.max_user_items)
        together = (user_item.T @ user_item).tocsr()
        together.setdiag(0)
        together.eliminate_zeros()
        scale = 1 / np.sqrt(np.maximum(user_item.sum(axis=0).A1, 1))
        row = ragged.row_numbers(together.indptr.astype(np.int64))
        together.data *= (scale[row] * scale[together.indices]).astype(np.float32)
        self.matrix = _strongest(together, self.neighbours)
        self.vectors = unit_vectors(self.matrix, self.dimensions, self.seed)

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """Walk the links of each query's items and add them up where they lead to a candidate."""
        carted, bought = queries.has_role("cart"), queries.has_role("purchase")
        row, item, place = newest_items(queries, self.last_items)
        at, value, of_link = self._links(pool, row, item)
        n = len(pool)
        for column, chosen in enumerate((None, carted, bought)):
            of, its, _ = newest_items(queries, 1, chosen)
            to, weight, _ = self._links(pool, of, its)
            basket = np.maximum(np.bincount(of, minlength=len(queries)), 1)
            out[:, column] = np.bincount(to, weight, minlength=n) / basket[pool.row]
        out[:, 3] = np.bincount(at, value, minlength=n)
        out[:, 4] = np.bincount(at, value * np.power(0.8, place, dtype=np.float32)[of_link], minlength=n)
        out[:, 5] = 0
        np.maximum.at(out[:, 5], at, value)
        out[:, 6] = np.bincount(at, minlength=n)
        newest_bought = newest_items(queries, self.last_items, bought)
        groups = (row[place == 0], item[place == 0]), (row, item), newest_bought[:2]
        cosines(self.vectors, [profiles(self.vectors, of, its, len(queries)) for of, its in groups], pool, out[:, 7:])

    def _links(self, pool: CandidatePool, row: Int64, item: Int64) -> tuple[Int64, Float32, Rows]:
        """Links from the items of queries to candidates: candidate, weight and position in `row`, one each a link."""
        known = np.where(item < self.matrix.shape[0], item, -1)
        indptr, links = ragged.take(self.matrix.indptr, known)
        of_link = ragged.row_numbers(indptr)
        at, met = find(pool.key, pair_key(row[of_link], self.matrix.indices[links]))
        return at[met], self.matrix.data[links[met]], of_link[met]

    def state(self) -> State:
        """The links between items, and their vectors."""
        return {
            "indptr": self.matrix.indptr,
            "indices": self.matrix.indices,
            "links": self.matrix.data,
            "vectors": self.vectors,
        }

    def restore(self, state: State) -> None:
        """Take back `state`."""
        n = len(state["indptr"]) - 1
        self.matrix = sparse.csr_matrix((state["links"], state["indices"], state["indptr"]), shape=(n, n))
        self.vectors = state["vectors"]


def _newest_pairs(log: EventLog, most: int) -> sparse.csr_matrix:
    """1 for each user's newest distinct items, at most so many: `[users, items]`."""
    newest_first = np.arange(len(log) - 1, -1, -1)
    first = np.unique(pair_key(log.user[newest_first], log.item[newest_first]), return_index=True)[1]
    event = newest_first[first]
    event = event[np.lexsort((-event, log.user[event]))]
    event = event[ragged.within_row(ragged.from_counts(np.bincount(log.user[event], minlength=log.n_users))) < most]
    ones = np.ones(len(event), dtype=np.float32)
    return sparse.csr_matrix((ones, (log.user[event], log.item[event])), shape=(log.n_users, log.n_items))


def _strongest(matrix: sparse.csr_matrix, k: int) -> sparse.csr_matrix:
    """The `k` largest values of each row, ties by lower column."""
    matrix.sort_indices()
    indptr: npt.NDArray[np.int64] = matrix.indptr.astype(np.int64)
    row = ragged.row_numbers(indptr)
    kept = np.sort(ragged.descending(indptr, matrix.data)[ragged.within_row(indptr) < k])
    n = matrix.shape[0]
    result = sparse.csr_matrix((matrix.data[kept], (row[kept], matrix.indices[kept])), shape=(n, matrix.shape[1]))
    result.sort_indices()
    return result
