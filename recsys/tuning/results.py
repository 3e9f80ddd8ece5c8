"""What a sweep found: progress, the winner as an override line and a config file, plots, the test window."""

import math
import shlex
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import optuna
import pandas as pd
import yaml
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from recsys.evaluation.statistics import paired
from recsys.runs import RunFolder
from recsys.tracking import Run
from recsys.tuning.plots import figures
from recsys.tuning.space import override_key
from recsys.tuning.study import DEFAULTS, RANKER_SECONDS, SharedStudy
from recsys.tuning.syntax import encoded, value

TEST = "test"
"""Attribute of a study: what its winner and the defaults came to on the test window."""


@dataclass(frozen=True)
class Row:
    """One metric of the defaults and of the winner on the same test queries; the difference with its 95 % interval."""

    metric: str
    defaults: float
    tuned: float
    low: float
    high: float
    p_value: float

    @property
    def verdict(self) -> str:
        """In words, and no more than the interval allows."""
        if math.isnan(self.low):
            return "no interval, it has no value a query"
        if self.low > 0:
            return "the tuned one is better"
        return "the tuned one is worse" if self.high < 0 else "no difference can be shown"

    def __str__(self) -> str:
        interval = "" if math.isnan(self.low) else f" [{self.low:+.4f}, {self.high:+.4f}]"
        change = f"{self.tuned - self.defaults:+.4f}{interval}"
        return f"{self.metric}: defaults {self.defaults:.4f}, tuned {self.tuned:.4f}, {change}: {self.verdict}"


@dataclass(frozen=True)
class Result:
    """The test window's word on a sweep."""

    rows: tuple[Row, ...]
    queries: int
    defaults: Path
    tuned: Path

    def document(self) -> dict[str, Any]:
        """As plain values."""
        folders = {"defaults": str(self.defaults), "tuned": str(self.tuned)}
        return {"queries": self.queries, "rows": [asdict(row) for row in self.rows], **folders}


def compare(defaults: Path, tuned: Path, metrics: Sequence[str]) -> Result:
    """Compare two runs' folders query by query (see `statistics.paired`), by their figures what has no value a query."""
    figures = [RunFolder(folder).metrics for folder in (defaults, tuned)]
    first, second = (pd.read_parquet(folder / "per_query.parquet") for folder in (defaults, tuned))
    keys = [name for name in ("fold", "user") if name in first]
    both = first.merge(second, on=keys, validate="one_to_one", suffixes=(" a", " b"))
    rows = []
    for metric in metrics:
        if f"{metric} a" not in both:
            if all(metric in each for each in figures):
                rows.append(Row(metric, figures[0][metric], figures[1][metric], math.nan, math.nan, math.nan))
            continue
        a, b = both[f"{metric} a"].to_numpy(float), both[f"{metric} b"].to_numpy(float)
        found = paired(a, b, both["user"].to_numpy())
        change = found.difference
        rows.append(Row(metric, float(a.mean()), float(b.mean()), change.low, change.high, found.p_value))
    return Result(tuple(rows), len(both), defaults, tuned)


def winner(study: optuna.Study) -> FrozenTrial | None:
    """The best completed trial; with several objectives the one of the Pareto front that is best at the first."""
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return None
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
    return min(study.best_trials, key=lambda trial: (sign * trial.values[0], trial.number))


def overrides(trial: FrozenTrial) -> list[str]:
    """The trial's parameters as overrides."""
    return [f"{override_key(name)}={encoded(value)}" for name, value in trial.params.items()]


def experiment(arguments: Sequence[str], groups: Collection[str]) -> str:
    """Overrides as a config file for `conf/experiment/`; `groups` names the config groups among the keys."""
    chosen: list[dict[str, str]] = []
    values: dict[str, Any] = {}
    for argument in arguments:
        key, _, text = argument.partition("=")
        key = key.lstrip("+")
        if key in groups:
            chosen.append({f"override /{key}": text})
        elif key != "outputs":
            at: dict[str, Any] = values
            *path, name = key.split(".")
            for part in path:
                at = at.setdefault(part, {})
            at[name] = value(argument)
    document: dict[str, Any] = {"defaults": [*chosen, "_self_"], **values}
    return "# @package _global_\n" + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


class Progress:
    """A line for each trial: what it came to, the best so far, the time left."""

    def __init__(self, console: Console, stage: str, shared: SharedStudy, objectives: Sequence[str]) -> None:
        self._console, self._stage, self._shared, self._objectives = console, stage, shared, objectives
        self._start, self._ended = time.monotonic(), len(shared.finished())

    def tell(self, number: int) -> None:
        """Print the line of the trial that ended."""
        finished = self._shared.finished()
        trial = next(each for each in self._shared.study.get_trials(deepcopy=False) if each.number == number)
        came_to = _values(trial) if trial.state == TrialState.COMPLETE else trial.state.name.lower()
        best = winner(self._shared.study)
        so_far = f"best {_values(best)} (trial {best.number})" if best else "none completed"
        done = max(len(finished) - self._ended, 1)
        left = (time.monotonic() - self._start) / done * max(self._shared.total - len(finished), 0)
        name = " defaults" if DEFAULTS in trial.user_attrs else ""
        self._console.print(
            f"{self._stage} {len(finished)}/{self._shared.total}  trial {number}{name}: {came_to}  {so_far}  "
            f"{_clock(left)} left",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def tell(
    console: Console,
    studies: Sequence[tuple[Sequence[str], SharedStudy]],
    fixed: Sequence[str],
    groups: Collection[str],
    parent: Run,
    folder: Path,
) -> None:
    """Print and record what was found so far: best values, the override line, `best.yaml`, plots.

    `studies` come with their objectives; the winners of all are put together.
    """
    line: list[str] = list(fixed)
    for objectives, shared in studies:
        study, best = shared.study, winner(shared.study)
        counts = {state.name.lower(): 0 for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)}
        for trial in shared.finished():
            counts[trial.state.name.lower()] += 1
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no trial ended"
        console.print(f"\n[bold]{study.study_name}[/]: {told}", highlight=False)
        if best is None:
            continue
        front = [best] if len(objectives) == 1 else sorted(study.best_trials, key=lambda trial: trial.values)
        for trial in front:
            console.print(f"  trial {trial.number}: {_values(trial, objectives)}", highlight=False, markup=False)
        seconds, ratio = cost(study)
        if not math.isnan(ratio):
            console.print(f"  a trial takes {seconds:.3g} s (median), {ratio:.2f} times its ranker alone", highlight=False)
            parent.metrics({"trial/seconds": seconds, "trial/times_its_ranker": ratio})
        line += overrides(best)
        parent.metrics({f"best/{name}": value for name, value in zip(objectives, best.values, strict=True)})
        for name, figure in figures(study, objectives).items():
            parent.figure(figure, f"{study.study_name.partition('/')[2] or 'sweep'}/{name}.png")
            plt.close(figure)
    if len(line) == len(fixed):
        return
    command = "python train.py " + shlex.join(line)
    console.print(f"\nBest     {command}", markup=False, highlight=False, soft_wrap=True)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "best.yaml"
    file.write_text(experiment(line, groups))
    console.print(
        f"         {file}: copy it to conf/experiment/ for experiment=best", markup=False, highlight=False, soft_wrap=True
    )
    parent.tag("best", command)
    parent.text(command + "\n", "best.txt")
    parent.artifact(file)


def tell_test(console: Console, found: Result, parent: Run) -> None:
    """Print and record the test window's word."""
    console.print(f"\n[bold]Test window[/], {found.queries:,} queries, looked at once", highlight=False)
    for row in found.rows:
        console.print(f"  {row}", markup=False, highlight=False, soft_wrap=True)
        parent.metrics({f"test/{name}/{row.metric}": getattr(row, name) for name in ("defaults", "tuned", "low", "high")})
        parent.tag("test", str(row))


def cost(study: optuna.Study) -> tuple[float, float]:
    """Median seconds of a trial, and how many times fitting and scoring its ranker alone they are; NaN before there is one.

    The trial of the defaults, which fills the cache, is left out, and so are trials without a ranker.
    """
    spent = [
        (trial.duration.total_seconds(), trial.user_attrs[RANKER_SECONDS])
        for trial in study.get_trials(deepcopy=False)
        if trial.duration and trial.user_attrs.get(RANKER_SECONDS) and DEFAULTS not in trial.user_attrs
    ]
    if not spent:
        return math.nan, math.nan
    return median(seconds for seconds, _ in spent), median(seconds / ranker for seconds, ranker in spent)


def _values(trial: FrozenTrial, names: Sequence[str] | None = None) -> str:
    given: Mapping[int, str] = dict(enumerate(names or []))
    return ", ".join(f"{given.get(i, '')} {value:.5g}".strip() for i, value in enumerate(trial.values or []))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
