"""Look for leaks of the future in a run, in what overrides of the config compose, or in a data set."""

import argparse
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys import cli, runs
from recsys.audit import certify

MARKS = {"pass": "[green]✓[/]", "warn": "[yellow]![/]", "fail": "[bold red]✗[/]", "skipped": "[dim]–[/]"}


def main(arguments: list[str] | None = None) -> int:
    """Audit, print the checks, write the certificate; 1 when something leaks."""
    parser = argparse.ArgumentParser(
        description="Delete, then scramble all that came after the cutoff, then give everything other names and dates, and "
        "demand the same pools, features, model, lists; take all meaning from the past and demand no more than chance. "
        "`data` looks at the data set alone.",
        epilog="Examples: python scripts/audit.py latest; python scripts/audit.py retriever=als ranker=none; "
        "python scripts/audit.py data dataset=csv dataset.path=my.csv",
    )
    parser.add_argument(
        "what",
        nargs="+",
        metavar="RUN | [data] OVERRIDE",
        help="a run (see compare.py); overrides as of train.py; `data` and overrides of the data set and the split",
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where the run folders are (%(default)s)")
    options = parser.parse_args(arguments)
    with cli.plain_errors():
        data_alone, run = options.what[0] == "data", None
        if not data_alone and not any("=" in text for text in options.what):
            run = runs.find(" ".join(options.what), options.outputs)
        config = run.config if run else _composed(options.what[data_alone:])
        console = Console()
        with console.status("auditing the data set …" if data_alone else "auditing: three fits and some …"):
            certificate = certify.certify_data(config) if data_alone else certify.certify(config, run)
        folder = run.path if run else options.outputs / "audits" / certificate["config_hash"][:12]
        path = certify.keep(certificate, folder, run)
        console.print(_table(certificate))
        console.print(f"\n[bold]{escape(certificate['verdict'])}[/]\nCertificate  {path}", highlight=False, soft_wrap=True)
    return 0 if certificate["clean"] else 1


def _composed(overrides: list[str]) -> dict[str, Any]:
    with initialize_config_dir(str(cli.CONFIGS), version_base="1.3"):
        config = compose("config", [*overrides, "output_dir=null"])
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return values


def _table(certificate: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    for check in certificate["checks"]:
        table.add_row(MARKS[check["outcome"]], f"[bold]{check['name']}[/]", escape(check["finding"]))
    return table


if __name__ == "__main__":
    sys.exit(main())
