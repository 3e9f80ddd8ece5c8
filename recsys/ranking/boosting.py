"""Gradient-boosted trees by whatever library: how many trees there shall be, and the options that all have."""

import importlib
import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from recsys.component import component
from recsys.errors import ConfigError, nearest
from recsys.ranking.base import Examples
from recsys.ranking.learning import Learned, Table, divide, teaching
from recsys.ranking.validation import ValidationNdcg

Share = Annotated[float, Field(gt=0, le=1)]

CELLS_A_THREAD = 20_000_000
"""Values of a training table that make another thread worth its while."""
UNJUDGED_TREES = 100
"""Trees where no label is left to choose their number by."""


@component
class Boosted(Learned):
    """Trees, as many as give the best NDCG@10 on the latest label window (see `learning.divide`).

    With `refit` the model is then fitted anew, with that many trees, on all windows.
    """

    trees: PositiveInt = 500
    """Most trees to grow."""
    learning_rate: PositiveFloat = 0.05
    early_stopping: PositiveInt = 50
    """Stop after so many trees without a better validation NDCG."""
    refit: bool = True
    feature_fraction: Share = 0.8
    """Part of the columns that each tree may use."""
    l2: NonNegativeFloat = 5.0
    monotone: dict[str, Literal[-1, 1]] = Field(default_factory=dict)
    """Columns whose values may only raise (1) or only lower (−1) the score."""
    threads: NonNegativeInt = 0
    """0: all cores, one for a small table. The result does not depend on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.curve: tuple[float, ...] = ()

    @abstractmethod
    def grow(self, table: Table, trees: int, judge: tuple[ValidationNdcg, Examples] | None) -> list[float]:
        """Fit at most so many trees. With a judge, gives its value after each tree, and may stop early."""

    def fit(self, windows: Sequence[Examples]) -> None:
        """Learn from label windows. Raises `DataError` when no candidate of any window is relevant."""
        self.names = windows[0].features.names
        for name in self.monotone:
            self.column(name, "monotone")
        learn, latest = divide(windows)
        best = min(self.trees, UNJUDGED_TREES)
        if (latest.grade > 0).any() and any(teaching(window).any() for window in learn):
            curve = self.grow(self.table(learn), self.trees, (ValidationNdcg(latest), latest))
            self.curve = tuple(curve)
            best = int(np.argmax(curve)) + 1
            if not self.refit:
                self.cut(best)
                return
        self.grow(self.table(windows), best, None)

    @abstractmethod
    def cut(self, trees: int) -> None:
        """Keep the first so many trees."""

    def column(self, name: str, option: str) -> int:
        """Place of a column that an option names. Raises `ConfigError` when there is none."""
        if name not in self.names:
            raise ConfigError(f"ranker.{option}: no feature is called {name!r}.{nearest(name, self.names)}")
        return self.names.index(name)

    def directions(self) -> list[int]:
        """−1, 0 or 1 for each column."""
        return [self.monotone.get(name, 0) for name in self.names]

    def workers(self, cells: int) -> int:
        """Number of threads for so many values: threads that wait for each other make a small table slower."""
        return self.threads or min(os.cpu_count() or 1, 1 + cells // CELLS_A_THREAD)


def optional(library: str, ranker: str) -> Any:
    """A library that is not installed by default. Raises `ConfigError` that says how to install it."""
    try:
        return importlib.import_module(library)
    except ImportError:
        raise ConfigError(f"ranker: {ranker} needs {library}, not installed here: pip install {library}") from None
