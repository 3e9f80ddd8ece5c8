"""What became of each target: where the sources, the retrieval stage and the ranker placed it, and which features did that."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys import ragged
from recsys.evaluation import metrics
from recsys.events import EventLog
from recsys.features import FeatureMatrix
from recsys.pools import CandidatePool, Float32
from recsys.queries import Truth
from recsys.ranking import Ranker
from recsys.splits import Task

MOST_EXPLAINED = 1000
"""Targets whose margins are computed: contributions cost milliseconds each."""


def table(log: EventLog, task: Task, features: FeatureMatrix, score: Float32, ranker: Ranker, fold: int = 0) -> pd.DataFrame:
    """One row a (query, target item), in the order of the truth. `score` is the ranker's, of the candidates in `features`.

    Columns: `user` and `item` (own ids), `fold`, `grade`, `revisit` (was it in the query's history?), `in_pool`; places from 1,
    0 for nowhere: `two_stage`, `retrieval`, and `source/<name>` for each source; `margin/<family>`, see `margins`.
    """
    truth, pool = task.truth, features.pool
    at, in_pool = _rows(pool, truth)
    columns = {
        "user": log.users.ids[task.queries.user[ragged.row_numbers(truth.indptr)]],
        "item": log.items.ids[truth.item],
        "fold": np.full(len(truth.item), fold),
        "grade": truth.grade,
        "revisit": metrics.revisit(task.queries, truth),
        "in_pool": in_pool,
        "two_stage": _take(_places(pool, score), at, in_pool),
        "retrieval": metrics.retrieval_rank(pool, truth),
        **{f"source/{name}": _take(pool.rank[s], at, in_pool) for s, name in enumerate(pool.sources)},
        **{f"margin/{family}": margin for family, margin in margins(features, score, truth, ranker).items()},
    }
    return pd.DataFrame(columns)


def margins(features: FeatureMatrix, score: Float32, truth: Truth, ranker: Ranker, k: int = 10) -> dict[str, Float32]:
    """By feature family, what set each target apart from its rival: the difference of the ranker's contributions.

    The rival of a target among the first `k` is the best candidate after them; of one further down it is the last of them.
    `float32[m]` in the order of `truth.item`: NaN where the target is no candidate or has no rival, and after the first 1,000.
    Empty for a ranker that cannot say.
    """
    pool = features.pool
    at, in_pool = _rows(pool, truth)
    place = _places(pool, score)
    wanted = {which: np.full(pool.n_queries, -1, dtype=np.int64) for which in (k, k + 1)}
    for which, row_of in wanted.items():
        found = np.flatnonzero(place == which)
        row_of[pool.row[found]] = found
    own = _take(place, at, in_pool)
    query = ragged.row_numbers(truth.indptr)
    rival = np.where(own <= k, wanted[k + 1][query], wanted[k][query])
    explained = np.flatnonzero(in_pool & (rival >= 0))[:MOST_EXPLAINED]
    rows = np.unique(np.concatenate([at[explained], rival[explained]]))
    chosen = np.zeros(len(pool), dtype=bool)
    chosen[rows] = True
    part = FeatureMatrix(np.asfortranarray(features.values[rows]), features.names, features.families, pool.where(chosen))
    contributions = ranker.contributions(part) if len(rows) else None
    if contributions is None:
        return {}
    apart = contributions[np.searchsorted(rows, at[explained])] - contributions[np.searchsorted(rows, rival[explained])]
    result = {}
    for family in dict.fromkeys(features.families):
        columns = [i for i, of in enumerate(features.families) if of == family]
        result[family] = np.full(len(truth.item), np.nan, dtype=np.float32)
        result[family][explained] = apart[:, columns].sum(axis=1)
    return result


def _rows(pool: CandidatePool, truth: Truth) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The candidate that each target is, and whether it is one at all."""
    if not len(pool):
        return np.zeros(len(truth.key), dtype=np.int64), np.zeros(len(truth.key), dtype=bool)
    at = np.minimum(np.searchsorted(pool.key, truth.key), len(pool) - 1)
    return at, pool.key[at] == truth.key


def _places(pool: CandidatePool, score: Float32) -> npt.NDArray[np.int64]:
    """Place of each candidate in its query's order by `score`, from 1, ties by item number."""
    place = np.empty(len(pool), dtype=np.int64)
    place[np.lexsort((-score, pool.row))] = ragged.within_row(pool.indptr) + 1
    return place


def _take(values: npt.NDArray[np.integer], at: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    return np.where(known, values[at] if len(values) else 0, 0).astype(np.int32)
