"""The first stage at one cutoff: retriever, pools and features, made when they are first asked for or taken from the cache."""

from collections.abc import Callable
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.cache import NoCache, Step
from recsys.component import Component
from recsys.features import FeatureMatrix, FeatureSet
from recsys.retrieval import Retriever
from recsys.shop.pools import CandidatePool
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop
from recsys.timing import Timings

Arrays = dict[str, npt.NDArray[Any]]


class FirstStage:
    """Candidates and their features for queries at `cutoff`, from what was known of the shop before it.

    The given retriever and features are templates: copies of them are fitted, so that one cutoff does not disturb another. A
    retriever that was fitted at an earlier cutoff is a template too, and what it learned there is gone on from.
    """

    def __init__(
        self,
        retriever: Retriever,
        features: FeatureSet,
        shop: Shop,
        cutoff: int,
        cache: NoCache,
        timings: Timings,
    ) -> None:
        self.template = retriever
        """The retriever as given, then as fitted: the template for a later cutoff."""
        self._features, self._cache, self._timings = features, cache, timings
        self._past = shop.before(cutoff)
        self._identity = lambda: (shop.fingerprint, cutoff)
        self.seconds: dict[str, float] = {}
        """What the newest pool and its features took when they were made, be it in an earlier run."""

    @cached_property
    def retriever(self) -> Retriever:
        """The fitted retriever."""

        def fit() -> Retriever:
            fresh = self.template.twin()
            fresh.fit(self._past)
            return fresh

        with self._timings("retriever fit"):
            self.template = self._cache.fitted("retriever", self.template, self._identity, fit)
        return self.template

    @cached_property
    def features(self) -> FeatureSet:
        """The fitted features."""

        def fit() -> FeatureSet:
            fresh = deepcopy(self._features)
            fresh.fit(self._past)
            return fresh

        with self._timings("features fit"):
            return self._cache.fitted("features", self._features, self._identity, fit)

    def pool(self, queries: Queries, candidates: int) -> CandidatePool:
        """So many candidates a query."""

        def make() -> Arrays:
            retriever = self.retriever
            with self._timings("retrieve"):
                pool = retriever.pool(queries, candidates)
            columns = {name: getattr(pool, name) for name in ("indptr", "item", "rank", "score", "fusion")}
            return columns | {"sources": np.array(pool.sources, dtype=np.str_)}

        made = self._timed("pool", self.template, lambda: (self._identity(), candidates, queries), make)
        sources = tuple(made["sources"].tolist())
        return CandidatePool(made["indptr"], made["item"], sources, made["rank"], made["score"], made["fusion"])

    def describe(self, pool: CandidatePool, queries: Queries) -> FeatureMatrix:
        """The features of the queries' candidates."""

        def make() -> Arrays:
            features = self.features
            with self._timings("features"):
                matrix = features.compute(pool, queries)
            named = {name: np.array(getattr(matrix, name), dtype=np.str_) for name in ("names", "families")}
            return named | {"values": matrix.values}

        made = self._timed("features", self._features, lambda: (self._identity(), pool, queries), make)
        return FeatureMatrix(made["values"], tuple(made["names"].tolist()), tuple(made["families"].tolist()), pool)

    def _timed(self, step: Step, template: Component, depends: Callable[[], Any], make: Callable[[], Arrays]) -> Arrays:
        def measured() -> Arrays:
            arrays = make()
            return arrays | {"seconds": np.array(self._timings.last)}

        arrays = self._cache.arrays(step, template, depends, measured)
        self.seconds[step] = float(arrays.pop("seconds"))
        return arrays
