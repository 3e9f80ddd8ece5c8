"""Compare runs on the same queries: is the difference real, on which queries, and what made it."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys import cli, comparison, runs
from recsys.digest import digest
from recsys.report import page


def main(arguments: list[str] | None = None) -> int:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(
        description="Compare every run with the first: paired differences with intervals, tests corrected for being several, "
        "the queries that changed, and the source or feature family that changed them.",
        epilog="Examples: python scripts/compare.py latest~1 latest; python scripts/compare.py 'als · none' 3f2a9c1b --html",
    )
    parser.add_argument("first", metavar="RUN", help="a run folder, its name, latest, latest~1, an MLflow run id or name")
    parser.add_argument("others", metavar="RUN", nargs="+", help="the runs to compare with it")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where the run folders are (%(default)s)")
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=(),
        metavar="NAME",
        help="columns of per_query.parquet, the leading one first, such as ndcg_at_20 or retrieval/recall_at_20 "
        "(by default what the first run shows and the others measured too)",
    )
    parser.add_argument("--html", action="store_true", help="write a page too")
    options = parser.parse_args(arguments)
    with cli.plain_errors():
        first, *others = (runs.find(name, options.outputs) for name in (options.first, *options.others))
        values = comparison.compare(first, others, options.metrics)
        console = Console()
        for other in values["others"]:
            _show(console, values, other)
        name = digest([str(run.path) for run in (first, *others)])[:12]
        folder = options.outputs / "comparisons" / name
        folder.mkdir(parents=True, exist_ok=True)
        written = folder / "comparison.json"
        written.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
        if options.html:
            written = folder / "comparison.html"
            written.write_text(page.render_comparison(values), encoding="utf-8")
        console.print(f"\nWritten  {written}", soft_wrap=True, highlight=False)
    return 0


def _show(console: Console, values: dict[str, Any], other: dict[str, Any]) -> None:
    title = f"\n{other['name']}  against  {values['first']['name']}  ({values['first']['queries']:,} queries)"
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("metric", "first", "this", "difference", "p, Holm", "better", "worse", "same"):
        table.add_column(column, justify="left" if column == "metric" else "right", no_wrap=True)
    for row in other["metrics"]:
        low, value, high = (row["difference"][bound] for bound in ("low", "value", "high"))
        weight = "bold" if row["p_holm"] < 1 - values["confidence"] else "none"
        difference = f"[{weight}]{value:+.4f}[/]\n[dim]{low:+.3f}…{high:+.3f}[/]"
        counts = [str(row[count]) for count in ("improved", "worse", "unchanged")]
        figures = [f"{row['first']:.4f}", f"{row['second']:.4f}", difference, page.chance(row["p_holm"])]
        table.add_row(page.metric_name(row["metric"]), *figures, *counts)
    console.print(table)
    for cause in other["causes"]:
        by = f" by {cause['by']}" if cause["by"] else ""
        console.print(
            f"  {cause['targets'] if cause['gained'] else -cause['targets']:+4d} targets: {cause['stage']}{escape(by)}"
        )
    console.print(f"[bold]{escape(other['verdict'])}[/]", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
