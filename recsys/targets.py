"""What became of each target: where the sources, the retrieval stage and the ranker placed it, and which features did that."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.evaluation import metrics
from recsys.features import FeatureMatrix
from recsys.ranking import Ranker
from recsys.shop import ragged
from recsys.shop.events import EventLog
from recsys.shop.pairs import pair_key
from recsys.shop.pools import Float32, Ranking
from recsys.shop.queries import Truth
from recsys.shop.splits import Task

MOST_EXPLAINED = 4000
"""Targets whose margins are computed, the best placed ones."""


def table(
    log: EventLog, task: Task, features: FeatureMatrix, score: Float32, lists: Ranking, ranker: Ranker, k: int, fold: int = 0
) -> pd.DataFrame:
    """One row a (query, target item), in the order of the truth.

    `score` is the ranker's, of the candidates in `features`; `lists` are the best of them, more than `k` deep. Columns: `user`
    and `item` (own ids), `fold`, `grade`, `revisit` (was it in the query's history?), `in_pool`; places from 1, 0 for nowhere:
    `two_stage`, `retrieval`, and `source/<name>` for each source; `margin/<family>`, see `margins`.
    """
    truth, pool = task.truth, features.pool
    at, in_pool = metrics.locate(pool, truth)
    place = np.zeros(len(truth.item), dtype=np.int64)
    place[in_pool] = metrics.places(pool, at[in_pool], score)
    ranks = np.zeros((len(pool.sources), len(truth.item)), dtype=np.int16)
    ranks[:, in_pool] = pool.rank[:, at[in_pool]]
    columns = {
        "user": log.users.ids[task.queries.user[ragged.row_numbers(truth.indptr)]],
        "item": log.items.ids[truth.item],
        "fold": np.full(len(truth.item), fold),
        "grade": truth.grade,
        "revisit": metrics.revisit(task.queries, truth),
        "in_pool": in_pool,
        "two_stage": place,
        "retrieval": metrics.retrieval_rank(pool, truth),
        **{f"source/{name}": rank for name, rank in zip(pool.sources, ranks, strict=True)},
        **{f"margin/{family}": margin for family, margin in margins(features, place, lists, truth, ranker, k).items()},
    }
    return pd.DataFrame(columns)


def margins(
    features: FeatureMatrix, place: npt.NDArray[np.int64], lists: Ranking, truth: Truth, ranker: Ranker, k: int
) -> dict[str, Float32]:
    """What each feature family does for each target against its rival: by how much the target's score falls when the values
    of that family are its rival's.

    `place` is that of each target in the ranker's order, 0 for none. The rival of a target among the first `k` is the best
    candidate after them; of one further down it is the last of them. `float32[m]` in the order of `truth.item`: NaN where the
    target is no candidate or has no rival, and after the 4,000 best placed. Empty for a ranker that reads no features.
    """
    pool = features.pool
    if not ranker.reads or not len(pool):
        return {}
    query = ragged.row_numbers(truth.indptr)
    deep = np.pad(lists.item, ((0, 0), (0, max(k + 1 - lists.item.shape[1], 0))), constant_values=-1)
    rival = np.where(place <= k, deep[query, k], deep[query, k - 1])
    best_placed = np.argsort(place, kind="stable")
    explained = np.sort(best_placed[(place > 0)[best_placed] & (rival >= 0)[best_placed]][:MOST_EXPLAINED])
    own, other = (np.searchsorted(pool.key, pair_key(query, item)[explained]) for item in (truth.item, rival))
    chosen = np.zeros(len(pool), dtype=bool)
    chosen[own] = True
    candidates = pool.where(chosen)

    def score(values: Float32) -> Float32:
        return ranker.score(FeatureMatrix(values, features.names, features.families, candidates))

    values, of_rival = (np.asfortranarray(features.values[rows]) for rows in (own, other))
    as_it_is = score(values)
    result = {}
    for family in dict.fromkeys(features.families):
        columns = np.array([of == family for of in features.families])
        swapped = values.copy(order="F")
        swapped[:, columns] = of_rival[:, columns]
        result[family] = np.full(len(truth.item), np.nan, dtype=np.float32)
        result[family][explained] = as_it_is - score(swapped)
    return result
