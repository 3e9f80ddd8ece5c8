"""One fit watched from histories to lists, each stage with a hash, so that two fits can be told apart by a bit."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.digest import digest
from recsys.features import FeatureMatrix
from recsys.ranking import Examples, Ranker
from recsys.recommender import TwoStageRecommender
from recsys.shop.pools import CandidatePool, Float32, Ranking
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop
from recsys.shop.splits import Fold, Split, Task

Build = Callable[[], TwoStageRecommender]
"""Makes the recommender anew, not fitted."""


@dataclass(eq=False)
class Trace:
    """All that one fit brought forth in one world. `parts`: a hash of each stage, in the order in which they come."""

    pool: CandidatePool
    features: FeatureMatrix
    score: Float32
    lists: Ranking
    labels: list[Task]
    windows: list[Examples]
    ranker: Ranker
    parts: dict[str, str]


class _Tap(Ranker):
    """Passes everything on to a ranker, and keeps what it was given to learn from."""

    def __init__(self, ranker: Ranker) -> None:
        self.inner, self.windows = ranker, list[Examples]()
        self.learns, self.reads = ranker.learns, ranker.reads  # type: ignore[misc]

    def settings(self) -> dict[str, Any]:
        return self.inner.settings()

    def fit(self, windows: Sequence[Examples]) -> None:
        self.windows = list(windows)
        self.inner.fit(windows)

    def score(self, features: FeatureMatrix) -> Float32:
        return self.inner.score(features)


def trace(world: Shop, split: Split, fold: Fold, test: Task, build: Build) -> Trace:
    """Fit a new recommender in `world` and ask it what the test asks."""
    recommender = build()
    tap = _Tap(recommender.ranker)
    cutoff = fold.test.cutoff
    labels = [split.label_task(world, window) for window in fold.labels] if tap.learns else []
    recommender.ranker = tap
    recommender.fit(world, cutoff, labels)
    recommender.ranker = tap.inner
    queries = Queries.at(world.before(cutoff).log, test.queries.user, cutoff)
    pool = recommender.pool(queries)
    features = recommender.describe(pool, queries)
    score = tap.inner.score(features)
    lists = pool.order(score, 20)
    with tempfile.TemporaryDirectory() as scratch:
        recommender.save(Path(scratch, "model"))
        saved = {name: _saved(Path(scratch, "model", name)) for name in ("retriever", "features", "ranker")}
    parts = {
        "the queries' histories": digest(queries.indptr, queries.item, queries.kind, queries.event_time),
        "the training labels": digest(
            [(task.queries.user, task.truth.indptr, task.truth.item, task.truth.grade) for task in labels]
        ),
        "the fitted retriever": saved["retriever"],
        "the fitted features": saved["features"],
        "the candidate pools": digest(pool.indptr, pool.item, pool.rank, pool.score, pool.fusion),
        "the feature values": digest(features.names, features.values),
        "the fitted ranker": saved["ranker"],
        "the scores": digest(score),
        "the lists": digest(lists.item, lists.score),
    }
    return Trace(pool, features, score, lists, labels, tap.windows, tap.inner, parts)


def _saved(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest([(str(path.relative_to(folder)), path.read_bytes()) for path in files])
