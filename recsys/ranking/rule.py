"""A hand-made order: nothing is learned, so that an honest rule can be beaten in the open."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from recsys.component import component
from recsys.features import FeatureMatrix
from recsys.ranking.base import Examples, Ranker
from recsys.shop.pools import CandidatePool, Float32


@component
class Rule(Ranker):
    """Σ weight · value over some columns, each made comparable within the query first; what is NaN adds nothing."""

    learns: ClassVar[bool] = False
    weights: dict[str, float] = Field(default={"user_item__weight_hl_30d": 1.0, "source__fusion": 0.1}, min_length=1)
    """Weight of each column, by full name; negative where less is better."""
    scale: Literal["rank", "max", "none"] = "max"
    """`max`: value / largest size in the query; `rank`: share of its other candidates with a lesser value; `none`: as is."""

    def fit(self, windows: Sequence[Examples]) -> None:
        """Nothing to learn."""

    def score(self, features: FeatureMatrix) -> Float32:
        """The weighted sum. Raises `ConfigError` for a column that is not there."""
        return self.contributions(features).sum(axis=1).astype(np.float32)

    def contributions(self, features: FeatureMatrix) -> npt.NDArray[np.float64]:
        """What each column adds: `float64[n, f]`, the score without a remainder."""
        added = np.zeros(features.values.shape)
        for name, weight in self.weights.items():
            value = self._scaled(features[name].astype(np.float64), features.pool)
            added[:, features.names.index(name)] = weight * np.nan_to_num(value, nan=0.0)
        return added

    def _scaled(self, value: npt.NDArray[np.float64], pool: CandidatePool) -> npt.NDArray[np.float64]:
        if self.scale == "none":
            return value
        if self.scale == "rank":
            return percentile(value, pool)
        largest = np.zeros(pool.n_queries)
        np.fmax.at(largest, pool.row, np.abs(value))
        return np.divide(value, largest[pool.row], out=np.zeros(len(value)), where=largest[pool.row] > 0)

    def importance(self) -> dict[str, float]:
        """Size of each weight, largest first."""
        return dict(sorted(((name, abs(weight)) for name, weight in self.weights.items()), key=lambda x: (-x[1], x[0])))


def percentile(value: npt.NDArray[np.floating], pool: CandidatePool) -> npt.NDArray[np.float64]:
    """Share of the query's other candidates that have a lesser value, equal ones counted half: `float64[n]`, NaN where NaN.

    From 0, the least, to 1, the greatest, in lists of any length; one half where there is no other, or all are equal.
    """
    order = np.lexsort((value, pool.row))
    key = np.stack([pool.row[order].astype(np.float64), value[order]])
    starts = np.flatnonzero(np.r_[True, (key[:, 1:] != key[:, :-1]).any(axis=0)]) if len(value) else np.empty(0, dtype=np.int64)
    ends = np.r_[starts[1:], len(value)]
    middle = np.empty(len(value))
    middle[order] = np.repeat((starts + ends) / 2, ends - starts)
    known = np.bincount(pool.row, weights=~np.isnan(value), minlength=pool.n_queries)
    others = known[pool.row] - 1
    share = np.divide(middle - pool.indptr[pool.row] - 0.5, others, out=np.full(len(value), 0.5), where=others > 0)
    return np.where(np.isnan(value), np.nan, share)
