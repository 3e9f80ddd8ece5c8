"""All that is known of a shop, cut in time in one place."""

from dataclasses import dataclass
from functools import cached_property

from recsys.digest import digest
from recsys.shop.catalogue import Catalogue
from recsys.shop.customers import Customers
from recsys.shop.events import EventLog


@dataclass(frozen=True, eq=False)
class Shop:
    """The event log and what is known of items and customers, on one timeline.

    Code that must not see the future gets `shop.before(t)`: the one cut of the package, which holds for all parts alike.
    """

    log: EventLog
    catalogue: Catalogue
    customers: Customers

    @classmethod
    def of(cls, log: EventLog, catalogue: Catalogue | None = None, customers: Customers | None = None) -> "Shop":
        """From a log, and from a catalogue and customers where there are any."""
        empty = Catalogue.empty(log.items, log.item_born), Customers.empty(log.users, log.user_born)
        return Shop(log, catalogue or empty[0], customers or empty[1])

    def before(self, t: int) -> "Shop":
        """What was known before `t` (epoch milliseconds), as views: events and changes earlier than `t`.

        An event that was taken back before `t` is not in it, and so in no cut of it either.
        """
        return Shop(self.log._before(t), self.catalogue._before(t), self.customers._before(t))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that the shop holds; the same for any row order of the same events and changes."""
        return digest(self.log.fingerprint, self.catalogue.fingerprint, self.customers.fingerprint)
