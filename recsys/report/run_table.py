"""What the tracking store's table of runs shows: the headline figures of a run, and what its columns mean."""

import inspect
import re
from collections.abc import Mapping

from recsys.evaluation import metrics
from recsys.evaluation.measured import FINAL, FIRST, Measured

ALWAYS = re.compile(rf"candidates/(recall_at_\d+|count)|queries/count|mde/{FINAL}/[^/]+|seconds/.+")
"""Figures that the run table shows whatever `evaluation.shown` says."""

REFERENCE = "history"
"""The baseline with a column of its own, where there is one of this name."""


def headline(figures: Mapping[str, float], measured: Measured, also: str) -> dict[str, float]:
    """The few of a run's figures that its table shows: what is shown of every system, and the figure called `also`."""
    names = {also, *measured.shown_of(measured.systems)}
    return {name: value for name, value in figures.items() if name in names or ALWAYS.fullmatch(name)}


def columns(measured: Measured, candidates: int) -> tuple[str, ...]:
    """The columns that the table opens with, sorted by the first; `candidates` is how many the ranker gets."""
    deepest = max((k for k in measured.candidate_ks if k <= candidates), default=candidates)
    others = [system for system in (FIRST, REFERENCE) if system in measured.systems]
    return (
        *(f"{FINAL}/{name}" for name in measured.shown[:2]),
        *(f"{system}/{measured.leading}" for system in others),
        f"candidates/recall_at_{deepest}",
    )


def about(measured: Measured, functions: Mapping[str, metrics.Metric]) -> str:
    """Markdown that stands above the runs."""
    baselines = ", ".join(f"`{system}/…`" for system in measured.systems if system not in (FIRST, FINAL)) or "baselines"
    said = ["the headline: " + _said(measured.leading, functions), *(_said(name, functions) for name in measured.shown[1:])]
    rows = [f"| `{FINAL}/{name}` | {text} |" for name, text in zip(measured.shown, said, strict=True)]
    return f"""\
Each run is a two-stage recommender: a **retriever** finds candidates of the whole catalogue, a **ranker** orders them by
**features**. A run's name says what was composed, and on which data: `retriever · ranker · features · dataset`, then what was
set by hand.

| column | what it says |
|---|---|
{chr(10).join(rows)}
| `{FIRST}/…` | the same for the first stage's own order: what the ranker adds is the difference |
| {baselines} | baselines on the same queries; a run that does not beat the best of them is no news |
| `candidates/recall_at_k` | share of the right products among the first k candidates: no ranker gets beyond it |
| `mde/{FINAL}/…` | the smallest difference that the queries of this run could show: do not read anything into less |
| `queries/count` | how many customers were asked about |
| `seconds/…` | where the time went |

Every figure of the lists is a mean over the customers asked about.

To compare: tick runs, press *Compare*. Only runs with the same `dataset_fingerprint`, split and `queries/count` were asked the
same; `python scripts/compare.py RUN RUN` tests their difference query by query. Every other figure of a run (intervals, revisit
and discovery, cohorts, what each source is worth) is among its artifacts: `metrics.json`, and `report.html` to read.
"""


def _said(name: str, functions: Mapping[str, metrics.Metric]) -> str:
    """The first line of a metric's docstring, with its k."""
    metric, _, k = name.rpartition("_at_")
    lines = (inspect.getdoc(functions[metric]) or metric.replace("_", " ")).splitlines()
    return f"{lines[0].rstrip('.')} (k = {k})"
