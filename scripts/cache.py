"""Show or clear the stage cache."""

import argparse
import sys
import time
from pathlib import Path

from recsys import cli
from recsys.cache import STEPS, StageCache
from recsys.errors import ConfigError


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(
        description="The stage cache holds data as read, fitted retrievers, pools and features. What is cleared is made again.",
        epilog="Example: python scripts/cache.py show",
    )
    parser.add_argument("action", choices=("show", "clear"))
    parser.add_argument(
        "--folder", type=Path, default=Path(".cache"), help="the setting cache.folder of the runs (%(default)s)"
    )
    options = parser.parse_args(arguments)
    with cli.plain_errors():
        cache = _cache(options.folder)
        (_show if options.action == "show" else _clear)(cache)
    return 0


def _cache(folder: Path) -> StageCache:
    cache = StageCache(folder=folder)  # type: ignore[call-arg]
    if not folder.is_dir():
        raise ConfigError(f"--folder: {folder.resolve()} is not a cache: there is no such folder")
    if any(folder.iterdir()) and not cache.entries() and not cache.drafts():
        raise ConfigError(f"--folder: {folder.resolve()} is not a cache: nothing in it was made by one")
    return cache


def _clear(cache: StageCache) -> None:
    size = sum(entry.size for entry in cache.entries())
    print(f"Removed {cache.clear()} entries, {size / 1e6:,.1f} MB, from {cache.folder.resolve()}")


def _show(cache: StageCache) -> None:
    entries = cache.entries()
    print(f"{cache.folder.resolve()}\n\n{'step':<12}{'entries':>8}{'MB':>12}  last used")
    for step in STEPS:
        own = [entry for entry in entries if entry.step == step]
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(own[-1].used)) if own else "–"
        print(f"{step:<12}{len(own):>8}{sum(entry.size for entry in own) / 1e6:>12,.1f}  {used}")
    print(f"{'all':<12}{len(entries):>8}{sum(entry.size for entry in entries) / 1e6:>12,.1f}")


if __name__ == "__main__":
    sys.exit(main())
