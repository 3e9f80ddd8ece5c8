"""Accuracy of rankings and of candidate pools against the truth, a value a query.

Rankings are judged as they stand, over the full catalogue, with no sampled negatives. An item is relevant when the
truth holds it. A list shorter than k is legal: the places that it leaves empty count as not relevant, so that precision
still divides by k. A query without truth has the value 0 in every metric of relevance; it stays in the mean unless
`mean` is told to leave it out.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from recsys.errors import ConfigError
from recsys.shop import ragged
from recsys.shop.events import Int64
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool, Ranking
from recsys.shop.queries import Queries, Truth

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

METRICS = ("hit_rate", "ndcg", "mrr", "recall", "map", "precision", "filled")
CUTOFFS = (1, 3, 5, 10, 20)
POOL_CUTOFFS = (10, 20, 50, 100, 200, 500)


def names(ks: Sequence[int] = CUTOFFS) -> tuple[str, ...]:
    """The names that `per_query` gives its values, `hit_rate_at_1` and on, in its order.

    Raises `ConfigError` for a k below 1.
    """
    _check_cutoffs(ks)
    return tuple(f"{metric}_at_{k}" for metric in METRICS for k in ks)


def grades(ranking: Ranking, truth: Truth) -> Float64:
    """Grade of the item in each place, 0 where it is not relevant or the place is empty: `float64[q, k]`.

    Raises `ValueError` when ranking and truth are not of the same queries.
    """
    _check_queries(len(ranking), len(truth))
    return truth.grade_of(np.arange(len(ranking))[:, None], ranking.item).astype(np.float64)


def filled(ranking: Ranking, k: int) -> Float64:
    """Share of the first `k` places that hold an item: `float64[q]`."""
    _check_cutoffs([k])
    return ranking.top(k).length / k


def per_query(ranking: Ranking, truth: Truth, ks: Sequence[int] = CUTOFFS) -> dict[str, Float64]:
    """Every metric of `METRICS` at every k, `float64[q]` each, under the names of `names`.

    - `hit_rate`: 1 where the first k hold a relevant item.
    - `ndcg`: gain = grade, discount 1 / log2(rank + 1), divided by the most that k places could gain from all of the
      query's truth, retrieved or not (Järvelin and Kekäläinen, TOIS 2002).
    - `mrr`: 1 / rank of the first relevant item, 0 where it comes after k.
    - `recall`: share of the query's relevant items that are among the first k.
    - `map`: precision at the rank of each relevant item among the first k, summed and divided by the number of all the
      query's relevant items, as trec_eval and ranx do. (Others divide by k where that is less.)
    - `precision`: share of the k places that hold a relevant item.
    - `filled`: share of the k places that hold any item.

    Raises `ConfigError` for a k below 1, `ValueError` when ranking and truth are not of the same queries.
    """
    _check_cutoffs(ks)
    depth = max(ks)
    seen = grades(ranking.top(depth), truth)
    grade = np.pad(seen, ((0, 0), (0, depth - seen.shape[1])))
    rank = np.arange(1, depth + 1)
    discount = 1 / np.log2(rank + 1)
    hit = grade > 0
    hits = hit.cumsum(axis=1)
    relevant = truth.count[:, None]
    curves = {  # [q, depth]: column k − 1 is the metric at k
        "hit_rate": hits > 0,
        "ndcg": _ratio((grade * discount).cumsum(axis=1), (_best_grades(truth, depth) * discount).cumsum(axis=1)),
        "mrr": np.maximum.accumulate(hit / rank, axis=1),
        "recall": _ratio(hits, relevant),
        "map": _ratio((hit * hits / rank).cumsum(axis=1), relevant),
        "precision": hits / rank,
    }
    values = {f"{metric}_at_{k}": curve[:, k - 1].astype(np.float64) for metric, curve in curves.items() for k in ks}
    return values | {f"filled_at_{k}": filled(ranking, k) for k in ks}


def retrieval_rank(pool: CandidatePool, truth: Truth) -> Int64:
    """Place of each truth item in its query's retrieval order: `int64[m]`, from 1, 0 where retrieval missed it.

    Retrieval order is fusion descending, ties by item number; the result is in the order of `truth.item`.

    Raises `ValueError` when pool and truth are not of the same queries.
    """
    _check_queries(pool.n_queries, len(truth))
    at, retrieved = locate(pool, truth)
    rank = np.zeros(len(truth.item), dtype=np.int64)
    rank[retrieved] = places(pool, at[retrieved], pool.fusion)
    return rank


def locate(pool: CandidatePool, truth: Truth) -> tuple[Int64, Mask]:
    """The pool's row of each truth item and whether it has one."""
    if not len(pool):
        return np.zeros(len(truth.item), dtype=np.int64), np.zeros(len(truth.item), dtype=bool)
    at = np.minimum(np.searchsorted(pool.key, truth.key), len(pool) - 1)
    return at, pool.key[at] == truth.key


def places(pool: CandidatePool, at: Int64, score: npt.NDArray[np.floating]) -> Int64:
    """Place, from 1, of the candidates `at` (rows of the pool) in their queries' order by `score`, ties by item number."""
    from recsys.evaluation import _kernels

    place = np.empty(len(at), dtype=np.int64)
    _kernels.places(pool.indptr, pool.row[at], at, score, place)
    return place


def candidate_recall(pool: CandidatePool, truth: Truth, ks: Sequence[int] = POOL_CUTOFFS) -> dict[str, Float64]:
    """Share of each query's truth among its first k candidates in retrieval order, `float64[q]` under `recall_at_<k>`.

    No ranker can find more than this among k candidates. Raises as `per_query` does.
    """
    _check_cutoffs(ks)
    rank = retrieval_rank(pool, truth)
    row = ragged.row_numbers(truth.indptr)
    return {f"recall_at_{k}": _ratio(np.bincount(row[(rank > 0) & (rank <= k)], minlength=len(truth)), truth.count) for k in ks}


def mean(per_query: Mapping[str, Float64], where: Mask | None = None) -> dict[str, float]:
    """Mean of each metric over the queries, or over those marked in `where` (`bool[q]`); NaN over no query at all."""
    chosen = {name: values if where is None else values[where] for name, values in per_query.items()}
    return {name: float(values.mean()) if len(values) else float("nan") for name, values in chosen.items()}


def revisit(queries: Queries, truth: Truth) -> Mask:
    """Whether each truth item is in its query's history, by any kind of event: `bool[m]` in the order of `truth.item`.

    Raises `ValueError` when `queries` and `truth` are not of the same queries.
    """
    _check_queries(len(queries), len(truth))
    return np.isin(truth.key, pair_key(queries.row, queries.item))


def split_truth(truth: Truth, mask: Mask) -> Truth:
    """The truth items marked in `mask` (`bool[m]`) alone; every query stays, perhaps without truth.

    With the mask of `revisit` these are the revisits, with its inverse the discoveries. To average over the queries
    that have such an item, give `mean` the part's `count > 0`.
    """
    kept = np.bincount(ragged.row_numbers(truth.indptr)[mask], minlength=len(truth))
    return Truth(ragged.from_counts(kept), truth.item[mask], truth.grade[mask])


def _best_grades(truth: Truth, k: int) -> Float64:
    """The `k` highest grades of each query, best first, 0 where it has fewer: `float64[q, k]`."""
    row = ragged.row_numbers(truth.indptr)
    best = Ranking.from_rows(row, truth.item, truth.grade, len(truth), k)
    return np.where(best.item >= 0, best.score, 0).astype(np.float64)


def _ratio(part: npt.NDArray[np.number], whole: npt.NDArray[np.number]) -> Float64:
    """`part / whole`, 0 where there is no whole; `whole` is broadcast to `part`."""
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def _check_cutoffs(ks: Sequence[int]) -> None:
    if not ks:
        raise ConfigError("metrics want at least one cutoff k, found none")
    for k in ks:
        if not isinstance(k, int | np.integer) or k < 1:
            raise ConfigError(f"a metric's cutoff k has to be a whole number of at least 1, found {k!r}")


def _check_queries(judged: int, known: int) -> None:
    if judged != known:
        raise ValueError(f"the truth is of {known} queries, what it is to judge of {judged}")
