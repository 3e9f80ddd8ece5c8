"""A dry run: all that a run settles before its first fit, checked against its data and shown; nothing is fitted or tracked."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from recsys.ablation import without
from recsys.datasets import Dataset, kept
from recsys.dry import estimate
from recsys.dry.estimate import Work
from recsys.errors import DataError
from recsys.experiment import Parts, check_values, objective_of
from recsys.report import terminal
from recsys.runs import remove_empty
from recsys.shop.events import EventLog, days
from recsys.shop.shop import Shop
from recsys.shop.splits import Fold, Split
from recsys.shop.windows import Window, plural

BAR = 18
"""Characters that a log's length is drawn in."""


@dataclass(frozen=True)
class Asked:
    """A window and how much is asked in it."""

    role: str
    """`label`, `validation` or `test`."""
    window: Window
    queries: int
    events: int
    """Events before the window, which both stages may learn from."""


def run(config: DictConfig) -> None:
    """Show what the run of the config would do. Raises `ConfigError` and `DataError` as the run would before its first fit."""
    plain = without(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    parts = Parts.of(plain)
    check_values(plain)
    objective_of(parts, plain)
    console, began = Console(), time.perf_counter()
    dataset = kept.load(parts.dataset, parts.cache)
    console.print(terminal.counts(f"\n{dataset.name}", dataset.summary()))
    folds = test_folds(console, parts, dataset)
    work, most = Work(seconds=estimate.START), 0
    for rows in folds:
        work += of_fold(parts, plain["candidates"], rows)
        most = max(most, learned(parts, rows))
    if plain["refit"]:
        work += of_fold(parts, plain["candidates"], [*folds[-1][:-1], Asked("test", folds[-1][-1].window, 0, len(dataset.log))])
    fits, labels = sum(map(len, folds)), sum(len(rows) - 1 for rows in folds)
    if plain["refit"]:
        fits, labels = fits + len(folds[-1]), labels + len(folds[-1]) - 1
    times = plural(len(folds) + plain["refit"], "time")
    names = ", ".join(type(each).__name__ for each in estimate.sources(parts.retriever))
    console.print(f"\nfirst stage   fitted {plural(fits, 'time')}: {names}", highlight=False, soft_wrap=True)
    second = f"fitted {times} on {plural(labels, 'label window')}" if parts.ranker.learns else "not fitted"
    console.print(f"second stage  {second}: {type(parts.ranker).__name__}", highlight=False)
    tell_estimate(console, work, estimate.gigabytes(len(dataset.log), most * plain["candidates"], columns(parts)))
    console.print(f"Nothing was fitted or tracked; this took {time.perf_counter() - began:.1f} s.", highlight=False)
    folder = Path(plain["output_dir"])
    remove_empty(folder, folder.parent)


def test_folds(console: Console, parts: Parts, dataset: Dataset) -> list[list[Asked]]:
    """The windows of the run's folds, shown with their notes and the funnel of each test window."""
    split = parts.split
    folds = split.folds(dataset)
    rows = [asked(split, dataset, fold, parts.ranker.learns) for fold in folds]
    for note in dict.fromkeys(note for fold in folds for note in fold.notes):
        console.print(f"\n[yellow]{note}[/]", highlight=False)
    for fold in folds:
        console.print(terminal.counts(f"\ntest window {fold.test}", split.test_task(dataset, fold.test).funnel))
    console.print(timeline(dataset.log, [row for each in rows for row in each]))
    if parts.ranker.learns and not all(any(row.queries for row in each[:-1]) for each in rows):
        raise DataError(
            f"ranker: {type(parts.ranker).__name__} learns from label windows, and none of a fold's asks anybody;"
            " widen split.label_horizon, name other split.label_events, or set ranker=none"
        )
    return rows


def asked(split: Split, shop: Shop, fold: Fold, learns: bool, role: str = "test") -> list[Asked]:
    """The fold's windows, the one that is judged last; label windows where the ranker learns."""
    tasks = [("label", split.label_task(shop, each)) for each in fold.labels if learns]
    tasks.append((role, split.test_task(shop, fold.test)))
    past = np.searchsorted(shop.log.time, [task.window.cutoff for _, task in tasks]).tolist()
    return [Asked(role, task.window, len(task.queries), events) for (role, task), events in zip(tasks, past, strict=True)]


def of_fold(parts: Parts, candidates: int, rows: Sequence[Asked], label_queries: int | None = None) -> Work:
    """What fitting and judging one fold takes, with at most `label_queries` of each label window."""
    total, width, taught = Work(), columns(parts), 0
    for row in rows:
        queries = row.queries
        if row.role == "label":
            queries = min(queries, label_queries or queries)
            taught += queries
        total += estimate.first_stage(parts.retriever, width, row.events, queries, candidates)
    if parts.ranker.learns:
        total += estimate.second_stage(parts.ranker, taught, candidates)
    return total + estimate.judgement(rows[-1].queries, candidates)


def learned(parts: Parts, rows: Sequence[Asked]) -> int:
    """Queries that the ranker learns from."""
    return sum(row.queries for row in rows[:-1]) if parts.ranker.learns else 0


def columns(parts: Parts) -> int:
    """Columns that the ranker reads of a candidate."""
    names = tuple(dict.fromkeys(each.name for each in estimate.sources(parts.retriever)))
    if not parts.ranker.reads:
        return 0
    return sum(len(each) for each in parts.features.columns(names, parts.dataset.event_kinds()).values())


def timeline(log: EventLog, rows: Iterable[Asked], title: str = "windows") -> Table:
    """Each window as a stretch of the log's time, a line each: ─ is past to learn from (in events), █ is asked."""
    first, length = int(log.time[0]), int(log.time[-1]) + 1 - int(log.time[0])
    shown = slice(0, 10) if length > days(7) else slice(5, 16)
    table = Table(title=f"\n{title}", title_justify="left", box=None, padding=(0, 1))
    for name in ("", "", "from", "to"):
        table.add_column(name, no_wrap=True)
    for name in ("queries", "past"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        begins, ends = (min(round(BAR * (time - first) / length), BAR) for time in (row.window.cutoff, row.window.end))
        begins = min(begins, BAR - 1)
        bar = "─" * begins + "█" * max(ends - begins, 1)
        start, _, end = str(row.window).partition(" … ")
        table.add_row(row.role, bar.ljust(BAR), start[shown], end[shown], f"{row.queries:,}", f"{row.events:,}")
    return table


def tell_estimate(console: Console, work: Work, gigabytes: float) -> None:
    """Time and memory, as the estimate that they are."""
    seconds = work.seconds * estimate.slowness()
    text = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
    told = (
        f"estimate      {text}, {gigabytes:.1f} GB, within a factor of {estimate.FACTOR}",
        f"              by {work.events:,} events learned from (all sources and fits) and {work.candidates:,} candidates,",
        "              on the machine as it is now; less where the cache helps",
    )
    console.print("\n".join(told), highlight=False, soft_wrap=True)
