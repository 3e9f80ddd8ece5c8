"""Recommend to many users: a run's lists as one Parquet file."""

import argparse
import shlex
import sys
import time

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recsys import cli
from recsys.component import construct
from recsys.errors import ConfigError
from recsys.serving.batch import Batch

OPTIONS = cli.CONFIGS / "recommend.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Write the lists and say what came of it."""
    parser = argparse.ArgumentParser(
        description="Write the lists of many users, in shards; a batch that was stopped goes on where it was.",
        epilog=f"Example: python scripts/recommend.py run=latest users=all k=10 out=recs.parquet\n\n{OPTIONS.read_text()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="see below")
    given = parser.parse_args(arguments).options
    with cli.plain_errors():
        batch = composed(given)
        console, start = Console(), time.perf_counter()
        columns = (TextColumn("users"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("users", total=None)
            done = batch.write(
                lambda text: console.print(text, style="yellow", markup=False, highlight=False),
                lambda users, of: bar.update(task, completed=users, total=of),
            )
        spent = time.perf_counter() - start
        lines = [
            f"{done.users:,} users, {done.lists:,} lists with {done.items:,} items in {spent:,.1f} s"
            f" ({done.users / spent:,.0f} users a second, the start included)",
            f"{done.fallback:,} lists are of what is popular, {done.users - done.lists:,} users got none",
            "",
            f"Lists    {done.out.resolve()}",
            f"Letters  python scripts/emails.py {shlex.join(text for text in given if text.startswith(('run=', 'users=')))}",
        ]
        console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)
    return 0


def composed(given: list[str]) -> Batch:
    """The batch that the options describe. Raises `ConfigError` for what is no option."""
    for text in given:
        if "=" not in text:
            raise ConfigError(f"{text}: wanted KEY=VALUE, such as k=10")
    try:
        config = OmegaConf.merge(OmegaConf.load(OPTIONS), OmegaConf.from_dotlist(given))
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    batch = construct(OmegaConf.to_container(config, resolve=True))
    assert isinstance(batch, Batch)
    return batch


if __name__ == "__main__":
    sys.exit(main())
