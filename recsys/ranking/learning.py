"""What every ranker that learns shares: which candidates it learns from, and which it is judged on while it does."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import PositiveInt

from recsys.component import State, component
from recsys.errors import DataError, NotFittedError
from recsys.features import FeatureMatrix, rows_of
from recsys.ranking.base import Examples, Ranker
from recsys.shop import ragged
from recsys.shop.events import Int64
from recsys.shop.pools import CandidatePool, Float32

HELD_OUT = 3
"""One user of so many is held out where no label window is free of overlap with the latest."""


@dataclass(frozen=True, eq=False)
class Table:
    """Candidates of several label windows below each other, ready to learn from.

    `parts`: `float32[n, f]` of each window, column-major; `grade`: `float32[n]` of all; `groups`: lengths of the groups, each
    with a relevant one; `query`: number of each group's query, counted through the windows.
    """

    parts: tuple[Float32, ...]
    grade: Float32
    groups: Int64
    query: Int64

    @property
    def cells(self) -> int:
        """How many values there are."""
        return sum(part.size for part in self.parts)

    @property
    def values(self) -> Float32:
        """All parts as one matrix, a copy that is as large as they are: `float32[n, f]`, column-major."""
        values = np.empty((len(self.grade), self.parts[0].shape[1]), dtype=np.float32, order="F")
        for column in range(values.shape[1]):
            np.concatenate([part[:, column] for part in self.parts], out=values[:, column])
        return values

    def where(self, groups: npt.NDArray[np.bool_]) -> "Table":
        """The marked groups only."""
        rows = np.repeat(groups, self.groups)
        of_part = np.split(rows, np.cumsum([len(part) for part in self.parts])[:-1])
        parts = tuple(rows_of(part, np.flatnonzero(keep)) for part, keep in zip(self.parts, of_part, strict=True))
        return Table(parts, self.grade[rows], self.groups[groups], self.query[groups])


@component
class Learned(Ranker):
    """A ranker with a fit. Groups without a relevant candidate teach nothing and are left out; evaluation keeps them."""

    groups: PositiveInt | None = None
    """Most groups (a user at a label cutoff) to learn from, drawn with equal chances; none: all. Validation always has all."""
    negatives: PositiveInt | None = None
    """Most candidates of each group that are not relevant to learn from; none: all. Validation always has all."""
    negatives_by: Literal["uniform", "hard"] = "uniform"
    """Which: drawn with equal chances, or half of them the first in retrieval order (all of them would teach that a good place
    in retrieval order is a bad sign)."""
    seed: int = 0

    def __post_init__(self) -> None:
        self.names: tuple[str, ...] = ()

    def table(self, windows: Sequence[Examples]) -> Table:
        """The candidates to learn from. Raises `DataError` when none of them is relevant."""
        drawn = self._drawn(windows)
        if not np.concatenate(drawn).any():
            raise DataError(
                "ranker: no candidate of any label window is relevant, so there is nothing to learn from;"
                " widen split.label_horizon, raise candidates, or choose another retriever"
            )
        self.names = windows[0].features.names
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            kept = list(workers.map(self._kept, windows, drawn, range(len(windows))))
        sizes = np.concatenate([np.diff(window.features.pool.indptr) for window in kept])
        parts = tuple(window.features.values for window in kept)
        return Table(parts, np.concatenate([window.grade for window in kept]), sizes[sizes > 0], np.flatnonzero(sizes))

    def _drawn(self, windows: Sequence[Examples]) -> list[npt.NDArray[np.bool_]]:
        """The groups of each window to learn from: `bool[q]`."""
        drawn = np.concatenate([_teaching(window) for window in windows])
        taught = np.flatnonzero(drawn)
        if self.groups is not None:
            drawn[np.random.default_rng(self.seed).permutation(taught)[self.groups :]] = False
        return np.split(drawn, np.cumsum([window.features.pool.n_queries for window in windows])[:-1])

    def _kept(self, window: Examples, groups: npt.NDArray[np.bool_], number: int) -> Examples:
        return window.where(self._chosen(window, groups, np.random.default_rng([self.seed, number])))

    def _chosen(self, window: Examples, groups: npt.NDArray[np.bool_], chance: np.random.Generator) -> npt.NDArray[np.bool_]:
        """Candidates of these groups: of each the relevant ones and so many others."""
        pool, relevant = window.features.pool, window.grade > 0
        chosen = groups[pool.row]
        if self.negatives is None:
            return chosen
        others = np.flatnonzero(chosen & ~relevant)
        order = chance.random(len(others))
        if self.negatives_by == "hard":
            place = _place(pool, others, -pool.fusion[others])
            order[place < self.negatives // 2] = -1
        chosen[others[_place(pool, others, order) >= self.negatives]] = False
        return chosen

    def check(self, features: FeatureMatrix) -> None:
        """Raise `NotFittedError` before a fit, `DataError` for other columns than were learned."""
        if not self.names:
            raise NotFittedError(f"{type(self).__name__}: fit or load before scoring")
        if self.names != features.names:
            differ = ", ".join(sorted(set(self.names) ^ set(features.names))) or "the order"
            raise DataError(f"ranker: learned {len(self.names)} features, was given {len(features.names)}; differing: {differ}")

    def named(self, values: Sequence[float] | npt.NDArray[np.floating]) -> dict[str, float]:
        """A value a feature, largest first."""
        pairs = zip(self.names, map(float, values), strict=True)
        return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))

    def state(self) -> State:
        """Names of the columns that were learned."""
        return {"names": np.array(self.names, dtype=np.str_)}

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.names = tuple(state["names"].tolist())


def _place(pool: CandidatePool, rows: Int64, order: npt.NDArray[np.floating]) -> Int64:
    """Place of each of the candidates `rows` within its query by ascending `order`, from 0."""
    by_order = np.lexsort((rows, order, pool.row[rows]))
    place = np.empty(len(rows), dtype=np.int64)
    place[by_order] = ragged.within_row(ragged.from_sorted(pool.row[rows], pool.n_queries))
    return place


def _teaching(window: Examples) -> npt.NDArray[np.bool_]:
    """Which queries have a relevant candidate: `bool[q]`."""
    pool = window.features.pool
    return np.bincount(pool.row, weights=window.grade > 0, minlength=pool.n_queries) > 0


def divide(windows: Sequence[Examples]) -> tuple[npt.NDArray[np.bool_], Examples]:
    """Which queries to learn from (`bool[q]`, counted through the windows), and the latest window to be judged on meanwhile,
    with no purchase that is a label in both. What no order can change is left out of the latter: candidates of queries that
    have no relevant one.

    Windows that reach past the cutoff of the latest share its labels, so they are purged. Where none with a relevant candidate
    is left, one user in three is held out instead: the latest window's labels of these users judge, everybody else's teach.
    """
    latest = windows[-1]
    purged = [window is latest or _overlap(window, latest) for window in windows]
    if any((window.grade > 0).any() for window, out in zip(windows, purged, strict=True) if not out):
        teaches = np.repeat(np.logical_not(purged), [len(window.truth) for window in windows])
    else:
        held_out = [_users(window) % HELD_OUT == 0 for window in windows]
        teaches = ~np.concatenate(held_out)
        latest = latest.take(np.flatnonzero(held_out[-1]))
    return teaches, latest.where(_teaching(latest)[latest.features.pool.row])


def _overlap(earlier: Examples, latest: Examples) -> bool:
    return earlier.window is not None and latest.window is not None and earlier.window.end > latest.window.cutoff


def _users(window: Examples) -> npt.NDArray[np.integer]:
    return np.arange(len(window.truth)) if window.user is None else window.user
