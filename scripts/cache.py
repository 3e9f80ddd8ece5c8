"""Show or clear the stage cache."""

import argparse
import sys
import time
from pathlib import Path

from recsys.cache import STAGES, StageCache


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(
        description="The stage cache holds data as read, fitted retrievers, pools and features; without it they are made anew.",
        epilog="Example: python scripts/cache.py show",
    )
    parser.add_argument("action", choices=("show", "clear"))
    parser.add_argument(
        "--folder", type=Path, default=Path(".cache"), help="the setting cache.folder of the runs (%(default)s)"
    )
    options = parser.parse_args(arguments)
    cache = StageCache(folder=options.folder)  # type: ignore[call-arg]
    if options.action == "clear":
        size = sum(entry.size for entry in cache.entries())
        print(f"Removed {cache.clear()} entries, {size / 1e6:,.1f} MB, from {options.folder.resolve()}")
        return 0
    entries = cache.entries()
    print(f"{options.folder.resolve()}\n\n{'stage':<12}{'entries':>8}{'MB':>12}  last used")
    for stage in STAGES:
        own = [entry for entry in entries if entry.stage == stage]
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(own[-1].used)) if own else "–"
        print(f"{stage:<12}{len(own):>8}{sum(entry.size for entry in own) / 1e6:>12,.1f}  {used}")
    print(f"{'all':<12}{len(entries):>8}{sum(entry.size for entry in entries) / 1e6:>12,.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
