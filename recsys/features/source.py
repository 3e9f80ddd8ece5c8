"""What retrieval said of a candidate: the evidence that the first stage hands to the second."""

from collections.abc import Mapping

from recsys.component import component
from recsys.features.base import FeatureFamily
from recsys.shop.kinds import Kinds
from recsys.shop.pools import CandidatePool, Float32
from recsys.shop.queries import Queries
from recsys.shop.reasons import Codes

EACH = ("rank", "rrf", "score", "score_ratio")


@component
class Source(FeatureFamily):
    """The evidence of each source and of all together.

    Per source, NaN where it did not propose the candidate but for `rrf`:

    - `<source>_rank`: from 1
    - `<source>_rrf`: 1 / (60 + rank), 0 where not proposed, so that it is a flag as well
    - `<source>_score`, `<source>_score_ratio`: the raw score, and its ratio to the size of the query's best

    Over all: `n_sources` that proposed it, their `best_rank` and `mean_rank`, and `fusion`, the score of retrieval order.

    Raw scores drift when a retriever is refitted, hence ranks and per-query ratios beside them (chimuichimu, KDD Cup 2023;
    kiccho1101, OTTO).
    """

    def columns(self, sources: tuple[str, ...], kinds: Kinds) -> tuple[str, ...]:
        """Four columns a source and four over all."""
        each = tuple(f"{source}_{what}" for source in sources for what in EACH)
        return (*each, "n_sources", "best_rank", "mean_rank", "fusion")

    def speakers(self, sources: Mapping[str, Codes], kinds: Kinds) -> dict[str, Codes]:
        """The columns of a source speak for what it does."""
        return {f"{source}_{what}": codes for source, codes in sources.items() for what in EACH}

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """Gather from the pool."""
        from recsys.features import _kernels

        _kernels.evidence(pool.rank, pool.score, pool.indptr, out)
        out[:, -1] = pool.fusion
