"""The protocol of the second stage."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from recsys.component import Component
from recsys.features import FeatureMatrix
from recsys.shop.events import Int64
from recsys.shop.identity import Int32
from recsys.shop.pools import Float32
from recsys.shop.queries import Truth
from recsys.shop.splits import Window


@dataclass(frozen=True, eq=False)
class Examples:
    """The candidates of one label window with what turned out to be right.

    Only what retrieval found is here: a relevant item that it missed is in `truth`, never among the rows. No source's score has
    seen a label: retrievers and features are fitted on what happened strictly before the window, so that there is no own pair
    to subtract and nothing to cross-fit.
    """

    features: FeatureMatrix
    truth: Truth
    window: Window | None = None
    """When the labels were taken; none: at a time of their own."""
    user: Int32 | None = None
    """The user of each query; none: a user of its own."""

    @cached_property
    def grade(self) -> Float32:
        """Grade of each candidate, 0 when not relevant: `float32[n]`."""
        return self.truth.grade_of(self.features.pool.row, self.features.pool.item)

    def where(self, keep: npt.NDArray[np.bool_]) -> "Examples":
        """The marked candidates only; every query stays, with all its truth."""
        return self if keep.all() else replace(self, features=self.features.where(keep))

    def take(self, rows: Int64) -> "Examples":
        """Some of the queries, in ascending order."""
        matrix = self.features.where(np.isin(self.features.pool.row, rows))
        return replace(
            self,
            features=replace(matrix, pool=matrix.pool.take(rows)),
            truth=self.truth.take(rows),
            user=None if self.user is None else self.user[rows],
        )


class Ranker(Component, ABC):
    """Orders candidates by features; learns from label windows, or not at all."""

    learns: ClassVar[bool] = True
    """False when no label windows are needed."""
    reads: ClassVar[bool] = True
    """False when no features are needed."""
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
        """How much each feature matters, largest first; empty where the method cannot say."""
        return {}
