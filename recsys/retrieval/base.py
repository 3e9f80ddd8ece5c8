"""The protocol of the first stage."""

import copy
from abc import ABC, abstractmethod
from dataclasses import fields
from typing import Any, ClassVar, Literal, Self

import numpy as np

from recsys.component import Component, component
from recsys.shop.events import Int64
from recsys.shop.fusion import Fusion
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool, Ranking
from recsys.shop.queries import Queries
from recsys.shop.reasons import NOTHING, Codes, check
from recsys.shop.shop import Shop

Seen = Literal["keep", "drop_bought", "drop_touched"]


@component
class Retriever(Component, ABC):
    """Finds candidates: fitted on the past of a cutoff, asked with queries that carry their own histories."""

    name: ClassVar[str]
    """What its candidates are labelled with when it is the only source."""
    speaks_for: ClassVar[Codes] = NOTHING
    """The reasons (`recsys.shop.reasons`) that it bears out where its evidence for a candidate moves the ranker."""
    seen: Seen = "keep"
    """Which of the query's own items may be proposed: all (`keep`), not those it bought, or none that it touched."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Raises `ConfigError` for a reason that there is not."""
        super().__init_subclass__(**keywords)
        check(cls.speaks_for, f"{cls.__name__}.speaks_for")

    @abstractmethod
    def fit(self, past: Shop) -> None:
        """Learn from what was known before the cutoff, in place of what was learned before.

        That is replaced and not changed, since twins share it. A fit that goes on from it gives what a fresh one would.
        """

    @abstractmethod
    def retrieve(self, queries: Queries, k: int) -> Ranking:
        """The `k` best items of each query; shorter lists are padded with −1."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What its candidates may be labelled with: the `sources` of its pools."""
        return (self.name,)

    def pool(self, queries: Queries, k: int) -> CandidatePool:
        """Up to `k` candidates a query, with the evidence for each."""
        return CandidatePool.from_rankings({self.name: self.retrieve(queries, k)})

    def speakers(self) -> dict[str, Codes]:
        """What each source of its pools speaks for."""
        return {self.name: self.speaks_for}

    def twin(self) -> Self:
        """A copy with settings of its own. It shares what was learned, which a fit replaces and does not change."""
        other = copy.copy(self)
        for field in fields(self):  # type: ignore[arg-type]
            setattr(other, field.name, _twin(getattr(self, field.name)))
        return other

    def union(self, queries: Queries, k: int) -> CandidatePool:
        """All that the sources propose where `pool` is asked for `k` candidates, before it is cut to these."""
        return self.pool(queries, k)

    @property
    def ordering(self) -> Fusion:
        """How its pools are ordered, by the ranks that their sources give."""
        return Fusion((1.0,) * len(self.labels))

    def excluded(self, queries: Queries) -> Int64:
        """Ascending `pair_key`s of the (query, item) pairs that `seen` forbids."""
        if self.seen == "keep":
            return np.empty(0, dtype=np.int64)
        gone = np.ones(len(queries.kind), dtype=bool) if self.seen == "drop_touched" else queries.has_role("purchase")
        return np.unique(pair_key(queries.row[gone], queries.item[gone]))


def _twin(value: Any) -> Any:
    if isinstance(value, Retriever):
        return value.twin()
    if isinstance(value, dict):
        return {name: _twin(part) for name, part in value.items()}
    return [_twin(part) for part in value] if isinstance(value, list) else value
