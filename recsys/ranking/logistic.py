"""A linear model: what the features say without interactions."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import PositiveFloat, PositiveInt
from threadpoolctl import threadpool_limits

from recsys.component import State, component
from recsys.features import FeatureMatrix
from recsys.ranking.base import Examples
from recsys.ranking.learning import Learned
from recsys.shop.pools import Float32

BLOCK = 1 << 15
"""Candidates scored at once."""
FAR = 5.0
"""Standard deviations at which a value is clipped."""


@component
class Logistic(Learned):
    """L2-regularised logistic regression (scikit-learn) of relevant or not.

    A column x enters as sign(x) · ln(1 + |x|), standardised over the candidates that were learned from, clipped at ±5, and 0
    where it is NaN; a column with NaN enters a second time, as 1 where it is NaN and 0 elsewhere.
    """

    negatives: PositiveInt | None = 50
    strength: PositiveFloat = 1.0
    """Inverse of the regularisation, scikit-learn's C."""
    iterations: PositiveInt = 300
    """Most steps of the solver (L-BFGS)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.centre = np.empty(0, dtype=np.float64)
        self.scale = np.empty(0, dtype=np.float64)
        self.weight = np.empty(0, dtype=np.float64)
        self.absent = np.empty(0, dtype=np.float64)

    def fit(self, windows: Sequence[Examples]) -> None:
        """Learn from all label windows. Raises `DataError` when no candidate of any is relevant."""
        from sklearn.linear_model import LogisticRegression

        table = self.table(windows)
        damped = _damped(table.values)
        known = ~np.isnan(damped)
        count = np.maximum(known.sum(axis=0), 1)
        filled = np.where(known, damped, 0)
        self.centre = filled.sum(axis=0, dtype=np.float64) / count
        spread = np.where(known, (filled - self.centre) ** 2, 0).sum(axis=0) / count
        self.scale = np.where(spread > 1e-12, 1 / np.sqrt(np.maximum(spread, 1e-12)), 0.0)
        gaps = np.flatnonzero(~known.all(axis=0) & known.any(axis=0))
        inputs = np.hstack([self._standard(damped), ~known[:, gaps]])
        model = LogisticRegression(C=self.strength, max_iter=self.iterations)
        with threadpool_limits(1, user_api="blas"):
            model.fit(inputs, table.grade > 0)
        weights = np.asarray(model.coef_[0], dtype=np.float64)
        self.weight = weights[: len(self.names)]
        self.absent = np.zeros(len(self.names))
        self.absent[gaps] = weights[len(self.names) :]

    def _standard(self, damped: Float32) -> npt.NDArray[np.float64]:
        return np.nan_to_num(np.clip((damped - self.centre) * self.scale, -FAR, FAR), nan=0.0)

    def contributions(self, features: FeatureMatrix) -> npt.NDArray[np.float64]:
        """Weight · standardised value of each feature: `float64[n, f]`."""
        self.check(features)
        damped = _damped(features.values)
        return self._standard(damped) * self.weight + np.isnan(damped) * self.absent

    def score(self, features: FeatureMatrix) -> Float32:
        """The log odds, but for a constant."""
        self.check(features)
        damped = (_damped(features.values[start : start + BLOCK]) for start in range(0, len(features.values), BLOCK))
        parts = [(self._standard(x) * self.weight + np.isnan(x) * self.absent).sum(axis=1) for x in damped]
        return np.concatenate([*parts, np.empty(0)]).astype(np.float32)

    def importance(self) -> dict[str, float]:
        """Size of each weight, largest first."""
        return self.named(np.abs(self.weight) + np.abs(self.absent)) if self.names else {}

    def state(self) -> State:
        """Names, centres, scales and weights of the columns."""
        learned = {name: getattr(self, name) for name in ("centre", "scale", "weight", "absent")}
        return super().state() | learned

    def restore(self, state: State) -> None:
        """Take back `state`."""
        super().restore(state)
        for name in ("centre", "scale", "weight", "absent"):
            setattr(self, name, state[name])


def _damped(values: Float32) -> Float32:
    return np.sign(values) * np.log1p(np.abs(values))
