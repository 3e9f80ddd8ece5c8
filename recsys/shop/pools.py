"""What retrieval hands on: a ranking of one source, and the candidate pool with the evidence of every source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recsys.shop import ragged
from recsys.shop.events import Int64
from recsys.shop.identity import Int32
from recsys.shop.pairs import pair_key

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int16 = npt.NDArray[np.int16]

RRF_CONSTANT = 60
"""Reciprocal rank fusion, 1 / (60 + rank): Cormack, Clarke and Büttcher, SIGIR 2009."""


MAX_RANK = np.iinfo(np.int16).max
"""Deepest rank that a pool can hold."""

_GRAIN = 2.0**-50


def exact(parts: Float64) -> Float64:
    """Parts of a sum below 8, rounded so that it is exact: the same in any order of the parts, equal where they are."""
    return np.rint(parts / _GRAIN) * _GRAIN


@dataclass(frozen=True, eq=False)
class Ranking:
    """A list of items a query, best first.

    `item`: `int32[q, k]`, −1 pads a short list at its end; `score`: `float32[q, k]`, descending. Equal scores keep the order of
    the stage before; those of a first stage go by ascending item number.
    """

    item: Int32
    score: Float32

    def __len__(self) -> int:
        return len(self.item)

    @property
    def length(self) -> Int64:
        """Number of items in each list."""
        return np.asarray((self.item >= 0).sum(axis=1), dtype=np.int64)

    def top(self, k: int) -> "Ranking":
        """The first `k` of every list."""
        return Ranking(self.item[:, :k], self.score[:, :k])

    @classmethod
    def from_rows(cls, row: npt.NDArray[np.integer], item: Int32, score: Float32, n_rows: int, k: int) -> "Ranking":
        """The `k` best of scored (row, item) pairs of each row; scores of −inf or NaN are left out."""
        usable = score > -np.inf
        if not usable.all():
            row, item, score = row[usable], item[usable], score[usable]
        order = np.lexsort((item, -score, row))
        return cls._filled(row[order], item[order], score[order], n_rows, k)

    @classmethod
    def _filled(cls, row: npt.NDArray[np.integer], item: Int32, score: Float32 | Float64, n_rows: int, k: int) -> "Ranking":
        place = ragged.within_row(ragged.from_counts(np.bincount(row, minlength=n_rows)))
        keep = place < k
        items = np.full((n_rows, k), -1, dtype=np.int32)
        scores = np.full((n_rows, k), -np.inf, dtype=np.float32)
        items[row[keep], place[keep]] = item[keep]
        scores[row[keep], place[keep]] = score[keep]
        return cls(items, scores)


@dataclass(frozen=True, eq=False)
class CandidatePool:
    """The candidates of each query: one row a (query, item), items ascending inside a query.

    Query `r` owns rows `indptr[r]:indptr[r + 1]` of `item` (`int32[n]`). `rank` (`int16[s, n]`, from 1, 0 where the source did
    not propose the item) and `score` (`float32[s, n]`, NaN likewise) hold what each of the `sources` said. `fusion`
    (`float64[n]`) is the retrieval stage's own opinion: the higher, the earlier in retrieval order.
    """

    indptr: Int64
    item: Int32
    sources: tuple[str, ...]
    rank: Int16
    score: Float32
    fusion: Float64

    @classmethod
    def from_rankings(cls, rankings: Mapping[str, Ranking]) -> "CandidatePool":
        """The union of the rankings, in the order of reciprocal rank fusion.

        Raises `ValueError` for no ranking, for rankings of different queries and for lists longer than `MAX_RANK`.
        """
        names = tuple(rankings)
        shapes = {ranking.item.shape for ranking in rankings.values()}
        if len({q for q, _ in shapes}) != 1 or max(k for _, k in shapes) > MAX_RANK:
            raise ValueError(f"wanted rankings of the same queries, at most {MAX_RANK} deep, found shapes {sorted(shapes)}")
        n_rows = next(iter(shapes))[0]
        keys = []
        for ranking in rankings.values():
            row, place = np.nonzero(ranking.item >= 0)
            keys.append((pair_key(row, ranking.item[row, place]), row, place))
        union = np.sort(np.concatenate([key for key, _, _ in keys]))
        union = union[np.diff(union, prepend=-1) > 0]
        rank = np.zeros((len(names), len(union)), dtype=np.int16)
        score = np.full((len(names), len(union)), np.nan, dtype=np.float32)
        fusion = np.zeros(len(union), dtype=np.float64)
        for s, (name, (key, row, place)) in enumerate(zip(names, keys, strict=True)):
            at = np.searchsorted(union, key)
            rank[s, at] = place + 1
            score[s, at] = rankings[name].score[row, place]
            fusion[at] += exact(1 / (RRF_CONSTANT + 1 + place))
        indptr = ragged.from_sorted(union >> 32, n_rows)
        item = (union & 0xFFFFFFFF).astype(np.int32)
        return cls(indptr, item, names, rank, score, fusion)

    @classmethod
    def concatenate(cls, pools: Sequence["CandidatePool"]) -> "CandidatePool":
        """Pools of the same sources, one after the other: the queries of the first, then those of the second, …"""
        if len(pools) == 1:
            return pools[0]
        return cls(
            ragged.from_counts(np.concatenate([np.diff(pool.indptr) for pool in pools])),
            np.concatenate([pool.item for pool in pools]),
            pools[0].sources,
            np.concatenate([pool.rank for pool in pools], axis=1),
            np.concatenate([pool.score for pool in pools], axis=1),
            np.concatenate([pool.fusion for pool in pools]),
        )

    def beside(self, name: str, ranking: Ranking) -> "CandidatePool":
        """The union with one more source, the last. `fusion` stays, 0 for what only the new source proposes."""
        row, place = np.nonzero(ranking.item >= 0)
        key = pair_key(row, ranking.item[row, place])
        union = np.union1d(self.key, key)
        old, new = np.searchsorted(union, self.key), np.searchsorted(union, key)
        rank = np.zeros((len(self.sources) + 1, len(union)), dtype=np.int16)
        score = np.full(rank.shape, np.nan, dtype=np.float32)
        fusion = np.zeros(len(union))
        rank[:-1, old], score[:-1, old], fusion[old] = self.rank, self.score, self.fusion
        rank[-1, new], score[-1, new] = place + 1, ranking.score[row, place]
        item = (union & 0xFFFFFFFF).astype(np.int32)
        return CandidatePool(ragged.from_sorted(union >> 32, self.n_queries), item, (*self.sources, name), rank, score, fusion)

    def __len__(self) -> int:
        return len(self.item)

    @property
    def n_queries(self) -> int:
        """Number of queries, those without a candidate included."""
        return len(self.indptr) - 1

    @cached_property
    def row(self) -> Int32:
        """The query of each candidate: `int32[n]`."""
        return ragged.row_numbers(self.indptr)

    @cached_property
    def key(self) -> Int64:
        """Ascending keys of the (query, item) pairs."""
        return pair_key(self.row, self.item)

    def reciprocal_rank(self, source: str) -> Float64:
        """1 / (60 + rank) in the list of a source, 0 where it does not hold the candidate: `float64[n]`."""
        rank = self.rank[self.sources.index(source)]
        of_rank = 1 / (RRF_CONSTANT + np.arange(rank.max(initial=0) + 1.0))
        of_rank[0] = 0
        return of_rank[rank]

    def order(self, score: Float32, k: int) -> Ranking:
        """The `k` best candidates of each query by `score` (`float32[n]`); equal scores keep retrieval order."""
        retrieved = self._retrieval_order
        return self._ranking(retrieved[ragged.descending(self.indptr, score[retrieved])], score, k)

    @cached_property
    def _retrieval_order(self) -> Int64:
        """Rows by query, then best fusion first; items ascend in a query, so that ties go by item number."""
        return ragged.descending(self.indptr, self.fusion)

    def retrieved(self, k: int) -> Ranking:
        """The first `k` in retrieval order: fusion descending, ties by item number."""
        return self._ranking(self._retrieval_order, self.fusion, k)

    def _ranking(self, order: Int64, score: Float32 | Float64, k: int) -> Ranking:
        return Ranking._filled(self.row[order], self.item[order], score[order], self.n_queries, k)

    def top(self, k: int) -> "CandidatePool":
        """The pool cut to the first `k` of each query in retrieval order."""
        keep = np.zeros(len(self), dtype=bool)
        keep[self._retrieval_order[ragged.within_row(self.indptr) < k]] = True
        return self.where(keep)

    def where(self, keep: npt.NDArray[np.bool_]) -> "CandidatePool":
        """The pool with the marked rows only; every query stays, perhaps with no candidate."""
        kept = np.bincount(self.row[keep], minlength=self.n_queries)
        return CandidatePool(
            ragged.from_counts(kept),
            self.item[keep],
            self.sources,
            self.rank[:, keep],
            self.score[:, keep],
            self.fusion[keep],
        )

    def block(self, first: int, last: int) -> "CandidatePool":
        """The queries `first` to `last` (exclusive), as a view."""
        rows = slice(self.indptr[first], self.indptr[last])
        indptr = self.indptr[first : last + 1] - self.indptr[first]
        return CandidatePool(indptr, self.item[rows], self.sources, self.rank[:, rows], self.score[:, rows], self.fusion[rows])

    def take(self, rows: Int64) -> "CandidatePool":
        """The candidates of some of the queries, in the order given."""
        indptr, positions = ragged.take(self.indptr, rows)
        return CandidatePool(
            indptr,
            self.item[positions],
            self.sources,
            self.rank[:, positions],
            self.score[:, positions],
            self.fusion[positions],
        )
