"""Show the batches that may or may not have been sent, and settle them by hand."""

import argparse
import sys
import time
from pathlib import Path

from recsys import cli
from recsys.delivery.ledger import Ledger
from recsys.errors import ConfigError, nearest


def main(arguments: list[str] | None = None) -> int:
    """List or settle."""
    parser = argparse.ArgumentParser(description="Batches that may or may not have been sent; settle one once you know.")
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--batch", help="the batch to settle, as it is listed")
    parser.add_argument("--taken", choices=("yes", "no"), help="whether the service took it; no: it will be sent again")
    options = parser.parse_args(arguments)
    if (options.batch is None) != (options.taken is None):
        parser.error("--batch and --taken go together")
    with cli.plain_errors():
        if not options.ledger.is_file():
            raise ConfigError(f"{options.ledger}: there is no such ledger")
        with Ledger(options.ledger) as ledger:
            claims = {claim.batch: claim for claim in ledger.claims()}
            if options.batch is None:
                for claim in claims.values():
                    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(claim.time))
                    print(f"{claim.batch}  {when}  {claim.mailing}  {len(claim.users)} customers: {', '.join(claim.users)}")
                print(f"{len(claims)} uncertain")
            elif options.batch not in claims:
                raise ConfigError(f"{options.batch}: no such uncertain batch.{nearest(options.batch, claims)}")
            elif options.taken == "yes":
                ledger.sent(options.batch, "settled by hand")
            else:
                ledger.release(options.batch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
