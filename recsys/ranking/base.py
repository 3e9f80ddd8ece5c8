"""The protocol of the second stage."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from recsys.component import Component
from recsys.features import FeatureMatrix
from recsys.pools import Float32
from recsys.queries import Truth


@dataclass(frozen=True, eq=False)
class Examples:
    """The candidates of one label window with what turned out to be right.

    Only what retrieval found is here: a relevant item that it missed is in `truth`, never among the rows.
    """

    features: FeatureMatrix
    truth: Truth

    @cached_property
    def grade(self) -> Float32:
        """Grade of each candidate, 0 when not relevant: `float32[n]`."""
        return self.truth.grade_of(self.features.pool.row, self.features.pool.item)

    def with_positives(self) -> "Examples":
        """Only the queries with a relevant candidate: the others teach nothing, and LightGBM counts their NDCG as 1."""
        pool = self.features.pool
        rows = np.flatnonzero(np.bincount(pool.row, weights=self.grade > 0, minlength=pool.n_queries) > 0)
        if len(rows) == pool.n_queries:
            return self
        kept = np.isin(pool.row, rows)
        matrix = np.asfortranarray(self.features.values[kept])
        features = FeatureMatrix(matrix, self.features.names, self.features.families, pool.take(rows))
        return Examples(features, self.truth.take(rows))


class Ranker(Component, ABC):
    """Orders candidates by features; learns from label windows, or not at all."""

    learns: ClassVar[bool] = True
    """False when neither label windows nor features are needed."""
    curve: tuple[float, ...] = ()
    """NDCG@10 on the latest label window after each step of the fit, where the method has steps."""

    @abstractmethod
    def fit(self, windows: Sequence[Examples]) -> None:
        """Learn from label windows, oldest first."""

    @abstractmethod
    def score(self, features: FeatureMatrix) -> Float32:
        """One score a candidate, the higher the better: `float32[n]`."""

    def contributions(self, features: FeatureMatrix) -> npt.NDArray[np.float64] | None:
        """How much each feature added to each score, `float64[n, f]`; None where the method cannot say."""
        return None

    def importance(self) -> dict[str, float]:
        """Total gain a feature, largest first; empty where the method has none."""
        return {}
