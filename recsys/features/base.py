"""Columns with names and families, and the set that puts them together."""

import importlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt

from recsys.component import Component, State, component
from recsys.errors import ConfigError, nearest
from recsys.shop.events import Int64
from recsys.shop.kinds import Kinds
from recsys.shop.pools import CandidatePool, Float32
from recsys.shop.queries import Queries
from recsys.shop.reasons import NOTHING, Codes, check
from recsys.shop.shop import Shop

BLOCK = 1 << 15
"""Candidates described at once: what a family needs beside its columns is a few arrays of this length, which stay in cache."""


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

    def where(self, keep: npt.NDArray[np.bool_]) -> "FeatureMatrix":
        """The marked rows only; every query stays, perhaps with no candidate."""
        return FeatureMatrix(rows_of(self.values, np.flatnonzero(keep)), self.names, self.families, self.pool.where(keep))


def rows_of(values: Float32, rows: Int64) -> Float32:
    """Some rows of a column-major matrix, as another: many times as fast as an index by a mask."""
    taken = np.empty((len(rows), values.shape[1]), dtype=np.float32, order="F")
    for column in range(values.shape[1]):
        np.take(values[:, column], rows, out=taken[:, column], mode="clip")  # with "raise" it copies once more
    return taken


class FeatureFamily(Component, ABC):
    """Columns of one idea. What it computes for a query depends on events before the query's time alone."""

    speaks_for: ClassVar[Mapping[str, Codes]] = {}
    """The reasons (`recsys.shop.reasons`) that a column bears out where it moves the ranker, by a regular expression for the
    whole of its name; all that match count, and a column that none matches speaks for nothing."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Raises `ConfigError` for a reason that there is not."""
        super().__init_subclass__(**keywords)
        for pattern, codes in cls.speaks_for.items():
            check(codes, f"{cls.__name__}.speaks_for: {pattern}")

    @abstractmethod
    def columns(self, sources: tuple[str, ...], kinds: Kinds) -> tuple[str, ...]:
        """Names of the columns, without the family's prefix, for pools of these sources and logs of these kinds."""

    @abstractmethod
    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """Fill `out` (`float32[n, f]`, one row a candidate of `pool`, one column a name); the pool is one block of a larger."""

    def fit(self, past: Shop) -> None:
        """Learn what items and users look like from what was known before the cutoff."""

    def speakers(self, sources: Mapping[str, Codes], kinds: Kinds) -> dict[str, Codes]:
        """What the `columns` speak for, given what each source of the pools does; one that is not there speaks for nothing."""
        return {
            column: NOTHING.union(*(codes for pattern, codes in self.speaks_for.items() if re.fullmatch(pattern, column)))
            for column in self.columns(tuple(sources), kinds)
        }


class DerivedFamily(Component, ABC):
    """Columns made of other families' columns. They are computed after all `FeatureFamily`s, wherever they are named."""

    @abstractmethod
    def columns(self, given: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the columns, without the family's prefix, where the full names `given` are there to be read."""

    @abstractmethod
    def compute(self, given: FeatureMatrix, out: Float32) -> None:
        """Fill `out` (`float32[n, f]`) from a block of whole queries."""

    def speakers(self, given: Mapping[str, Codes]) -> dict[str, Codes]:
        """What the `columns` speak for, given what each column that is there to be read does; as it stands here, nothing."""
        return {}


def _every_family() -> dict[str, FeatureFamily | DerivedFamily]:
    # By name: a set depends on the modules of the families that its settings hold, not on those of all others.
    features = importlib.import_module(__package__)
    return {
        "source": features.Source(),
        "user_item": features.UserItem(),
        "affinity": features.Affinity(),
        "content": features.Content(),
        "item": features.Item(),
        "user": features.User(),
        "customer": features.Customer(),
        "calendar": features.Calendar(),
        "within_query": features.WithinQuery(),
    }


@component
class FeatureSet(Component):
    """The chosen families, side by side. A column is called `family__column`.

    Raises `ConfigError` when a chosen family is not defined.
    """

    families: list[str] = Field(default=["source", "user_item", "affinity", "content", "item", "user", "within_query"])
    """Which of `definitions`, in this order; derived families come last."""
    definitions: dict[str, FeatureFamily | DerivedFamily] = Field(default_factory=_every_family, repr=False)
    """Families by name; without any, all of this package, each with its own defaults."""
    threads: NonNegativeInt = 0
    """Blocks of queries worked on at a time; 0: one a core. The result does not depend on it."""

    def __post_init__(self) -> None:
        for name in self.families:
            if name not in self.definitions:
                raise ConfigError(f"features.families: no family is called {name!r}.{nearest(name, self.definitions)}")
        if twice := {name for name in self.families if self.families.count(name) > 1}:
            raise ConfigError(f"features.families: named more than once: {', '.join(sorted(twice))}")

    @property
    def _plain(self) -> dict[str, FeatureFamily]:
        chosen = {name: self.definitions[name] for name in self.families}
        return {name: family for name, family in chosen.items() if isinstance(family, FeatureFamily)}

    @property
    def _derived(self) -> dict[str, DerivedFamily]:
        chosen = {name: self.definitions[name] for name in self.families}
        return {name: family for name, family in chosen.items() if isinstance(family, DerivedFamily)}

    def columns(self, sources: tuple[str, ...], kinds: Kinds) -> dict[str, tuple[str, ...]]:
        """Full names of the columns of each family, in order, for pools of these sources and logs of these kinds.

        Raises `ConfigError` where a kind's name makes two columns of a family the same.
        """
        columns = self._given(sources, kinds)
        given = tuple(name for of_family in columns.values() for name in of_family)
        return columns | {name: _prefixed(name, family.columns(given)) for name, family in self._derived.items()}

    def speakers(self, sources: Mapping[str, Codes], kinds: Kinds) -> dict[str, Codes]:
        """What columns speak for, by full name, given what each source of the pools does."""
        spoken = {
            f"{name}__{column}": codes
            for name, family in self._plain.items()
            for column, codes in family.speakers(sources, kinds).items()
        }
        return spoken | {
            f"{name}__{column}": codes
            for name, family in self._derived.items()
            for column, codes in family.speakers(spoken).items()
        }

    def check(self, kinds: Kinds) -> None:
        """Raise `ConfigError` where a kind's name makes two columns of a family the same."""
        self._given((), kinds)

    def _given(self, sources: tuple[str, ...], kinds: Kinds) -> dict[str, tuple[str, ...]]:
        columns = {name: _prefixed(name, family.columns(sources, kinds)) for name, family in self._plain.items()}
        for of_family in columns.values():
            if twice := {column for column in of_family if of_family.count(column) > 1}:
                column = min(twice)
                kind = column.partition("__")[2].partition("_")[0].removesuffix("s")
                raise ConfigError(f"dataset.kinds.{kind}: there would be two columns {column}; call the kind something else")
        return columns

    def fit(self, past: Shop) -> None:
        """Fit every chosen family on the past."""
        for family in self._plain.values():
            family.fit(past)

    def compute(self, pool: CandidatePool, queries: Queries) -> FeatureMatrix:
        """The matrix of the pool's candidates, made block by block."""
        columns = self.columns(pool.sources, queries.kinds)
        names = tuple(name for of_family in columns.values() for name in of_family)
        families = tuple(family for family, of_family in columns.items() for _ in of_family)
        values = np.empty((len(pool), len(names)), dtype=np.float32, order="F")
        end = dict(zip(columns, np.cumsum([len(of_family) for of_family in columns.values()]).tolist(), strict=True))
        n_plain = max((end[name] for name in self._plain), default=0)

        def describe(first: int, last: int) -> None:
            part, asked = pool.block(first, last), queries.block(first, last)
            out = values[pool.indptr[first] : pool.indptr[last]]
            for name, family in self._plain.items():
                family.compute(part, asked, out[:, end[name] - len(columns[name]) : end[name]])
            given = FeatureMatrix(out[:, :n_plain], names[:n_plain], families[:n_plain], part)
            for name, derived in self._derived.items():
                derived.compute(given, out[:, end[name] - len(columns[name]) : end[name]])

        with ThreadPoolExecutor(self.threads or os.cpu_count()) as workers:
            for done in [workers.submit(describe, first, last) for first, last in _blocks(pool)]:
                done.result()
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


def _prefixed(family: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{family}__{column}" for column in columns)


def _blocks(pool: CandidatePool) -> Iterator[tuple[int, int]]:
    """Runs of whole queries with about `BLOCK` candidates each."""
    marks = np.searchsorted(pool.indptr, np.arange(0, len(pool), BLOCK))
    edges = np.unique(np.r_[0, marks, pool.n_queries]).tolist()
    return pairwise(edges)


def spread(values: npt.NDArray[np.generic], pool: CandidatePool, out: Float32) -> None:
    """Fill `out` with the value of each candidate's query."""
    out[:] = np.repeat(values.astype(np.float32), np.diff(pool.indptr))
