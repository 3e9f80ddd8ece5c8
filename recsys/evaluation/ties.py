"""How much a result rests on the way in which equal scores are ordered."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from recsys.evaluation import metrics
from recsys.evaluation.metrics import Float64, Metric
from recsys.shop import ragged
from recsys.shop.pools import CandidatePool, Float32, Ranking
from recsys.shop.queries import Truth

SHARE, CASES = "share", ("worst", "best")


def names(k: int, of: Sequence[str]) -> list[str]:
    """The names of what `values` gives."""
    return [f"{SHARE}_at_{k}", *(f"{name}_at_{k}_{case}" for case in CASES for name in of)]


def values(
    pool: CandidatePool, score: Float32, ranking: Ranking, truth: Truth, k: int, of: Mapping[str, Metric]
) -> dict[str, Float64]:
    """Values per query, `float64[q]`, of the order of the `pool` by `score`, whose best are `ranking`, more than `k` deep.

    - `share_at_<k>`: share of the neighbouring places among the first `k` that have equal scores; NaN for fewer than two items.
    - `<metric>_at_<k>_worst` and `…_best`: each metric `of` (name to function) if all ties went against the right answers, and
      if all went for them.
    """
    equal = (ranking.score[:, 1:] == ranking.score[:, :-1]) & (ranking.item[:, 1:] >= 0)
    pairs = np.minimum(ranking.length, k) - 1
    share = np.divide(equal[:, : k - 1].sum(axis=1), pairs, out=np.full(len(ranking), np.nan), where=pairs > 0)
    result = {f"{SHARE}_at_{k}": share}
    tied = np.flatnonzero(equal[:, :k].any(axis=1))
    part, of_part = pool.take(tied), truth.take(tied)
    grade = of_part.grade_of(part.row, part.item).astype(np.float64)
    as_it_is = metrics.per_query(ranking, truth, [k], of)
    of_tied = score[ragged.take(pool.indptr, tied)[1]]
    for case, preferred in zip(CASES, (-grade, grade), strict=True):
        lists = replace(part, fusion=preferred).order(of_tied, k)
        changed = metrics.per_query(lists, of_part, [k], of)
        for name, value in as_it_is.items():
            result[f"{name}_{case}"] = moved = value.copy()
            moved[tied] = changed[name]
    return result
