"""Items by chance: what a figure is worth that nobody worked for."""

from typing import ClassVar

import numpy as np

from recsys.component import State, component
from recsys.retrieval.base import Retriever
from recsys.shop.pairs import is_member, pair_key
from recsys.shop.pools import Ranking
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop


@component
class Random(Retriever):
    """Items that have been seen in an event, each equally likely, drawn anew for each user but the same in every run.

    All items lie in one shuffled circle; a user's list is the stretch of it that begins where a hash of the user points.
    """

    name: ClassVar[str] = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        self.item = np.empty(0, dtype=np.int32)

    def fit(self, past: Shop) -> None:
        """Shuffle the log's items."""
        log = past.log
        self.item = np.random.default_rng(self.seed).permutation(np.unique(log.item))

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        """The next `k` of the circle that `seen` allows."""
        n, excluded = len(self.item), self.excluded(queries)
        most = int(np.bincount(excluded >> 32, minlength=1).max()) if len(excluded) else 0
        depth = min(k + most, n)
        if not depth:
            return Ranking(
                np.full((len(queries), k), -1, dtype=np.int32), np.full((len(queries), k), -np.inf, dtype=np.float32)
            )
        place = (_hash(queries.user, self.seed)[:, None] % np.uint64(n) + np.arange(depth, dtype=np.uint64)) % np.uint64(n)
        row = np.repeat(np.arange(len(queries)), depth)
        item = self.item[place.astype(np.int64).ravel()]
        score = np.tile(1 - np.arange(depth) / n, len(queries)).astype(np.float32)
        allowed = ~is_member(pair_key(row, item), excluded)
        return Ranking.from_rows(row[allowed], item[allowed], score[allowed], len(queries), k)

    def state(self) -> State:
        """The circle."""
        return {"item": self.item}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.item = state["item"]


def _hash(user: np.typing.NDArray[np.int32], seed: int) -> np.typing.NDArray[np.uint64]:
    """Well mixed numbers of users (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        x = user.astype(np.uint64) + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)), dtype=np.uint64)
