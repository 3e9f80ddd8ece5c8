"""How a union of sources orders its candidates, and how it would without some of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recsys.shop import ragged
from recsys.shop.pools import MAX_RANK, RRF_CONSTANT, CandidatePool, Float64, exact

Turns = Sequence[tuple[int, int]]
"""Sources in the order in which they choose, with the number of items that each adds at its turn."""


@dataclass(frozen=True)
class Fusion:
    """Σ over the sources of weight / (60 + rank), for ranks up to `depth`: the larger, the earlier.

    What the turns of the `plan` choose comes before everything else that has such a sum. What sources propose below `depth`
    comes after it, in the order of the same sum without `depth`, and what only a `fallback` proposes comes last, by rank.
    Sources are numbers into those of the pool.
    """

    weights: tuple[float, ...]
    """Weight of each source of the pool; one of weight 0 gives no candidate, except as a fallback."""
    depth: int = MAX_RANK
    plan: tuple[tuple[int, int], ...] = ()
    fallback: tuple[int, ...] = ()

    def among(self, members: Collection[int]) -> "Fusion":
        """The order of the union of these sources alone. Weights and turns stay as they are."""
        return replace(
            self,
            weights=tuple(weight if s in members else 0.0 for s, weight in enumerate(self.weights)),
            plan=tuple((s, places) for s, places in self.plan if s in members),
            fallback=tuple(s for s in self.fallback if s in members),
        )

    def beside(self, weight: float) -> "Fusion":
        """The order of the union with one more source, the last of the pool."""
        return replace(self, weights=(*self.weights, weight))

    @property
    def _scale(self) -> float:
        """A power of 2 that brings the weights to 1 or below, which keeps sums exact."""
        return float(2.0 ** -np.ceil(np.log2(max(*self.weights, 0.0) or 1.0)))

    @property
    def total(self) -> float:
        """The sum of the weights in the units of `parts`."""
        return self._scale * sum(self.weights)

    def parts(self, deepest: int) -> tuple[Float64, Float64]:
        """What a rank adds to the sum, down to `depth` and below it: `float64[s, deepest + 1]` each, 0 for rank 0."""
        rank = np.arange(deepest + 1)
        reciprocal = 1 / (RRF_CONSTANT + rank.astype(np.float64))
        reciprocal[0] = 0
        whole = exact(self._scale * np.array(self.weights)[:, None] * reciprocal)
        within = np.where(rank <= self.depth, whole, 0)
        return within, whole - within

    def order(self, pool: CandidatePool) -> Float64:
        """The value that orders the pool's candidates, 0 where none of the sources proposes one: `float64[n]`."""
        within, below = self.parts(int(pool.rank.max(initial=0)))
        fused, further = np.zeros((2, len(pool)))
        for s in range(len(self.weights)):
            fused += within[s][pool.rank[s]]
            further += below[s][pool.rank[s]]
        total = self.total or 1.0
        order = fused / total + chosen(pool, self.plan) * (fused > 0) / (RRF_CONSTANT + 1)
        late = (fused == 0) & (further > 0)
        order[late] = further[late] / total - 1
        for place, s in enumerate(self.fallback):
            filling = (order == 0) & (pool.rank[s] > 0)
            order[filling] = -(place * MAX_RANK + pool.rank[s][filling].astype(np.float64))
        return order


def by_rank(pool: CandidatePool, source: int) -> npt.NDArray[np.int64]:
    """The candidates that a source proposed, by query and then its rank."""
    rank = pool.rank[source]
    proposed = np.flatnonzero(rank)
    return proposed[np.lexsort((rank[proposed], pool.row[proposed]))]


def following(pool: CandidatePool, order: npt.NDArray[np.int64], taken: npt.NDArray[np.bool_], n: int) -> npt.NDArray[np.int64]:
    """The next `n` candidates of each query in `order` that are not taken yet."""
    fresh = order[~taken[order]]
    return fresh[ragged.within_row(ragged.from_counts(np.bincount(pool.row[fresh], minlength=pool.n_queries))) < n]


def chosen(pool: CandidatePool, plan: Turns) -> npt.NDArray[np.bool_]:
    """The candidates that the turns of a plan add: `bool[n]`."""
    taken = np.zeros(len(pool), dtype=bool)
    order = {source: by_rank(pool, source) for source, _ in plan}
    for source, places in plan:
        taken[following(pool, order[source], taken, places)] = True
    return taken
