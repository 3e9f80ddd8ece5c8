"""What can be said to a customer of an item. A retriever or feature family declares, in `speaks_for`, what it bears out."""

from collections.abc import Iterable
from typing import Literal, get_args

from recsys.errors import ConfigError, nearest

Code = Literal[
    "in_cart",
    "due_again",
    "bought_before",
    "viewed",
    "bought_together",
    "viewed_together",
    "bought_in_category",
    "viewed_in_category",
    "popular_in_category",
    "trending",
    "bestseller",
    "popular",
]
Codes = frozenset[Code]

CODES: tuple[Code, ...] = get_args(Code)
"""In the order in which they are said where a ranker cannot tell what moved it."""

NOTHING: Codes = frozenset()
OWN: Codes = frozenset({"in_cart", "due_again", "bought_before", "viewed"})
"""What the customer did with the item itself."""
TOGETHER: Codes = frozenset({"bought_together", "viewed_together"})
"""What others did with the item and with one of the customer's."""
TASTE: Codes = OWN | TOGETHER
"""What knows a customer's taste points to what was bought before as to what goes with it."""
CATEGORY: Codes = frozenset({"bought_in_category", "viewed_in_category"})
"""What the customer did with others of its category."""
SHOP: Codes = frozenset({"popular_in_category", "trending", "bestseller", "popular"})
"""What everybody does with it."""


def check(declared: Iterable[str], where: str) -> None:
    """Raises `ConfigError`, which says `where`, for a code that there is not."""
    for code in declared:
        if code not in CODES:
            raise ConfigError(f"{where}: there is no reason called {code!r}.{nearest(code, CODES)}")
