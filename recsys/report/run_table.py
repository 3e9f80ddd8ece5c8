"""What the tracking store's table of runs shows: the headline figures of a run, and what its columns mean."""

import re
from collections.abc import Mapping

SHOWN = re.compile(
    r"[^/]+/(hit_rate|ndcg|mrr|recall)_at_(5|10|20)"  # of every system, and the first depths of the candidates
    r"|candidates/(recall_at_\d+|count)"
    r"|queries/count"
    r"|mde/two_stage/[^/]+"
    r"|seconds/.+"
)
"""Names of the figures of the run table."""

COLUMNS = (
    "two_stage/ndcg_at_10",
    "two_stage/hit_rate_at_10",
    "retrieval/ndcg_at_10",
    "history/ndcg_at_10",
    "candidates/recall_at_200",
)
"""The columns that the table opens with, sorted by the first."""

ABOUT = """\
Each run is a two-stage recommender: a **retriever** finds candidates of the whole catalogue, a **ranker** orders them by
**features**. A run's name says what was composed, and on which data: `retriever · ranker · features · dataset`, then what was
set by hand.

| column | what it says |
|---|---|
| `two_stage/ndcg_at_10` | the headline, 0 to 1: how much of what customers did next is in their ten products, and how high |
| `two_stage/hit_rate_at_10` | share of the queries with at least one right product among ten |
| `two_stage/recall_at_10`, `mrr_at_10` | share of the right products that were found; one over the place of the first of them |
| `retrieval/…` | the same for the first stage's own order: what the ranker adds is the difference |
| `history/…`, `popularity/…`, `random/…` | baselines on the same queries; a run that does not beat `history` is no news |
| `candidates/recall_at_k` | share of the right products among the first k candidates: no ranker gets beyond it |
| `mde/two_stage/…` | the smallest difference that the queries of this run could show: do not read anything into less |
| `queries/count` | how many customers were asked about |
| `seconds/…` | where the time went |

To compare: tick runs, press *Compare*. Only runs with the same `dataset_fingerprint`, split and `queries/count` were asked the
same; `python scripts/compare.py RUN RUN` tests their difference query by query. Every other figure of a run (intervals, revisit
and discovery, cohorts, what each source is worth) is among its artifacts: `metrics.json`, and `report.html` to read.
"""
"""Markdown that stands above the runs."""


def headline(figures: Mapping[str, float], also: str) -> dict[str, float]:
    """The few of a run's figures that its table shows, and the one called `also`."""
    return {name: value for name, value in figures.items() if name == also or SHOWN.fullmatch(name)}
