"""Accuracy of rankings and of candidate pools against the truth, one value per query.

Rankings are judged as they stand, over the full catalogue, with no sampled negatives. An item is relevant when the
truth holds it. A list shorter than k is legal: the places that it leaves empty count as not relevant, so that precision
still divides by k. A query without truth has the value 0 in every metric of relevance; it stays in the mean unless
`mean` is told to leave it out.

A metric is a function of `Lists` that gives a curve for each query, see `Metric`. `BUILT_IN` holds those of this module by
name; any other function is named by its dotted path, see `load`.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from recsys.errors import ConfigError, DataError, nearest
from recsys.shop import ragged
from recsys.shop.events import EventLog, Int64
from recsys.shop.identity import Int32
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool, Ranking
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CUTOFFS = (1, 3, 5, 10, 20)
POOL_CUTOFFS = (10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, eq=False)
class Lists:
    """What a metric is computed from: the first `depth` places of `q` lists, and the truth of the same queries.

    `past` is the shop before the cutoff, for metrics that need more than relevance, such as prices. Arrays of its catalogue are
    indexed by item number; target items may be newer than it.
    """

    ranking: Ranking
    truth: Truth
    depth: int
    past: Shop

    @cached_property
    def item(self) -> Int32:
        """Item number in each place, −1 where it is empty: `int32[q, depth]`."""
        item = self.ranking.top(self.depth).item
        return np.pad(item, ((0, 0), (0, self.depth - item.shape[1])), constant_values=-1)

    @cached_property
    def grade(self) -> Float64:
        """Grade of the item in each place, 0 where it is not relevant or the place is empty: `float64[q, depth]`."""
        seen = grades(self.ranking.top(self.depth), self.truth)
        return np.pad(seen, ((0, 0), (0, self.depth - seen.shape[1])))

    @cached_property
    def hit(self) -> Mask:
        """Whether each place holds a relevant item: `bool[q, depth]`."""
        return self.grade > 0

    @cached_property
    def hits(self) -> Int64:
        """Relevant items among the first k, in column k − 1: `int64[q, depth]`."""
        return self.hit.cumsum(axis=1)

    @cached_property
    def relevant(self) -> Int64:
        """Relevant items of each query, listed or not: `int64[q, 1]`."""
        return self.truth.count[:, None]

    @property
    def rank(self) -> Int64:
        """The places, from 1: `int64[depth]`."""
        return np.arange(1, self.depth + 1)


Metric = Callable[[Lists], Float64]
"""Gives `[q, depth]`, where column k − 1 holds each query's value of the metric at k; finite, 0 for a query without truth."""


def hit_rate(lists: Lists) -> Float64:
    """1 where the first k hold a relevant item."""
    return (lists.hits > 0).astype(np.float64)


def ndcg(lists: Lists) -> Float64:
    """Gain of the first k, discounted by rank, as a share of the most that k places could gain.

    Gain = grade, discount 1 / log2(rank + 1); the most is that of all of the query's truth, retrieved or not (Järvelin and
    Kekäläinen, TOIS 2002).
    """
    discount = 1 / np.log2(lists.rank + 1)
    return ratio((lists.grade * discount).cumsum(axis=1), (_best_grades(lists.truth, lists.depth) * discount).cumsum(axis=1))


def mrr(lists: Lists) -> Float64:
    """1 / rank of the first relevant item, 0 where it comes after k."""
    return np.maximum.accumulate(lists.hit / lists.rank, axis=1)


def recall(lists: Lists) -> Float64:
    """Share of the query's relevant items that are among the first k."""
    return ratio(lists.hits, lists.relevant)


def average_precision(lists: Lists) -> Float64:
    """Precision at the rank of each relevant item among the first k, summed, divided by the number of all relevant items.

    As trec_eval and ranx do. (Others divide by k where that is less.)
    """
    return ratio((lists.hit * lists.hits / lists.rank).cumsum(axis=1), lists.relevant)


def precision(lists: Lists) -> Float64:
    """Share of the k places that hold a relevant item."""
    return lists.hits / lists.rank


def filled(lists: Lists) -> Float64:
    """Share of the k places that hold any item."""
    return (lists.item >= 0).cumsum(axis=1) / lists.rank


RELEVANCE: dict[str, Metric] = {
    "hit_rate": hit_rate,
    "ndcg": ndcg,
    "mrr": mrr,
    "recall": recall,
    "map": average_precision,
    "precision": precision,
}
"""Metrics that no list of k beats that holds the k best-graded items first."""

BUILT_IN: dict[str, Metric] = {**RELEVANCE, "filled": filled}


def load(names: Sequence[str]) -> dict[str, Metric]:
    """The metrics called `names`: those of `BUILT_IN`, and functions by their dotted paths, under the last part of the path.

    A function is tried on made-up lists. Raises `ConfigError` for a name that is not there, two of one name, and a function
    that fails or gives another shape than `Metric` says.
    """
    found: dict[str, Metric] = {}
    for path in names:
        name = path.rpartition(".")[2]
        if name in found:
            raise ConfigError(f"evaluation.metrics: wanted names that differ, found {name!r} twice")
        found[name] = _of_ones_own(path) if "." in path else _built_in(path)
    return found


def _built_in(name: str) -> Metric:
    if name not in BUILT_IN:
        raise ConfigError(
            f"evaluation.metrics: no metric is called {name!r}; one of your own is named by module and function, with a dot."
            f"{nearest(name, BUILT_IN)}"
        )
    return BUILT_IN[name]


def _of_ones_own(path: str) -> Metric:
    module, _, name = path.rpartition(".")
    try:
        functions = vars(importlib.import_module(module))
    except (ImportError, ValueError) as error:
        raise ConfigError(f"evaluation.metrics: {path}: cannot import {module!r} ({error})") from None
    function = functions.get(name)
    if not callable(function):
        known = [known for known, value in functions.items() if callable(value) and not known.startswith("_")]
        raise ConfigError(f"evaluation.metrics: {module} has no function {name!r}.{nearest(name, known)}")
    metric: Metric = function
    try:
        _curves({name: metric}, _made_up())
    except Exception as error:
        cause = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"evaluation.metrics: {path} was tried on two lists of three places: {cause}") from None
    return metric


def _made_up() -> Lists:
    """Two lists of three places: items 1, 0 against target 0, and an empty one; one user touched both items."""
    ranking = Ranking(np.array([[1, 0, -1], [-1, -1, -1]], np.int32), np.array([[2, 1, -np.inf], [-np.inf] * 3], np.float32))
    truth = Truth(np.array([0, 1, 1]), np.array([0], np.int32), np.ones(1, np.float32))
    return Lists(ranking, truth, 3, _touched(2))


@cache
def _touched(n: int) -> Shop:
    """A shop of `n` items that one user touched once each, of which no more is known."""
    number = np.arange(n)
    return Shop.of(EventLog.build(np.zeros(n, np.int64), number, np.zeros(n, np.int8), number))


def _curves(metrics: Mapping[str, Metric], lists: Lists) -> dict[str, Float64]:
    wanted = (len(lists.truth), lists.depth)
    curves = {name: np.asarray(metric(lists), dtype=np.float64) for name, metric in metrics.items()}
    for name, curve in curves.items():
        if curve.shape != wanted:
            raise DataError(f"{name}: wanted float64[queries, places] of shape {wanted}, found {curve.shape}")
        if not np.isfinite(curve).all():
            raise DataError(f"{name}: wanted a number for every query and place, found {curve[~np.isfinite(curve)][0]}")
    return curves


def names(ks: Sequence[int] = CUTOFFS, metrics: Sequence[str] = tuple(BUILT_IN)) -> tuple[str, ...]:
    """The names that `per_query` gives its values, `hit_rate_at_1` and on, in its order.

    Raises `ConfigError` for a k below 1.
    """
    _check_cutoffs(ks)
    return tuple(f"{metric}_at_{k}" for metric in metrics for k in ks)


def grades(ranking: Ranking, truth: Truth) -> Float64:
    """Grade of the item in each place, 0 where it is not relevant or the place is empty: `float64[q, k]`.

    Raises `ValueError` when ranking and truth are not of the same queries.
    """
    _check_queries(len(ranking), len(truth))
    return truth.grade_of(np.arange(len(ranking))[:, None], ranking.item).astype(np.float64)


def per_query(
    ranking: Ranking,
    truth: Truth,
    ks: Sequence[int] = CUTOFFS,
    metrics: Mapping[str, Metric] = BUILT_IN,
    past: Shop | None = None,
) -> dict[str, Float64]:
    """Every metric at every k, `float64[q]` each, under the names of `names`.

    `past` is what was known before the cutoff; by default nothing.

    Raises `ConfigError` for a k below 1, `ValueError` when ranking and truth are not of the same queries, `DataError` when a
    metric gives another shape than it should, or a value that is no number.
    """
    _check_cutoffs(ks)
    _check_queries(len(ranking), len(truth))
    curves = _curves(metrics, Lists(ranking, truth, max(ks), past or _touched(0)))
    return {f"{metric}_at_{k}": curve[:, k - 1].copy() for metric, curve in curves.items() for k in ks}


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
    """Place, from 1, of the candidates `at` (rows of the pool) in their queries' order by `score`, as `CandidatePool.order`."""
    from recsys.evaluation import _kernels

    place = np.empty(len(at), dtype=np.int64)
    _kernels.places(pool.indptr, pool.row[at], at, score, pool.fusion, place)
    return place


def candidate_recall(pool: CandidatePool, truth: Truth, ks: Sequence[int] = POOL_CUTOFFS) -> dict[str, Float64]:
    """Share of each query's truth among its first k candidates in retrieval order, `float64[q]` under `recall_at_<k>`.

    No ranker can find more than this among k candidates. Raises as `per_query` does.
    """
    _check_cutoffs(ks)
    rank = retrieval_rank(pool, truth)
    row = ragged.row_numbers(truth.indptr)
    return {f"recall_at_{k}": ratio(np.bincount(row[(rank > 0) & (rank <= k)], minlength=len(truth)), truth.count) for k in ks}


def ratio(part: npt.NDArray[np.number], whole: npt.NDArray[np.number]) -> Float64:
    """`part / whole`, 0 where there is no whole; `whole` is broadcast to `part`."""
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


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


def _check_cutoffs(ks: Sequence[int]) -> None:
    if not ks:
        raise ConfigError("metrics want at least one cutoff k, found none")
    for k in ks:
        if not isinstance(k, int | np.integer) or k < 1:
            raise ConfigError(f"a metric's cutoff k has to be a whole number of at least 1, found {k!r}")


def _check_queries(judged: int, known: int) -> None:
    if judged != known:
        raise ValueError(f"the truth is of {known} queries, what it is to judge of {judged}")
