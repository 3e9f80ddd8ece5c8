"""How fast it is, in ratios to a peer or a yardstick that the same run measures on the same data.

Seconds depend on the machine, ratios hardly do, so that only ratios can be compared between machines and months. The peer of
the retrievers is implicit, on the same model and users, with one BLAS thread for both. RecTools' item-kNN wraps implicit's, so
that the rows of item_knn speak for it too; RecTools itself wants numpy below 2 and can be no dependency here.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy import sparse
from threadpoolctl import threadpool_limits

from recsys import cli
from recsys.component import construct
from recsys.datasets.base import Dataset
from recsys.datasets.synthetic import Synthetic
from recsys.errors import nearest
from recsys.features import FeatureSet
from recsys.judging import judge_fold, summarise
from recsys.ranking import RetrievalOrder
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import ALS, BPR, Hybrid, ItemKNN, Retriever
from recsys.shop.events import EventLog, Int8, days
from recsys.shop.identity import Int32
from recsys.shop.kinds import RETAIL, ROLES, SIGNAL_WEIGHTS
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool
from recsys.shop.queries import Queries
from recsys.shop.splits import Split, Task, Window
from recsys.timing import Timings

QUERIES = 10_000
"""Queries asked of a full-size shop."""
K = 200
ROUNDS, ENOUGH = 5, 10.0
"""A measurement is taken at most so often, and not again after so many seconds."""
ITERATIONS = 2
"""Of ALS and BPR, where their fits are compared: each takes as long as the others."""
WARM_UP = 0.002
"""Scale of the shop on which everything runs once unmeasured, so that no compilation is measured."""
JUDGED = (
    *("session_knn", "covisitation", "covisitation_buy", "covisitation_session", "covisitation_view_buy"),
    *("user_knn", "history", "popularity", "trending", "category"),
)
"""Ten sources that are fitted quickly."""
DESCRIBED = 6
"""How many of them propose the candidates that are described: as many as the default hybrid has."""
WIDTH = 132
"""Columns of a table that goes to a file."""


@dataclass(frozen=True)
class Promise:
    """What a figure is to be: below a limit, or at least one."""

    limit: float
    unit: str
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '<'} {self.limit:,g}{self.unit}"

    def kept(self, figure: float) -> bool:
        """Whether the figure is as promised."""
        return figure >= self.limit if self.at_least else figure < self.limit


AS_FAST = Promise(1.1, "×")
"""No slower than the peer; a tenth is noise."""


@dataclass(frozen=True)
class Row:
    """One measurement beside another. `figure` is what the promise is about; none: the ratio. Some rows promise nothing."""

    what: str
    own: float
    against: str
    other: float
    promise: Promise | None
    figure: float | None = None
    unit: str = " s"
    agreement: float | None = None
    """Share of the peer's lists that ours hold too."""

    @property
    def ratio(self) -> float:
        """How many times what it is compared with."""
        return self.own / self.other

    @property
    def promised(self) -> float:
        """The figure that the promise is about."""
        return self.ratio if self.figure is None else self.figure

    def document(self, part: str) -> dict[str, Any]:
        """As plain values."""
        promise = self.promise and {"promise": str(self.promise), "kept": self.promise.kept(self.promised)}
        return {"part": part, **asdict(self), "ratio": self.ratio, "promised": self.promised, **(promise or {})}


class Bench:
    """A synthetic shop of a scale, with what several parts ask of it."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.dataset: Dataset = Synthetic(scale=scale).load()  # type: ignore[call-arg]
        with initialize_config_dir(str(cli.CONFIGS), version_base="1.3"):
            config = compose("config", ["features=full", "output_dir=null"])
        self.config: Any = OmegaConf.to_container(config, resolve=True)

    @property
    def log(self) -> EventLog:
        """All events."""
        return self.dataset.log

    @property
    def end(self) -> int:
        """The time after the last event."""
        return int(self.log.time[-1]) + 1

    @cached_property
    def task(self) -> Task:
        """Users who come back in the last four weeks, and what they touch then."""
        split = Split(target_events=list(ROLES))  # type: ignore[call-arg]
        task = split.test_task(self.dataset, Window(self.end - days(28), self.end))
        n = min(len(task.queries), max(int(QUERIES * self.scale), 50))
        some = np.linspace(0, len(task.queries) - 1, n).astype(np.int64)
        return Task(task.window, task.queries.take(some), task.truth.take(some), task.funnel)

    @cached_property
    def queries(self) -> Queries:
        """The same users at the end of the log."""
        return Queries.at(self.log, self.task.queries.user, self.end)

    @cached_property
    def sort(self) -> float:
        """The yardstick: seconds in which numpy sorts the log's (user, item) pairs."""
        pairs = pair_key(self.log.user, self.log.item)
        return seconds(lambda: np.sort(pairs))[0]

    def retriever(self, name: str, **options: Any) -> Retriever:
        """A retriever as the default hybrid defines it."""
        made: Retriever = construct(self.config["retriever"]["definitions"][name] | options)
        return made

    def fitted(self, retriever: Retriever, cutoff: int | None = None) -> Retriever:
        """The retriever, fitted on what came before the cutoff; none: on everything."""
        at = self.end if cutoff is None else cutoff
        retriever.fit(self.dataset.before(at))
        return retriever

    @cached_property
    def sources(self) -> dict[str, Retriever]:
        """The ten sources, fitted at the task's cutoff."""
        return {name: self.fitted(self.retriever(name), self.task.window.cutoff) for name in JUDGED}

    def union(self, names: Sequence[str], k: int) -> CandidatePool:
        """The candidates of the task's queries by some of the sources."""
        hybrid = Hybrid(sources=list(names), definitions=self.sources)  # type: ignore[call-arg]
        return hybrid.pool(self.task.queries, k)


def seconds(*works: Callable[[], object]) -> list[float]:
    """The least seconds that each takes, taken in turns so that a busy moment meets all of them."""
    taken: list[list[float]] = [[] for _ in works]
    begin = time.perf_counter()
    for _ in range(ROUNDS):
        for work, mine in zip(works, taken, strict=True):
            start = time.perf_counter()
            work()
            mine.append(time.perf_counter() - start)
        if time.perf_counter() - begin > ENOUGH:
            break
    return [min(mine) for mine in taken]


def peers(shop: Bench) -> Iterator[Row]:
    """Fit and top 200 of als, bpr and item_knn, against implicit's own."""
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender

    log, queries = shop.log, shop.queries
    asked = np.arange(len(queries))

    def several() -> sparse.csr_matrix:
        """The users with more than one item, as our factorisations learn from."""
        likes = summed(log.user, log.item, log.kind, (log.n_users, log.n_items))
        return likes[likes.getnnz(axis=1) > 1]

    als = ALS(iterations=ITERATIONS)  # type: ignore[call-arg]
    settings = {"factors": als.factors, "regularization": als.regularization, "random_state": als.seed}
    yield _fit(
        shop, "als", als, lambda: AlternatingLeastSquares(iterations=ITERATIONS, **settings).fit(several(), show_progress=False)
    )
    solver = AlternatingLeastSquares(**settings)
    solver.item_factors = als.item_factors

    def folded_in() -> Int32:
        column = als.column(queries.item)
        known = column >= 0
        likes = summed(queries.row[known], column[known], queries.kind[known], (len(queries), len(als.item)))
        return als.item[solver.recommend(asked, likes, N=K, filter_already_liked_items=False, recalculate_user=True)[0]]

    yield _top(shop, "als", als, folded_in)

    bpr = BPR(iterations=ITERATIONS)  # type: ignore[call-arg]
    settings = {"factors": bpr.factors, "regularization": bpr.regularization, "random_state": bpr.seed}
    settings |= {"learning_rate": bpr.learning_rate, "iterations": ITERATIONS}
    yield _fit(
        shop,
        "bpr, on one thread",
        bpr,
        lambda: BayesianPersonalizedRanking(num_threads=1, **settings).fit(several(), show_progress=False),
    )
    vectors = BayesianPersonalizedRanking(**settings)
    vectors.item_factors, vectors.user_factors = bpr.item_factors, bpr.query_vectors(queries)
    yield _top(shop, "bpr", bpr, lambda: bpr.item[vectors.recommend(asked, None, N=K, filter_already_liked_items=False)[0]])

    for similarity, kind in (("cosine", CosineRecommender), ("tfidf", TFIDFRecommender), ("bm25", BM25Recommender)):
        yield from _neighbours(shop, similarity, kind)


def _neighbours(shop: Bench, similarity: Any, kind: type) -> Iterator[Row]:
    from implicit.nearest_neighbours import ItemItemRecommender, NearestNeighboursScorer

    log, queries, what = shop.log, shop.queries, f"item_knn, {similarity}"
    own = ItemKNN(similarity=similarity, recency_power=0, query_items=len(log))  # type: ignore[call-arg]

    def likes(events: EventLog | Queries, row: Int32, n_rows: int) -> sparse.csr_matrix:
        return summed(row, events.item, events.kind, (n_rows, log.n_items))

    yield _fit(shop, what, own, lambda: kind(K=own.neighbours).fit(likes(log, log.user, log.n_users), show_progress=False))
    model = ItemItemRecommender(K=own.neighbours)
    model.similarity = own.matrix.matrix(log.n_items) + own.revisit * sparse.identity(log.n_items, format="csr")
    model.scorer = NearestNeighboursScorer(model.similarity)

    def recommend() -> Int32:
        of_queries = likes(queries, queries.row, len(queries))
        found: Int32 = model.recommend(np.arange(len(queries)), of_queries, N=K, filter_already_liked_items=False)[0]
        return found

    yield _top(shop, what, own, recommend)


def summed(
    row: npt.NDArray[np.integer], item: npt.NDArray[np.integer], kind: Int8, shape: tuple[int, int]
) -> sparse.csr_matrix:
    """The matrix of weighted events that implicit is given."""
    return sparse.csr_matrix((RETAIL.weights(SIGNAL_WEIGHTS)[kind], (row, item)), shape=shape)


def _fit(shop: Bench, what: str, own: Retriever, peer: Callable[[], object]) -> Row:
    mine, other = seconds(lambda: shop.fitted(own), peer)
    return Row(f"{what}: fit", mine, "implicit's fit", other, AS_FAST)


def _top(shop: Bench, what: str, own: Retriever, peer: Callable[[], Int32]) -> Row:
    mine, other = seconds(lambda: own.retrieve(shop.queries, K), peer)
    agreement = overlap(own.retrieve(shop.queries, K).item, peer())
    return Row(f"{what}: top {K}", mine, "implicit's recommend", other, AS_FAST, agreement=agreement)


def overlap(own: Int32, peer: Int32) -> float:
    """Share of the peer's lists that ours hold too, where ours hold anything: for a vector of 0 a peer lists any items."""
    lists = (each[own[:, 0] >= 0] for each in (peer, own))
    theirs, ours = (pair_key(np.nonzero(each >= 0)[0], each[each >= 0]) for each in lists)
    return float(np.isin(theirs, ours).mean())


def fits(shop: Bench) -> Iterator[Row]:
    """Fits that count and number the whole log, and answers from counts, against one sort of the log."""
    against = "numpy sorts the log"
    for name in ("covisitation", "session_knn", "popularity"):
        [own] = seconds(lambda name=name: shop.fitted(shop.retriever(name)))  # type: ignore[misc]
        yield Row(f"{name}: fit", own, against, shop.sort, Promise(8, " s"), own)
    covisitation = shop.fitted(shop.retriever("covisitation"))
    [own] = seconds(lambda: covisitation.retrieve(shop.queries, K))
    promise = Promise(4_000, " queries/s", at_least=True)
    yield Row(f"covisitation: top {K}", own, against, shop.sort, promise, len(shop.queries) / own)


def cutoffs(shop: Bench) -> Iterator[Row]:
    """The default hybrid's sources fitted at five weekly cutoffs, one after the other, against the last alone."""
    names = shop.config["retriever"]["sources"]
    at = [shop.end - days(7 * week) for week in reversed(range(5))]
    spent: list[tuple[float, float]] = []
    for name in names:
        one, five = shop.retriever(name), shop.retriever(name)
        start = time.perf_counter()
        shop.fitted(one)
        middle = time.perf_counter()
        for cutoff in at:
            shop.fitted(five, cutoff)
        spent.append((time.perf_counter() - middle, middle - start))
        yield Row(f"{name}: five cutoffs", spent[-1][0], "the last alone", spent[-1][1], None)
    whole = [sum(times) for times in zip(*spent, strict=True)]
    yield Row("hybrid, all of its sources: five cutoffs", whole[0], "the last alone", whole[1], Promise(3, "×"))


def features(shop: Bench) -> Iterator[Row]:
    """The full set of features for 200 candidates a query, against a copy of the matrix."""
    queries, pool, cutoff = shop.task.queries, shop.union(JUDGED[:DESCRIBED], K), shop.task.window.cutoff
    made: FeatureSet = construct(shop.config["features"])
    made.fit(shop.dataset.before(cutoff))
    tracemalloc.start()
    matrix = made.compute(pool, queries).values
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    own, copy = seconds(lambda: made.compute(pool, queries), lambda: matrix.copy(order="F"))
    promise = Promise(1e6, " rows/s", at_least=True)
    yield Row(f"full: {len(pool):,} rows", own, "numpy copies the matrix", copy, promise, len(pool) / own)
    yield Row("full: peak memory, result included", peak / 1e6, "the matrix", matrix.nbytes / 1e6, Promise(3, "×"), unit=" MB")


class Prepared(Hybrid):
    """A union whose candidates were found beforehand, so that judging is measured without retrieval."""

    found: dict[int, CandidatePool]

    def pool(self, queries: Queries, k: int) -> CandidatePool:
        """As found."""
        return self.found[k]


def judging(shop: Bench) -> Iterator[Row]:
    """Metrics, diagnosis, attribution, intervals and verdict on 500 candidates of ten sources, against a sort of them."""
    evaluation = construct(shop.config["evaluation"])
    deepest = max(evaluation.candidate_ks)
    retriever = Prepared(sources=list(JUDGED), definitions=shop.sources)  # type: ignore[call-arg]
    deep = shop.union(JUDGED, deepest)
    retriever.found = {500: deep.top(500), deepest: deep}
    nothing = FeatureSet(families=[], definitions={})  # type: ignore[call-arg]
    model = TwoStageRecommender(retriever, nothing, RetrievalOrder(), candidates=500)

    def judge() -> float:
        """Seconds, without those that baselines need to be fitted and asked."""
        timings, start = Timings(), time.perf_counter()
        fold = judge_fold(evaluation, model, shop.dataset, shop.task, timings)
        summarise(evaluation, [fold], seed=0)
        return time.perf_counter() - start - timings.seconds["baselines"]

    own = min(judge() for _ in range(2))
    [sort] = seconds(lambda: np.sort(retriever.found[500].key[::-1]))
    what = f"{len(shop.task.queries):,} queries × {len(retriever.found[500]) / len(shop.task.queries):.0f} candidates"
    yield Row(f"{what} × {len(JUDGED)} sources", own, "numpy sorts the candidates", sort, Promise(10, " s"), own)


def rerun(shop: Bench) -> Iterator[Row]:
    """The main job once more with another ranker and everything else from the cache, against the first time."""
    with tempfile.TemporaryDirectory() as folder:
        job = [sys.executable, str(Path(cli.CONFIGS).parent / "train.py"), "tracking=none", f"dataset.scale={shop.scale:g}"]
        job += [f"outputs={folder}/outputs", f"cache.folder={folder}/cache"]
        taken = []
        for leaves in (31, 15):
            start = time.perf_counter()
            subprocess.run([*job, f"ranker.leaves={leaves}"], check=True, stdout=subprocess.DEVNULL)
            taken.append(time.perf_counter() - start)
    yield Row("another ranker", taken[1], "the first run", taken[0], Promise(30, " s"), taken[1])


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    part.__name__: part for part in (peers, fits, cutoffs, features, judging, rerun)
}


def measure(shop: Bench, parts: Sequence[str], console: Console | None = None) -> dict[str, list[Row]]:
    """The rows of each part, every line of which is warmed up on a small shop first."""
    console = console or Console(quiet=True)
    small = Bench(min(WARM_UP, shop.scale))
    rows: dict[str, list[Row]] = {}
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="implicit")
        for part in parts:
            with console.status(f"{part}: warming up …") as status:
                if part != "rerun":
                    list(PARTS[part](small))
                status.update(f"{part} …")
                rows[part] = []
                for row in PARTS[part](shop):
                    rows[part].append(row)
                    status.update(f"{part}: {row.what} done …")
            console.print(table(part, rows[part]))
    return rows


def table(part: str, rows: Sequence[Row]) -> Table:
    """One line a row."""
    result = Table(title=f"\n{part}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("measured", "ours", "against", "takes", "ratio", "promise", "found"):
        result.add_column(column, justify="left" if column in ("measured", "against", "found") else "right", no_wrap=True)
    for row in rows:
        promise, found = "", ""
        if row.promise:
            mark = "[green]✓" if row.promise.kept(row.promised) else "[bold red]✗"
            promise, found = str(row.promise), f"{mark} {text(row.promised)}{row.promise.unit}[/]"
        own, other = (f"{text(value)}{row.unit}" for value in (row.own, row.other))
        result.add_row(row.what, own, row.against, other, f"{row.ratio:.2f}", promise, found)
    return result


def text(figure: float) -> str:
    """As many digits as mean something."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    summaries = "\n".join(f"  {name:<10}{' '.join(str(part.__doc__).split())}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        description="Measure this project's speed on a synthetic shop, each figure beside that of a peer or a yardstick in\n"
        "the same run, and hold it against what is promised for the full size on two quiet cores.\n\n"
        f"parts:\n{summaries}",
        epilog="Examples: python scripts/benchmark.py --scale 0.05; scripts/benchmark.py peers features --out speed.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="which parts; none: all of them, in half an hour at full size")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the shop; 1: 2.76 M events (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the figures too")
    options = parser.parse_args(arguments)
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"there is no part called {part!r}.{nearest(part, PARTS)}")
    if options.scale <= 0:
        parser.error(f"--scale: wanted more than 0, found {options.scale:g}")
    if options.out and not options.out.resolve().parent.is_dir():
        parser.error(f"--out: there is no folder {options.out.resolve().parent}")
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    with console.status("simulating the shop …"):
        shop = Bench(options.scale)
    console.print(f"{len(shop.log):,} events, {len(shop.task.queries):,} queries, {os.cpu_count()} cores", highlight=False)
    rows = measure(shop, options.parts or list(PARTS), console)
    if options.out:
        documents = [row.document(part) for part, of_part in rows.items() for row in of_part]
        about = {"scale": shop.scale, "events": len(shop.log), "queries": len(shop.task.queries), "cores": os.cpu_count()}
        options.out.write_text(json.dumps(about | {"rows": documents}, indent=2, ensure_ascii=False) + "\n")
        console.print(f"\nWritten  {options.out}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
