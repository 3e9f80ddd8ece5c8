"""Write a simulated shop in RetailRocket's own files."""

import argparse
import sys
from pathlib import Path

from recsys.datasets.simulation import simulate
from recsys.datasets.synthetic import MARGINALS, marginals, write
from recsys.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, write the files, print how the shop compares with RetailRocket."""
    parser = argparse.ArgumentParser(
        description="Simulate a shop and write it in the files of RetailRocket: events.csv, item_properties_part1.csv, "
        "item_properties_part2.csv and category_tree.csv.",
        epilog="Example: python scripts/make_synthetic.py --scale 0.1 --seed 1 --out data/shop",
    )
    parser.add_argument("--scale", type=float, default=0.03, help="1 is RetailRocket's size, 2.76 M events (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another shop for another seed, 0 or above (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write; made if it is missing")
    options = parser.parse_args(arguments)
    if options.seed < 0:
        parser.error(f"--seed: wanted 0 or above, found {options.seed}")
    try:
        shop = simulate(options.scale, options.seed)
        write(shop, options.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(marginals(shop.events), options.scale))
    print(f"\nWritten to {options.out}. Next:\n  python train.py dataset=retailrocket dataset.path={options.out}")
    return 0


def table(reached: dict[str, float], scale: float) -> str:
    """The marginals of a shop of this scale beside the published ones; no difference where it means nothing."""
    lines = [f"{'':<34}{'RetailRocket':>13}{'expected':>13}{'this shop':>13}{'off by':>9}  holds"]
    for marginal in MARGINALS:
        expected, found = marginal.expected(scale), reached[marginal.name]
        comparable = scale == 1 or marginal.holds != "at full scale"
        wanted, off = (_figure(expected), f"{found / expected - 1:+.1%}") if comparable else ("–", "–")
        figures = f"{_figure(marginal.published):>13}{wanted:>13}{_figure(found):>13}{off:>9}"
        lines.append(f"{marginal.name:<34}{figures}  {marginal.holds}")
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.4f}"


if __name__ == "__main__":
    sys.exit(main())
