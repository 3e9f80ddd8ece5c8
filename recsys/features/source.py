"""What retrieval said of a candidate: the evidence that the first stage hands to the second."""

import numpy as np

from recsys.component import component
from recsys.features.base import FeatureFamily
from recsys.pools import CandidatePool, Float32
from recsys.queries import Queries


@component
class Source(FeatureFamily):
    """Per source: rank, score, score / the query's best score; over all: number of sources, best rank, fused score.

    Raw scores drift when a retriever is refitted, hence ranks and per-query ratios beside them (chimuichimu, KDD Cup 2023;
    kiccho1101, OTTO). NaN where a source did not propose the candidate.
    """

    def columns(self, sources: tuple[str, ...]) -> tuple[str, ...]:
        """Three columns a source and three over all."""
        each = tuple(f"{source}_{what}" for source in sources for what in ("rank", "score", "score_ratio"))
        return (*each, "n_sources", "best_rank", "fusion")

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """Gather from the pool."""
        rank = np.where(pool.rank > 0, pool.rank, np.nan).astype(np.float32)
        for s in range(len(pool.sources)):
            best = np.full(pool.n_queries, np.nan, dtype=np.float32)
            first = pool.rank[s] == 1
            best[pool.row[first]] = np.abs(pool.score[s, first])
            best[best == 0] = np.nan
            out[:, 3 * s] = rank[s]
            out[:, 3 * s + 1] = pool.score[s]
            out[:, 3 * s + 2] = pool.score[s] / best[pool.row]
        out[:, -3] = (pool.rank > 0).sum(axis=0)
        out[:, -2] = np.nanmin(rank, axis=0) if len(pool) else 0
        out[:, -1] = pool.fusion
