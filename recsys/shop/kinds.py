"""Kinds of event."""

from enum import IntEnum
from typing import Literal


class EventKind(IntEnum):
    """The kinds of event, weakest first."""

    view = 0
    addtocart = 1
    transaction = 2


Kind = Literal["view", "addtocart", "transaction"]
KINDS: tuple[Kind, ...] = ("view", "addtocart", "transaction")
"""Names of the kinds, in the order of `EventKind`."""
