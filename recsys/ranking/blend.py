"""Several rankers, one order: the last step of nearly every winner."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat

from recsys.component import component
from recsys.errors import ConfigError, nearest
from recsys.features import FeatureMatrix
from recsys.ranking.base import Examples, Ranker
from recsys.ranking.gbdt import Binary, LambdaRank
from recsys.ranking.rule import percentile
from recsys.shop.pools import Float32


def _trees() -> dict[str, Ranker]:
    return {"lambdarank": LambdaRank(), "binary": Binary()}


@component
class Blend(Ranker):
    """Weighted mean of the members' ranks within the query, best = 1, worst = 0, equal ones in the middle of their places.

    Ranks, because scores of different objectives have nothing to do with each other.
    """

    rankers: dict[str, Ranker] = Field(default_factory=_trees, min_length=1)
    """Members by name; each is fitted on the same label windows."""
    weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Weight of a member; 1 where none is given."""

    def __post_init__(self) -> None:
        for name in self.weights:
            if name not in self.rankers:
                raise ConfigError(f"ranker.weights: the blend has no member {name!r}.{nearest(name, self.rankers)}")
        if not sum(self._weights.values()):
            raise ConfigError("ranker.weights: wanted a weight above 0, found none")

    @property
    def _weights(self) -> dict[str, float]:
        return {name: self.weights.get(name, 1.0) for name in self.rankers}

    def fit(self, windows: Sequence[Examples]) -> None:
        """Fit every member."""
        for ranker in self.rankers.values():
            ranker.fit(windows)

    def score(self, features: FeatureMatrix) -> Float32:
        """The mean rank, from 0 to 1."""
        total = np.zeros(len(features.values))
        for name, weight in self._weights.items():
            total += weight * percentile(self.rankers[name].score(features), features.pool)
        return (total / sum(self._weights.values())).astype(np.float32)

    def contributions(self, features: FeatureMatrix) -> npt.NDArray[np.float64] | None:
        """Weighted mean of the members' contributions, each divided by the sum of its own sizes; None when none has any."""
        total, said = np.zeros(features.values.shape), False
        for name, weight in self._weights.items():
            own = self.rankers[name].contributions(features)
            if own is not None:
                size = np.abs(own).sum(axis=1, keepdims=True)
                total += weight * np.divide(own, size, out=np.zeros_like(own), where=size > 0)
                said = True
        return total / sum(self._weights.values()) if said else None

    def importance(self) -> dict[str, float]:
        """Weighted mean of the members' importances, each summing to 1."""
        total: dict[str, float] = {}
        for name, weight in self._weights.items():
            own = self.rankers[name].importance()
            whole = sum(own.values()) or 1.0
            for feature, value in own.items():
                total[feature] = total.get(feature, 0.0) + weight * value / whole / sum(self._weights.values())
        return dict(sorted(total.items(), key=lambda pair: (-pair[1], pair[0])))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What the members learned, each under its name."""
        return {f"{name}/{key}": array for name, ranker in self.rankers.items() for key, array in ranker.state().items()}

    def restore(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """Take back `state`."""
        for name, ranker in self.rankers.items():
            prefix = f"{name}/"
            own = {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}
            ranker.restore(own)

    def write_files(self, folder: Path) -> None:
        """A folder a member."""
        for name, ranker in self.rankers.items():
            (folder / name).mkdir()
            ranker.write_files(folder / name)

    def read_files(self, folder: Path) -> None:
        """Read the members' folders."""
        for name, ranker in self.rankers.items():
            ranker.read_files(folder / name)
