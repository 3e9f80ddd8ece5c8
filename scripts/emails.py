"""Write the letters that a run's model recommends: payloads, bodies, a gallery to look through; with --send, send them."""

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from recsys import cli
from recsys.delivery import mailing, sending
from recsys.delivery.audience import SEGMENTS
from recsys.delivery.channel import Channel
from recsys.delivery.letter import Letter
from recsys.delivery.recipients import few
from recsys.delivery.service import Service
from recsys.errors import ConfigError, nearest


def main(arguments: list[str] | None = None) -> int:
    """Write, show, perhaps send; 1 when letters are still to be sent."""
    segments = "; ".join(f"{name}: {meaning}" for name, (meaning, _) in SEGMENTS.items())
    parser = argparse.ArgumentParser(
        description="Write the letters of a run's customers into its folder. Nothing is sent without --send.",
        epilog=f"Segments are {segments}. Example: python scripts/emails.py run=latest users=5 delivery=sendgrid"
        " delivery.catalogue=products.csv. Every option is in conf/emails.yaml and conf/delivery/.",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as of train.py: run, users, delivery, delivery.…")
    parser.add_argument("--send", action="store_true", help="send; the key is taken from the environment")
    options = parser.parse_intermixed_args(arguments)
    with cli.plain_errors():
        order, channel = mailing.Order.of(_composed(options.overrides))
        if options.send:
            sending.check(channel)
        console = Console()
        keep: list[Letter] | None = [] if options.send else None
        columns = (TextColumn("letters"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("letters", total=None)
            summary, run = mailing.write(order, channel, lambda done, of: bar.update(task, completed=done, total=of), keep)
        _show(console, summary, order)
        if keep is not None:
            ledger = Path(order.ledger)
            outcome = sending.send(channel, keep, order.mailing or run.path.name, ledger, console.print)
            console.print("\n".join(outcome.lines(ledger)), highlight=False, markup=False, soft_wrap=True)
            return 0 if outcome.complete else 1
        console.print(_next(channel, options.overrides), soft_wrap=True, highlight=False, markup=False)
    return 0


def _composed(overrides: list[str]) -> dict[str, Any]:
    """The resolved config. Raises `ConfigError` for a key that it does not have."""
    chosen = [text for text in overrides if text.startswith("delivery=")]
    with initialize_config_dir(str(cli.CONFIGS), version_base="1.3"):
        config = compose("emails", chosen)
    known = list(_dotted(OmegaConf.to_container(config)))
    for key, sign, _ in (text.partition("=") for text in overrides):
        if not sign or key not in known:
            raise ConfigError(f"{key}: {'there is no such key' if sign else 'wanted KEY=VALUE'}.{nearest(key, known)}")
    given = OmegaConf.from_dotlist([text for text in overrides if text not in chosen])
    values: dict[str, Any] = OmegaConf.to_container(OmegaConf.merge(config, given), resolve=True)  # type: ignore[assignment]
    return values


def _dotted(values: Any, prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")


def _next(channel: Channel, overrides: list[str]) -> str:
    """The next command to type."""
    if isinstance(channel, Service):
        return f"Nothing was sent. To send:  python scripts/emails.py {shlex.join(overrides)} --send"
    others = [text for text in overrides if not text.startswith("delivery=")]
    return f"As a mail service wants it:  python scripts/emails.py {shlex.join([*others, 'delivery=sendgrid'])}"


def _show(console: Console, summary: mailing.Summary, order: mailing.Order) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, expand=True)
    for column, share in (("customer", None), ("subject", 1), ("first reason", 1)):
        table.add_column(column, overflow="ellipsis", no_wrap=True, ratio=share, max_width=None if share else 16)
    for letter in summary.shown[:10]:
        first = letter.recommendations[0].reasons[:1] if letter.recommendations else ()
        subject = letter.email.subject if letter.email else "[dim]nothing to recommend: no e-mail[/]"
        table.add_row(
            escape(letter.recipient.user),
            escape(subject) if letter.email else subject,
            escape(first[0].text) if first else "[dim]–[/]",
        )
    console.print(table)
    said = ", ".join(f"{code} {count:,}" for code, count in summary.reasons.most_common())
    lines = [
        f"{summary.letters:,} letters, {summary.files:,} files, {summary.addressed:,} customers with a known address",
        f"reasons: {said or 'none'}; {summary.unexplained:,} products without one",
    ]
    if summary.stand_in:
        lines.append(
            "addresses are stand-ins (…@customer.invalid): contacts=FILE (user, email, first_name) gives the real ones"
        )
    if summary.empty:
        lines.append(f"no e-mail, as there is nothing to recommend: {len(summary.empty):,} ({few(summary.empty)})")
    lines += [
        f"ids in {path} that the model does not know: {len(ids):,} ({few(ids)})" for path, ids in summary.unknown.items() if ids
    ]
    lines += [f"left out: {len(users):,} {reason} ({few(users)})" for reason, users in summary.left_out.items()]
    if summary.repeated:
        lines.append(f"rows of {order.users} that name a customer again: {summary.repeated:,}")
    if summary.strangers:
        rows = f"{len(summary.strangers):,} of {summary.suppressing:,} rows"
        lines.append(f"suppression list: {rows} name no customer ({few(summary.strangers)})")
    if summary.untracked:
        lines.append(f"not kept with the tracked run: {summary.untracked}")
    lines += ["", f"Letters  {summary.folder}", f"Look at  {summary.folder / 'index.html'}"]
    console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)
    if summary.strangers and len(summary.strangers) == summary.suppressing:
        warning = "WARNING: the suppression list names nobody, so nobody is left out. With --send, nothing would be sent."
        console.print(warning, style="bold red", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
