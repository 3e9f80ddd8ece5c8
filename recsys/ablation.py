"""What a run would lose without one of its parts: the same run again and again, each time with one part left out."""

import json
import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from recsys.comparison import compare
from recsys.component import construct
from recsys.errors import ConfigError, nearest
from recsys.evaluation.measured import FINAL
from recsys.report.terminal import heading
from recsys.runs import RunFolder
from recsys.tracking import PARENT_RUN, Tracker

MOST_METRICS = 2
"""Metrics that are compared, so that the table fits on a terminal."""
SURE = 0.05
"""Costs with a smaller corrected p stand out."""
LISTS = {"features": "families", "retriever": "sources"}
"""Where the parts of a group are listed."""


def without(config: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config less the part that its `drop` names, such as `features.item` or `retriever.als`.

    Raises `ConfigError` for a part that the config does not have.
    """
    result: dict[str, Any] = deepcopy(dict(config))
    if (dropped := config.get("drop")) is None:
        return result
    group, _, name = str(dropped).partition(".")
    parts = result[group].get(LISTS[group]) if group in LISTS else None
    if parts is None:
        raise ConfigError(f"drop: wanted features.FAMILY, or retriever.SOURCE with a hybrid retriever, found {dropped!r}")
    if name not in parts:
        raise ConfigError(f"drop: {group}.{LISTS[group]} has no {name!r}.{nearest(name, parts)}")
    parts.remove(name)
    return result


class CostTable(Callback):
    """Hydra callback: compares the runs of a multirun over `drop` with the one that dropped nothing, by paired intervals.

    Prints a table, writes `ablation.json` beside the runs, and logs the costs to the parent run.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compare what has ended."""
        folder = Path(config.hydra.sweep.dir)
        runs = [
            RunFolder(path.parent) for path in sorted(folder.glob("*/metrics.json"), key=lambda path: int(path.parent.name))
        ]
        whole = [run for run in runs if run.config.get("drop") is None]
        others = [run for run in runs if run.config.get("drop") is not None]
        if not whole or not others:
            return
        rows = costs(whole[0], others)
        Console().print(_table(rows))
        written = folder / "ablation.json"
        written.write_text(json.dumps(rows, indent=2) + "\n")
        tracker: Tracker = construct(OmegaConf.to_container(config.tracking, resolve=True), "tracking")
        if parent := os.environ.get(PARENT_RUN):
            run = tracker.join_parent(parent)
            run.metrics({f"cost/{row['without']}/{row['metric']}": row["cost"] for row in rows})
            run.artifact(written)


def costs(whole: RunFolder, others: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """For each run and metric what leaving the part out costs (the whole run's figure minus this one's), dearest first.

    The metrics are the first that the whole run shows.
    """
    metrics = whole.measured.shown_of([FINAL])[:MOST_METRICS]
    found = compare(whole, others, metrics)["others"]
    rows = []
    for run, compared in zip(others, found, strict=True):
        for row in compared["metrics"]:
            gain = row["difference"]
            rows.append(
                {
                    "without": str(run.config["drop"]),
                    "metric": row["metric"],
                    "whole": row["first"],
                    "left": row["second"],
                    "cost": -gain["value"],
                    "low": -gain["high"],
                    "high": -gain["low"],
                    "p_holm": row["p_holm"],
                }
            )
    return sorted(rows, key=lambda row: (metrics.index(row["metric"]), -row["cost"], row["without"]))


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line a part, narrow enough for 80 columns."""
    sure = f"bold: p < {SURE:g} after Holm's correction for {len(rows)} comparisons"
    table = Table(title="\nWhat leaving a part out costs", title_justify="left", caption=sure, caption_justify="left")
    table.add_column("without", no_wrap=True)
    for metric in dict.fromkeys(row["metric"] for row in rows):
        whole = next(row["whole"] for row in rows if row["metric"] == metric)
        table.add_column(f"{heading(metric.partition('/')[2])}, whole {whole:.4f}", justify="right", no_wrap=True)
    for part in dict.fromkeys(row["without"] for row in rows):
        table.add_row(part, *(_cell(row) for row in rows if row["without"] == part))
    return table


def _cell(row: Mapping[str, Any]) -> str:
    cost = f"{row['cost']:+.4f}"
    return f"{f'[bold]{cost}[/]' if row['p_holm'] < SURE else cost} [dim]{row['low']:+.3f} … {row['high']:+.3f}[/]"
