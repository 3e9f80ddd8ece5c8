"""NDCG of one set of candidates for many score vectors, quick enough to run after every boosting round."""

import numpy as np
import numpy.typing as npt

from recsys.ranking.base import Examples
from recsys.shop import ragged


class ValidationNdcg:
    """NDCG@k over all queries of a label window; what retrieval missed counts in the ideal, and ties keep retrieval order.

    Only the ranks of relevant candidates are needed: each is compared with the candidates of its own query.
    """

    def __init__(self, examples: Examples, k: int = 10) -> None:
        pool, truth = examples.features.pool, examples.truth
        self.k = k
        positive = np.flatnonzero(examples.grade > 0)
        self._indptr, self._rival = ragged.take(pool.indptr, pool.row[positive])
        self._of_rival = ragged.row_numbers(self._indptr)
        self._positive = positive
        own, ahead = positive[self._of_rival], pool.fusion[self._rival] - pool.fusion[positive][self._of_rival]
        self._earlier = (ahead > 0) | ((ahead == 0) & (self._rival < own))
        self._gain = examples.grade[positive].astype(np.float64)
        ideal = _ideal_dcg(truth.indptr, truth.grade, k)
        self._weight = 1.0 / ideal[pool.row[positive]]
        self._n_queries = max(len(truth), 1)

    def __call__(self, score: npt.NDArray[np.floating]) -> float:
        """Mean NDCG@k when the candidates are ordered by `score` (`[n]`)."""
        own = score[self._positive][self._of_rival]
        rival = score[self._rival]
        ahead = (rival > own) | ((rival == own) & self._earlier)
        rank = 1 + np.bincount(self._of_rival[ahead], minlength=len(self._positive))
        discounted = np.where(rank <= self.k, self._gain / np.log2(rank + 1), 0.0)
        return float((discounted * self._weight).sum() / self._n_queries)


def _ideal_dcg(indptr: npt.NDArray[np.int64], grade: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.float64]:
    row = ragged.row_numbers(indptr)
    best_first = grade[ragged.descending(indptr, grade)]
    place = ragged.within_row(indptr)
    gain = np.where(place < k, best_first / np.log2(place + 2), 0.0)
    return np.asarray(np.bincount(row, weights=gain, minlength=len(indptr) - 1), dtype=np.float64)
