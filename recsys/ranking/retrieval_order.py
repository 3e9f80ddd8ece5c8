"""No second stage: the yardstick for every ranker."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from recsys.component import component
from recsys.features import FeatureMatrix
from recsys.ranking.base import Examples, Ranker
from recsys.shop.pools import Float32


@component
class RetrievalOrder(Ranker):
    """Candidates stay in the order in which retrieval brought them."""

    learns: ClassVar[bool] = False
    reads: ClassVar[bool] = False

    def fit(self, windows: Sequence[Examples]) -> None:
        """Nothing to learn."""

    def score(self, features: FeatureMatrix) -> Float32:
        """The retrieval stage's fused score."""
        return features.pool.fusion.astype(np.float32)
