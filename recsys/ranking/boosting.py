"""Gradient-boosted trees by whatever library: how many trees there shall be, and the options that all have."""

import importlib
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from recsys.component import component
from recsys.errors import ConfigError, nearest
from recsys.ranking.base import Examples
from recsys.ranking.learning import Learned, Table, divide
from recsys.ranking.validation import ValidationNdcg

Enough = Callable[[int], bool]
Share = Annotated[float, Field(gt=0, le=1)]

CELLS_A_THREAD = 20_000_000
"""Values of a training table that make another thread worth its while."""
ALIKE = 0.001
"""Difference of validation NDCG that says nothing: neighbouring trees differ by as much."""
UNJUDGED_TREES = 100
"""Trees where no label is left to choose their number by."""


@component
class Boosted(Learned):
    """Trees, as many as are good for NDCG@10 on the latest label window (see `learning.divide` and `Judge`).

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

    follows: ClassVar[bool] = True
    """Whether a fit can be told to stop between two trees."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.model: Any = None
        self.curve: tuple[float, ...] = ()

    @abstractmethod
    def data(self, table: Table) -> Any:
        """The library's own form of what is to be learned from."""

    def data_and_part(self, table: Table, groups: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
        """`data` of all of the table, and of its marked groups."""
        return self.data(table), self.data(table.where(groups))

    @abstractmethod
    def seen(self, latest: Examples, data: Any) -> Any:
        """The library's own form of what a model that learns from `data` is judged on."""

    @abstractmethod
    def grow(self, data: Any, trees: int, threads: int, judge: "Judge | None" = None, enough: Enough | None = None) -> Any:
        """The library's own model of at most so many trees; fewer where the `judge`, or `enough`, says after one that it is.

        A judge hears the scores of its candidates after each tree.
        """

    @abstractmethod
    def cut(self, model: Any, trees: int) -> Any:
        """The first so many trees."""

    def fit(self, windows: Sequence[Examples]) -> None:
        """Learn from label windows. Raises `DataError` when no candidate of any window is relevant."""
        self.names, self.curve = windows[0].features.names, ()
        for name in self.monotone:
            self.column(name, "monotone")
        table = self.table(windows)
        teaches, latest = divide(windows)
        learn = teaches[table.query]
        if not (latest.grade > 0).any() or not learn.any():
            self.model = self.grow(self.data(table), min(self.trees, UNJUDGED_TREES), self.workers(table.cells))
            return
        if self.refit:
            data, part = self.data_and_part(table, learn)
            judge = Judge(latest, self.seen(latest, part), self.early_stopping)
            self.model = self._refitted(data, part, table.cells, judge)
        else:
            table = table.where(learn)
            part = self.data(table)
            judge = Judge(latest, self.seen(latest, part), self.early_stopping)
            self.model = self.cut(self.grow(part, self.trees, self.workers(table.cells), judge), judge.wanted)
        self.curve = tuple(judge.curve)

    def _refitted(self, data: Any, part: Any, cells: int, judge: "Judge") -> Any:
        """The model of all data with as many trees as the judge wants of one that learns from the part.

        It is grown while the judge still counts trees, and those that are one too many are cut off: two fits share the cores
        better than one uses them.
        """
        if not self.follows or self.cores == 1:
            self.grow(part, self.trees, self.workers(cells), judge)
            return self.grow(data, judge.wanted, self.workers(cells))
        threads, told = self.workers(cells, fits=2), list[int]()

        def enough(trees: int) -> bool:
            return bool(told) and trees >= told[0]

        with ThreadPoolExecutor(1) as beside:
            whole = beside.submit(self.grow, data, self.trees, threads, enough=enough)
            try:
                self.grow(part, self.trees, threads, judge)
            finally:
                told.append(judge.wanted)
        return self.cut(whole.result(), judge.wanted)

    def column(self, name: str, option: str) -> int:
        """Place of a column that an option names. Raises `ConfigError` when there is none."""
        if name not in self.names:
            raise ConfigError(f"ranker.{option}: no feature is called {name!r}.{nearest(name, self.names)}")
        return self.names.index(name)

    def directions(self) -> list[int]:
        """−1, 0 or 1 for each column."""
        return [self.monotone.get(name, 0) for name in self.names]

    @property
    def cores(self) -> int:
        """How many threads there may be."""
        return self.threads or os.cpu_count() or 1

    def workers(self, cells: int, fits: int = 1) -> int:
        """Number of threads for so many values: threads that wait for each other make a small table slower."""
        share = max(1, self.cores // fits)
        return share if self.threads else min(share, 1 + cells // CELLS_A_THREAD)


class Judge:
    """NDCG@10 on the latest label window after each tree, and when to stop for want of a better one.

    `seen` is the library's own form of the window's candidates.
    """

    def __init__(self, latest: Examples, seen: Any, patience: int) -> None:
        self.seen, self.patience = seen, patience
        self.curve: list[float] = []
        self._ndcg = ValidationNdcg(latest)

    @property
    def best(self) -> int:
        """Number of trees with the best value."""
        return int(np.argmax(self.curve)) + 1 if self.curve else 0

    @property
    def wanted(self) -> int:
        """How many trees there shall be: the most whose value is as good as the best (see `ALIKE`). One lucky value after a few
        trees decides nothing then, and the fit of all windows, which has more to learn from, bears more trees.
        """
        return int(np.flatnonzero(np.array(self.curve) >= max(self.curve) - ALIKE)[-1]) + 1 if self.curve else 0

    def hear(self, score: npt.NDArray[np.floating]) -> float:
        """The value of the scores after one more tree."""
        self.curve.append(self._ndcg(score))
        return self.curve[-1]

    def enough(self, trees: int) -> bool:
        """Whether none of the last so many trees was better."""
        return trees - self.best >= self.patience


def optional(library: str, ranker: str) -> Any:
    """A library that is not installed by default. Raises `ConfigError` that says how to install it."""
    try:
        return importlib.import_module(library)
    except ImportError:
        raise ConfigError(f"ranker: {ranker} needs {library}, not installed here: pip install {library}") from None
