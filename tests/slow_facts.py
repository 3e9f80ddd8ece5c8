"""The facts of `recsys.delivery.facts` once more: one customer, one product, plain loops over the raw events."""

from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from logs import BUY, CART, VIEW

from recsys.delivery import facts

DAY = 86_400_000


class Event(NamedTuple):
    user: int
    item: int
    kind: str
    time: int


@lru_cache(maxsize=4)
def did(events: tuple[Event, ...], kind: str) -> dict[int, set[int]]:
    """Who did something with each item."""
    users: dict[int, set[int]] = {}
    for e in events:
        if e.kind == kind:
            users.setdefault(e.item, set()).add(e.user)
    return users


@lru_cache(maxsize=8)
def came(events: tuple[Event, ...], start: int, end: int, kinds: tuple[str, ...]) -> dict[int, int]:
    """How many customers each item had in a time."""
    users: dict[int, set[int]] = {}
    for e in events:
        if start <= e.time < end and e.kind in kinds:
            users.setdefault(e.item, set()).add(e.user)
    return {i: len(those) for i, those in users.items()}


def slow_facts(
    events: tuple[Event, ...], user: int, item: int, cutoff: int, category: dict[int, str], now: int | None = None
) -> dict[str, dict[str, Any]]:
    """The evidence of every fact that holds, by code. `category` lacks items of which it is unknown."""
    now = cutoff if now is None else now
    own = [e for e in events if e.user == user]
    of_item = [e for e in own if e.item == item]
    found: dict[str, dict[str, Any]] = {}

    buys = sorted({e.time for e in of_item if e.kind == BUY})
    carts = [e.time for e in of_item if e.kind == CART and (not buys or e.time > buys[-1])]
    views = sorted({e.time for e in of_item if e.kind == VIEW})
    if carts:
        found["in_cart"] = {"since": min(carts) // DAY}
    if views:
        found["viewed"] = {"times": len(views), "last": views[-1] // DAY}
    if buys:
        found["bought_before"] = {"times": len(buys), "last": buys[-1] // DAY}
        on_days = sorted({t // DAY for t in buys})
        gaps = [b - a for a, b in pairwise(on_days)]
        if len(on_days) >= facts.FEWEST_REPEATS:
            mean, waited = sum(gaps) / len(gaps), now // DAY - on_days[-1]
            if mean >= 2 and max(gaps) <= 2 * mean and 0.75 * mean <= waited <= 2 * mean:
                found["due_again"] = {"every_days": round(mean), "last": on_days[-1], "times": len(buys)}

    for code, kind in (("bought_together", BUY), ("viewed_together", VIEW)):
        doers = did(events, kind)
        newest = sorted({(max(k for k, e in enumerate(own) if e.kind == kind and e.item == i), i)
                         for i in {e.item for e in own if e.kind == kind}}, reverse=True)  # fmt: skip
        best = None
        for age, (_, other) in enumerate(newest[: facts.ANCHORS]):
            both = doers.get(item, set()) & doers[other]
            if other != item and len(both - {user}) >= facts.FEWEST_CUSTOMERS:
                close = len(both - {user}) / (len(doers[item]) * len(doers[other])) ** 0.5
                if best is None or close > best[0] * (1 + 1e-12):
                    best = (close, other, len(both - {user}), age)
        if best:
            found[code] = {"item": best[1], "customers": best[2]}

    for code, kind in (("bought_in_category", BUY), ("viewed_in_category", VIEW)):
        others = {e.item for e in own if e.kind == kind and e.item != item and category.get(e.item) == category.get(item)}
        if item in category and len(others) >= facts.FEWEST_IN_CATEGORY:
            found[code] = {"category": category[item], "products": len(others)}

    def customers(first: int, last: int = 0, kinds: tuple[str, ...] = (VIEW, CART, BUY)) -> dict[int, int]:
        return came(events, cutoff - first * DAY, cutoff - last * DAY, kinds)

    until = (cutoff - 1) // DAY
    week, before = customers(7), customers(14, 7)
    mine = week.get(item, 0)
    if item in category:
        rivals = [n for i, n in week.items() if category.get(i) == category[item]]
        rank = 1 + sum(n > mine for n in rivals)
        if len(rivals) >= facts.CATEGORY_SIZE and rank <= facts.CATEGORY_PLACES and mine >= facts.FEWEST_CUSTOMERS:
            found["popular_in_category"] = {"rank": rank, "customers": mine, "category": category[item], "until": until}
    long_enough = min(e.time for e in events) <= cutoff - 14 * DAY
    if long_enough and mine >= facts.FEWEST_RISING and mine >= facts.RISE * before.get(item, 0):
        found["trending"] = {"customers": mine, "before": before.get(item, 0), "until": until}
    for code, counts in (("bestseller", customers(28, kinds=(BUY,))), ("popular", customers(7, kinds=(VIEW,)))):
        n = counts.get(item, 0)
        rank = 1 + sum(other > n for other in counts.values())
        if n >= facts.FEWEST_CUSTOMERS and rank <= facts.SHOP_PLACES:
            found[code] = {"customers": n, "rank": rank, "until": until}
    return found
