"""One fit watched from histories to lists, each stage with a hash, so that two fits can be told apart by a bit."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.audit._chance import LEAST_EDGE, percentile
from recsys.component import Component, construct
from recsys.digest import digest
from recsys.features import FeatureMatrix
from recsys.ranking import Examples, Ranker
from recsys.recommender import TwoStageRecommender
from recsys.shop import ragged
from recsys.shop.events import Int64
from recsys.shop.identity import Int32
from recsys.shop.pools import CandidatePool, Float32, Ranking
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop
from recsys.shop.splits import Split, Task, Window

DEPTH = 20
"""Length of the lists."""


@dataclass(frozen=True, eq=False)
class Order:
    """What is to be fitted and asked in one world.

    `settings`: those of `retriever`, `features`, `ranker` and `split`, and the number of `candidates`. `windows`: the label
    windows by their numbers. `users` are asked at `cutoff`; None asks nobody, so that the label windows alone are made.
    `labels` are the answers of the windows, where the split does not give them in this world. With `ranker`, a folder, the
    ranker is not fitted but as it was saved there. `made_up`: pools that are described and scored besides, by rows and items.
    With `truth`, the ranker is also fitted on shuffled labels, up to `shuffles` times.
    """

    settings: Mapping[str, Any]
    cutoff: int
    windows: Mapping[int, Window] = field(default_factory=dict)
    users: Int32 | None = None
    labels: Sequence[Task] | None = None
    ranker: Path | None = None
    save: Path | None = None
    made_up: Sequence[tuple[Int64, Int32]] = ()
    truth: Truth | None = None
    shuffles: int = 0
    seed: int = 0


@dataclass(eq=False)
class Trace:
    """What one fit brought forth in one world.

    `parts`: a hash of each stage, in the order in which they come. `windows`: counts of each label window's pool. `columns`:
    for each made-up pool, the values of each feature and of the ranker's score. `shuffled`: the AUC of the ranker among the
    test's candidates, first as fitted, then after each fit on shuffled labels. `opened`: files that were read besides code;
    `declared`: those that the components name, None for some that cannot be named.
    """

    parts: dict[str, str]
    windows: list[dict[str, Any]]
    learns: bool
    reads: bool
    declared: list[str | None]
    reopens: bool = False
    """Whether the ranker scores as before when it was saved and opened, so that another world can go on with it."""
    pool: CandidatePool | None = None
    score: Float32 | None = None
    lists: Ranking | None = None
    columns: list[dict[str, Float32]] = field(default_factory=list)
    heeds: bool = True
    """Whether the ranker scores otherwise when it learns from half of the queries."""
    shuffled: list[float] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)


class _Tap(Ranker):
    """Passes everything on to a ranker, and keeps what it was given to learn from; one that is `fitted` learns nothing."""

    def __init__(self, ranker: Ranker, fitted: bool) -> None:
        self.inner, self.fitted, self.windows = ranker, fitted, list[Examples]()
        self.learns, self.reads = ranker.learns, ranker.reads  # type: ignore[misc]

    def settings(self) -> dict[str, Any]:
        return self.inner.settings()

    def fit(self, windows: Sequence[Examples]) -> None:
        self.windows = list(windows)
        if not self.fitted:
            self.inner.fit(windows)

    def score(self, features: FeatureMatrix) -> Float32:
        return self.inner.score(features)


def settings_of(recommender: TwoStageRecommender, split: Split) -> dict[str, Any]:
    """What `Order.settings` holds."""
    parts = {"retriever": recommender.retriever, "features": recommender.features, "ranker": recommender.ranker, "split": split}
    return {name: part.settings() for name, part in parts.items()} | {"candidates": recommender.candidates}


def trace(world: Shop, order: Order, given: TwoStageRecommender | None = None) -> Trace:
    """Fit a new recommender in `world` and ask it: the `given` one, or what the settings describe."""
    names = ("retriever", "features", "ranker")
    made = {name: getattr(given, name) if given else construct(order.settings[name], name) for name in names}
    split: Split = construct(order.settings["split"], "split")
    parts: dict[str, str] = {}
    components: list[Component] = list(made.values())
    ranker: Ranker = _opened(made["ranker"], order.ranker) if order.ranker else made["ranker"]
    tap = _Tap(ranker, fitted=order.ranker is not None or order.users is None)
    recommender = TwoStageRecommender(made["retriever"], made["features"], tap, order.settings["candidates"])
    labels = list(order.labels or ())
    if tap.learns and order.labels is None:
        labels = [split.label_task(world, window) for window in order.windows.values()]
        parts["the training labels"] = digest(
            [(task.queries.user, task.truth.indptr, task.truth.item, task.truth.grade) for task in labels]
        )
    if order.ranker and not labels:
        tap.learns = False  # type: ignore[misc]
    recommender.fit(world, order.cutoff, labels)
    windows = []
    for number, window in zip(order.windows, tap.windows, strict=False):
        windows.append(counts(window.features.pool, window.truth))
        parts |= _stages(f" of label window {number}", window.features.pool, window.features)
    declared = [path for each in components for part in each.components() for path in _declared(part)]
    result = Trace(parts, windows, tap.inner.learns, tap.reads, declared)
    if order.users is None:
        return result
    queries = Queries.at(world.before(order.cutoff).log, order.users, order.cutoff)
    parts["the queries' histories"] = digest(
        queries.indptr, queries.item, queries.kind, (queries.event_time - order.cutoff).astype(np.int64)
    )
    pool = recommender.pool(queries)
    features = recommender.describe(pool, queries)
    score = tap.inner.score(features)
    lists = pool.order(score, DEPTH)
    if order.save:
        recommender.ranker = tap.inner
        recommender.save(order.save)
        parts |= {f"the fitted {name}": _saved(order.save / name) for name in ("retriever", "features", "ranker")}
        result.reopens = _reopens(order, features, score)
    parts |= _stages("", pool, features)
    parts |= {"the scores": digest(score), "the lists": digest(lists.item, lists.score)}
    result.pool, result.score, result.lists = pool, score, lists
    if tap.reads:
        result.columns = [_columns(recommender, queries, pool.sources, each, order.seed) for each in order.made_up]
    if tap.inner.learns and order.truth is not None and order.shuffles:
        result.shuffled = _shuffled(tap, features, score, order.truth, order.shuffles, order.seed)
        tap.inner.fit([window.take(np.arange(0, len(window.truth), 2)) for window in tap.windows])
        result.heeds = not np.array_equal(tap.inner.score(features), score)
    return result


def _opened(ranker: Ranker, folder: Path) -> Ranker:
    """The ranker as it was saved, opened as what its settings say."""
    with np.load(folder / "state.npz", allow_pickle=False) as arrays:
        ranker.restore(dict(arrays))
    ranker.read_files(folder)
    return ranker


def _reopens(order: Order, features: FeatureMatrix, score: Float32) -> bool:
    assert order.save is not None
    try:
        other = _opened(construct(order.settings["ranker"], "ranker"), order.save / "ranker").score(features)
    except Exception:  # a component of the user's: whatever it does, it cannot be used
        return False
    return np.array_equal(other, score)


def _declared(part: Component) -> list[str | None]:
    files = part.files()
    return [None] if files is None else [str(path) for path in files]


def _stages(where: str, pool: CandidatePool, features: FeatureMatrix) -> dict[str, str]:
    return {
        f"the candidate pools{where}": digest(pool.indptr, pool.item, pool.rank, pool.score, pool.fusion),
        f"the feature values{where}": digest(features.names, features.values),
    }


def counts(pool: CandidatePool, truth: Truth) -> dict[str, Any]:
    """How many candidates there are, how many are relevant, and which nobody proposed or are there twice."""
    return {
        "candidates": len(pool),
        "relevant": int((truth.grade_of(pool.row, pool.item) > 0).sum()),
        "truth": len(truth.item),
        "proposed by no source": int((~(pool.rank > 0).any(axis=0)).sum()),
        "twice": int((np.diff(pool.key) <= 0).sum()),
    }


def _columns(
    recommender: TwoStageRecommender, queries: Queries, sources: tuple[str, ...], pairs: tuple[Int64, Int32], seed: int
) -> dict[str, Float32]:
    """Every feature and the score of (row, item) pairs, with random evidence of every source."""
    (row, item), draw = pairs, np.random.default_rng(seed)
    evidence = np.stack([draw.random(len(row), dtype=np.float32) for _ in sources])
    rank = np.stack([_ranks(row, values) for values in evidence])
    pool = CandidatePool(ragged.from_sorted(row, len(queries)), item, sources, rank, evidence, evidence.sum(axis=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        features = recommender.describe(pool, queries)
    columns = {column: features.values[:, i] for i, column in enumerate(features.names)}
    return columns | {"the ranker's score": recommender.ranker.score(features)}


def _ranks(row: npt.NDArray[np.integer], values: Float32) -> npt.NDArray[np.int16]:
    rank = np.empty(len(row), dtype=np.int16)
    order = np.lexsort((-values, row))
    rank[order] = np.arange(len(row)) - np.searchsorted(row, row) + 1
    return rank


def _shuffled(tap: _Tap, features: FeatureMatrix, score: Float32, truth: Truth, shuffles: int, seed: int) -> list[float]:
    """AUC of the ranker as fitted, then with shuffled labels until it has lost half of what it had over chance."""
    pool, draw = features.pool, np.random.default_rng(seed)
    found = [_auc(pool, score, truth)]
    if found[0] > 0.5 + LEAST_EDGE:
        for _ in range(shuffles):
            tap.inner.fit([_shuffle(window, draw) for window in tap.windows])
            found.append(_auc(pool, tap.inner.score(features), truth))
            if found[-1] < (found[0] + 0.5) / 2:
                break
    return found


def _auc(pool: CandidatePool, score: Float32, truth: Truth) -> float:
    """Mean percentile of the relevant candidates among their query's; one half without any."""
    relevant = truth.grade_of(pool.row, pool.item) > 0
    return float(percentile(pool.row, score)[relevant].mean()) if relevant.any() else 0.5


def _shuffle(window: Examples, draw: np.random.Generator) -> Examples:
    """The same grades, each at a random candidate of its query."""
    pool = window.features.pool
    grade = window.grade[np.lexsort((draw.random(len(pool)), pool.row))]
    kept = grade > 0
    indptr = ragged.from_sorted(pool.row[kept], pool.n_queries)
    return Examples(window.features, Truth(indptr, pool.item[kept], grade[kept]))


def _saved(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest([(str(path.relative_to(folder)), path.read_bytes()) for path in files])
