"""The two stages together: fit on the past, recommend, save and load."""

import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from recsys.cache import NoCache
from recsys.errors import DataError, NotFittedError
from recsys.features import FeatureMatrix, FeatureSet
from recsys.first_stage import FirstStage
from recsys.ranking import Examples, Ranker
from recsys.retrieval import Retriever
from recsys.shop.events import EventLog
from recsys.shop.identity import Vocabulary
from recsys.shop.kinds import Kinds
from recsys.shop.pools import CandidatePool, Float32, Ranking
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop
from recsys.shop.splits import Task
from recsys.timing import Timings

FORMAT = 2
"""Version of the saved folder's layout."""


@dataclass(frozen=True, eq=False)
class Recommendations:
    """Lists under the shop's own ids. `item`: `object[q, k]`, None pads a short list; `score`: `float32[q, k]`."""

    user: npt.NDArray[np.generic]
    item: npt.NDArray[np.object_]
    score: Float32


class TwoStageRecommender:
    """A retriever, a feature set and a ranker, fitted on the past of one cutoff.

    At each label cutoff the retriever is fitted on what came before, its candidates are described and graded by what came
    after, and the ranker learns from all of them. Then retriever and features are fitted once more, at the cutoff itself, as
    soon as they are needed. From one cutoff to the next the retriever goes on from what it has learned. What the first stage
    makes is taken from the `cache` where it was made before.
    """

    def __init__(
        self,
        retriever: Retriever,
        features: FeatureSet,
        ranker: Ranker,
        candidates: int = 200,
        cache: NoCache | None = None,
    ) -> None:
        self._retriever, self._features, self.ranker, self.candidates = retriever, features, ranker, candidates
        self._first: FirstStage | None = None
        self.cache = cache or NoCache()
        self.past: Shop | None = None
        self.cutoff = 0
        self._products: pa.Table | None = None

    def fit(
        self,
        shop: Shop,
        cutoff: int,
        labels: Sequence[Task] = (),
        timings: Timings | None = None,
    ) -> "TwoStageRecommender":
        """Fit both stages for queries at `cutoff`, from what was known before it; `labels`: the label windows' tasks, in order.

        Raises `ValueError` when a label window reaches past the cutoff, `DataError` when a ranker that learns is given none.
        """
        timings = timings or Timings()
        if late := [task.window for task in labels if task.window.end > cutoff]:
            raise ValueError(f"label window {late[0]} reaches past the cutoff")

        def first_stage(retriever: Retriever, at: int) -> FirstStage:
            return FirstStage(retriever, self._features, shop, at, self.cache, timings)

        retriever = self._retriever
        if self.ranker.learns:
            if not labels:
                raise DataError(
                    f"ranker: {type(self.ranker).__name__} learns from label windows and was given none;"
                    " set split.label_cutoffs to 1 or more, or ranker=none"
                )
            windows = []
            for i, task in enumerate(labels, start=1):
                with timings.group(f"label window {i} of {len(labels)}: {task.window}"):
                    first = first_stage(retriever, task.window.cutoff)
                    windows.append(_examples(first, task, self.candidates))
                    retriever = first.template
            with timings("ranker fit"):
                self.ranker.fit(windows)
        self._first, self.past, self.cutoff = first_stage(retriever, cutoff), shop.before(cutoff), cutoff
        self._products = None
        return self

    @property
    def retriever(self) -> Retriever:
        """The retriever; after `fit`, fitted at the cutoff."""
        return self._first.retriever if self._first else self._retriever

    @property
    def features(self) -> FeatureSet:
        """The features; after `fit`, fitted at the cutoff, unless the ranker needs none."""
        return self._first.features if self._first and self.ranker.reads else self._features

    @property
    def seconds(self) -> dict[str, float]:
        """What the newest pool and features took when they were made, be it in an earlier run."""
        return self._first.seconds if self._first else {}

    @property
    def products(self) -> pa.Table:
        """What was known at the cutoff, one row for each item number: the shop's `id`, `name`, `category`, `price`, and `image`
        and `url` where the catalogue has them; null: unknown.
        """
        if self._products is None:
            known = self._fitted().catalogue
            category = np.append(known.tree.category.ids.astype(object), np.array([None]))[known.category]
            texts = {"name": known.names(), "category": category}
            texts |= {name: known.texts.own(known.latest(name)) for name in ("image", "url") if name in known.types}
            columns = {name: pa.array(values, type=pa.string()) for name, values in texts.items()}
            price = pa.array(known.price, from_pandas=True)
            self._products = pa.table({"id": self.history.items.ids, **columns, "price": price})
        return self._products

    def pool(self, queries: Queries, candidates: int | None = None) -> CandidatePool:
        """The first stage's candidates: as many as the ranker gets, or another number."""
        return (self._first or self._retriever).pool(queries, candidates or self.candidates)

    def describe(self, pool: CandidatePool, queries: Queries) -> FeatureMatrix:
        """What the ranker sees of the candidates: no column where it needs none."""
        if not self.ranker.reads:
            return FeatureMatrix(np.empty((len(pool), 0), dtype=np.float32), (), (), pool)
        return self._first.describe(pool, queries) if self._first else self._features.compute(pool, queries)

    def rank(self, pool: CandidatePool, queries: Queries, k: int) -> Ranking:
        """The second stage's `k` best of the pool."""
        return pool.order(self.ranker.score(self.describe(pool, queries)), k)

    def queries(self, users: Sequence[object] | npt.NDArray[np.generic]) -> Queries:
        """Queries at the cutoff for users given by their own ids; unknown ones have an empty history."""
        return Queries.at(self.history, self.history.users.numbers(users), self.cutoff)

    def recommend(self, users: Sequence[object] | npt.NDArray[np.generic], k: int = 10) -> Recommendations:
        """The `k` best items for each user, by own ids. Raises `NotFittedError` before `fit` or `load`."""
        queries = self.queries(users)
        ranking = self.rank(self.pool(queries), queries, k)
        return Recommendations(np.asarray(users), self.history.items.own(ranking.item), ranking.score)

    @property
    def history(self) -> EventLog:
        """The log before the cutoff. Raises `NotFittedError` before `fit` or `load`."""
        return self._fitted().log

    def _fitted(self) -> Shop:
        if self.past is None:
            raise NotFittedError("TwoStageRecommender: fit or load before recommending")
        return self.past

    def save(self, folder: Path) -> None:
        """Write the model into `folder`, whole or not at all: arrays, text and Parquet only."""
        history = self.history
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            draft = Path(scratch) / "model"
            draft.mkdir()
            tables = {
                "history": pa.table({name: getattr(history, name) for name in ("user", "item", "kind", "time")}),
                "users": pa.table({"id": history.users.ids, "born": history.user_born}),
                "items": pa.table({"id": history.items.ids, "born": history.item_born}),
                "products": self.products,
            }
            with ThreadPoolExecutor() as workers:
                parts = {"retriever": self.retriever, "features": self.features, "ranker": self.ranker}
                jobs = [workers.submit(part.save, draft / name) for name, part in parts.items()]
                jobs += [workers.submit(pq.write_table, table, draft / f"{name}.parquet") for name, table in tables.items()]
                for job in jobs:
                    job.result()
            about = {
                "format": FORMAT,
                "cutoff": self.cutoff,
                "candidates": self.candidates,
                "kinds": history.kinds.declared(),
            }
            (draft / "model.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
            if folder.exists():
                shutil.rmtree(folder)
            draft.rename(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "TwoStageRecommender":
        """Read what `save` wrote; runs no code from the folder. Raises `DataError` when it is not a saved model."""
        folder = Path(folder)
        about = folder / "model.yaml"
        if not about.is_file():
            raise DataError(f"{folder} is not a saved model: wanted model.yaml in it")
        values = yaml.safe_load(about.read_text())
        if values.get("format") != FORMAT:
            raise DataError(
                f"{about}: wanted format {FORMAT}, found {values.get('format')}; run again to make the model in this format"
            )
        model = cls(
            Retriever.open(folder / "retriever"),
            FeatureSet.open(folder / "features"),
            Ranker.open(folder / "ranker"),
            values["candidates"],
        )
        events, users, items = (pq.read_table(folder / f"{name}.parquet") for name in ("history", "users", "items"))
        log = EventLog(
            **{name: events[name].to_numpy() for name in ("user", "item", "kind", "time")},
            users=Vocabulary(users["id"].to_numpy()),
            items=Vocabulary(items["id"].to_numpy()),
            user_born=users["born"].to_numpy(),
            item_born=items["born"].to_numpy(),
            kinds=Kinds.of(values["kinds"]),
        )
        model.past = Shop.of(log)
        model.cutoff = values["cutoff"]
        if (products := folder / "products.parquet").is_file():
            model._products = pq.read_table(products)
        return model


def _examples(first: FirstStage, task: Task, candidates: int) -> Examples:
    """The candidates of the queries that retrieval found something relevant for: the others teach nothing."""
    pool = first.pool(task.queries, candidates)
    relevant = task.truth.grade_of(pool.row, pool.item) > 0
    pool = pool.where((np.bincount(pool.row, weights=relevant, minlength=pool.n_queries) > 0)[pool.row])
    return Examples(first.describe(pool, task.queries), task.truth, task.window, task.queries.user)
