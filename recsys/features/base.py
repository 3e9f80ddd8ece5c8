"""Columns with names and families, and the set that puts them together."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from recsys.catalogue import Catalogue
from recsys.component import Component, State, component
from recsys.errors import ConfigError, nearest
from recsys.events import EventLog
from recsys.pools import CandidatePool, Float32
from recsys.queries import Queries


@dataclass(frozen=True, eq=False)
class FeatureMatrix:
    """One row a candidate, in the row order of `pool`. `values`: `float32[n, f]`, column-major, NaN where nothing is known."""

    values: Float32
    names: tuple[str, ...]
    families: tuple[str, ...]
    pool: CandidatePool

    def __getitem__(self, name: str) -> Float32:
        """One column: `float32[n]`."""
        if name not in self.names:
            raise ConfigError(f"no feature is called {name!r}.{nearest(name, self.names)}")
        return self.values[:, self.names.index(name)]


class FeatureFamily(Component, ABC):
    """Columns of one idea. What it computes for a query depends on events before the query's time alone."""

    @abstractmethod
    def columns(self, sources: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the columns, without the family's prefix, for pools of these sources."""

    @abstractmethod
    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """Fill `out` (`float32[n, f]`, one row a candidate of `pool`, one column a name)."""

    def fit(self, log: EventLog, catalogue: Catalogue) -> None:
        """Learn what items and users look like from the log and the catalogue, both already cut at the cutoff."""


@component
class FeatureSet(Component):
    """The chosen families, side by side. A column is called `family__column`.

    Raises `ConfigError` when a chosen family is not defined.
    """

    families: list[str]
    """Which of `definitions`, in this order."""
    definitions: dict[str, FeatureFamily] = Field(repr=False)
    """Families by name."""

    def __post_init__(self) -> None:
        for name in self.families:
            if name not in self.definitions:
                raise ConfigError(f"features.families: no family is called {name!r}.{nearest(name, self.definitions)}")
        if twice := {name for name in self.families if self.families.count(name) > 1}:
            raise ConfigError(f"features.families: named more than once: {', '.join(sorted(twice))}")

    def fit(self, log: EventLog, catalogue: Catalogue) -> None:
        """Fit every chosen family on the past."""
        for name in self.families:
            self.definitions[name].fit(log, catalogue)

    def compute(self, pool: CandidatePool, queries: Queries) -> FeatureMatrix:
        """The matrix of the pool's candidates."""
        columns = {name: self.definitions[name].columns(pool.sources) for name in self.families}
        values = np.empty((len(pool), sum(map(len, columns.values()))), dtype=np.float32, order="F")
        start = 0
        for name, of_family in columns.items():
            self.definitions[name].compute(pool, queries, values[:, start : start + len(of_family)])
            start += len(of_family)
        names = tuple(f"{name}__{column}" for name, of_family in columns.items() for column in of_family)
        families = tuple(name for name, of_family in columns.items() for _ in of_family)
        return FeatureMatrix(values, names, families, pool)

    def state(self) -> State:
        """Arrays of every chosen family, prefixed by its name."""
        return {f"{name}/{key}": array for name in self.families for key, array in self.definitions[name].state().items()}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        for name in self.families:
            prefix = f"{name}/"
            own = {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}
            self.definitions[name].restore(own)


def gather(values: npt.NDArray[np.floating], index: npt.NDArray[np.integer], missing: float) -> Float32:
    """`values[index]`, and `missing` where the index lies outside."""
    if not len(values):
        return np.full(len(index), missing, dtype=np.float32)
    known = (index >= 0) & (index < len(values))
    return np.where(known, values[np.where(known, index, 0)], missing).astype(np.float32)
