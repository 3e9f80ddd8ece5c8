"""What a run leaves behind to be judged: queries, truth, lists and what became of every target on the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.evaluation import metrics
from recsys.evaluation.coalitions import Found
from recsys.shop import ragged
from recsys.shop.events import EventLog, Int64, days
from recsys.shop.identity import Int32
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool, Float64, Ranking
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop

Mask = npt.NDArray[np.bool_]

HEAD = 0.5
"""The head is the fewest items that take this share of all past events; the rest is the long tail."""
FRESH_DAYS = 7
"""An item is new for so many days after its first event."""


@dataclass(frozen=True, eq=False)
class Past:
    """What was known before the cutoff of each item, an array entry an item."""

    log: EventLog
    users: Int64
    """Distinct users of each item."""
    head: Mask
    """Whether it is of the head, see `HEAD`."""
    fresh: Mask
    """Whether it is new, see `FRESH_DAYS`, or has no event at all."""
    category: Int32

    @classmethod
    def of(cls, shop: Shop, cutoff: int) -> "Past":
        """From what was known before `cutoff`."""
        past = shop.log
        n = past.n_items
        pairs = pd.unique(pair_key(past.user, past.item))
        events = np.bincount(past.item, minlength=n)
        order = np.argsort(-events, kind="stable")
        before = np.cumsum(events[order]) - events[order]
        head = np.zeros(n, dtype=bool)
        head[order] = (before < HEAD * events.sum()) & (events[order] > 0)
        first = np.full(n, np.iinfo(np.int64).max)
        first[past.item[::-1]] = past.time[::-1]
        users = np.bincount(pairs & 0xFFFFFFFF, minlength=n)
        return cls(past, users, head, first >= cutoff - days(FRESH_DAYS), shop.catalogue.category)

    def flag(self, values: Mask, item: Int32, unknown: bool) -> Mask:
        """`values` of these items, `unknown` for one that the past does not know."""
        return np.append(values, unknown)[np.minimum(item, len(values))]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Queries and targets of one fold or of several, with what each stage made of every target.

    Arrays a query (`[q]`) and a target (`[m]`, in the order of `truth.item`). A target is *pooled* when it is among the
    candidates that the ranker gets, and was *found* when it is in the pool before the cut to the budget.
    """

    sources: tuple[str, ...]
    budget: int
    """Candidates a query that the ranker gets."""
    depth: int
    """Candidates a query before the cut."""
    user: Int32
    fold: Int32
    events: Int64
    """Events in the query's history."""
    candidates: Int64
    """Candidates that the ranker got."""
    cart: Mask
    """Whether it holds an item in the cart that was not bought since."""
    truth: Truth
    ranking: Ranking
    """The final lists."""
    cold: Mask
    revisit: Mask
    head: Mask
    fresh: Mask
    place: Int64
    """Place in retrieval order before the cut, 0 where no source found it."""
    pooled: Mask
    found_by: Mask
    """`bool[s, m]`: the sources that proposed a pooled target."""
    found: Found
    """What each source would find alone, what the others would find without it, its fair share; NaN where that is unknown."""
    reached: Mapping[str, Mask] = field(default_factory=dict)
    """Whether it would be pooled if one thing were otherwise, by what that is."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds that each source took to answer, where known."""

    @classmethod
    def collect(
        cls,
        past: Past,
        queries: Queries,
        truth: Truth,
        pool: CandidatePool,
        deep: CandidatePool,
        ranking: Ranking,
        *,
        budget: int,
        depth: int,
        reached: Mapping[str, Mask] | None = None,
        seconds: Mapping[str, float] | None = None,
        found: Found,
        fold: int = 0,
    ) -> "Evidence":
        """From one fold: `pool` went to the ranker, `deep` is a deeper one, and `found` what coalitions of sources find.

        What they find is unknown where all of them together do not find what is in the pool, which has another order then.
        """
        place = metrics.retrieval_rank(deep, truth)
        row, pooled = metrics.locate(pool, truth)
        found_by = np.zeros((len(pool.sources), len(truth.item)), dtype=bool)
        found_by[:, pooled] = pool.rank[:, row[pooled]] > 0
        doubled = {f"doubling the candidates to {2 * budget}": pooled | ((place > 0) & (place <= 2 * budget))}
        return cls(
            sources=pool.sources,
            budget=budget,
            depth=depth,
            user=queries.user,
            fold=np.full(len(queries), fold, dtype=np.int32),
            events=np.diff(queries.indptr),
            candidates=np.diff(pool.indptr),
            cart=_has_cart(queries),
            truth=truth,
            ranking=ranking,
            cold=truth.item >= past.log.n_items,
            revisit=metrics.revisit(queries, truth),
            head=past.flag(past.head, truth.item, False),
            fresh=past.flag(past.fresh, truth.item, True),
            place=place,
            pooled=pooled,
            found_by=found_by,
            found=found if (found.together == pooled).all() else found.unknown(),
            reached=(doubled if depth >= 2 * budget else {}) | dict(reached or {}),
            seconds=dict(seconds or {}),
        )

    @classmethod
    def concat(cls, folds: Sequence["Evidence"]) -> "Evidence":
        """Several folds of one setting as one."""
        if len(folds) == 1:
            return folds[0]
        names = [name for name in folds[0].reached if all(name in each.reached for each in folds)]
        joined = {
            name: np.concatenate([getattr(each, name) for each in folds], axis=-1)
            for name in (*_OF_QUERY, *_OF_TARGET, "found_by")
        }
        return cls(
            sources=folds[0].sources,
            budget=folds[0].budget,
            depth=folds[0].depth,
            truth=Truth(
                ragged.from_counts(np.concatenate([each.truth.count for each in folds])),
                np.concatenate([each.truth.item for each in folds]),
                np.concatenate([each.truth.grade for each in folds]),
            ),
            ranking=Ranking(
                np.concatenate([each.ranking.item for each in folds]), np.concatenate([each.ranking.score for each in folds])
            ),
            reached={name: np.concatenate([each.reached[name] for each in folds]) for name in names},
            seconds={name: sum(each.seconds[name] for each in folds) for name in folds[0].seconds},
            found=Found.concat([each.found for each in folds]),
            **joined,
        )

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def row(self) -> Int32:
        """The query of each target."""
        return ragged.row_numbers(self.truth.indptr)

    def any(self, target: Mask) -> Mask:
        """Whether each query has a target marked in `target`: `bool[q]`."""
        return np.asarray(np.bincount(self.row[target], minlength=len(self)) > 0)

    def capped_recall(self, target: Mask, k: int) -> Float64:
        """What a list of `k` would get that holds as many as it can of the marked targets: `float64[q]`.

        min(k, marked) / min(k, targets); 1 where all are marked, and for a single target whether it is.
        """
        marked = np.bincount(self.row[target], minlength=len(self))
        most = np.minimum(k, self.truth.count)
        return np.divide(np.minimum(k, marked), most, out=np.zeros(len(self)), where=most > 0)

    def by_chance(self, k: int) -> Float64:
        """Capped recall at `k` to expect of the candidates in random order: `float64[q]`."""
        pooled = np.bincount(self.row[self.pooled], minlength=len(self))
        drawn = np.minimum(k / np.maximum(self.candidates, 1), 1) * pooled
        most = np.minimum(k, self.truth.count)
        return np.divide(drawn, most, out=np.zeros(len(self)), where=most > 0)

    def share(self, target: npt.NDArray[np.generic], among: Mask | None = None) -> Float64:
        """Share of each query's targets (of those marked in `among`) that `target` marks or weighs; NaN without one."""
        inside = np.ones(len(self.row), dtype=bool) if among is None else among
        count = np.bincount(self.row[inside], minlength=len(self))
        part = np.bincount(self.row[inside], weights=target[inside].astype(np.float64), minlength=len(self))
        return np.divide(part, count, out=np.full(len(self), np.nan), where=count > 0)


_OF_QUERY = ("user", "fold", "events", "candidates", "cart")
_OF_TARGET = ("cold", "revisit", "head", "fresh", "place", "pooled")


def contains(pool: CandidatePool, truth: Truth) -> Mask:
    """Whether each target is in the pool."""
    return metrics.locate(pool, truth)[1]


def _has_cart(queries: Queries) -> Mask:
    key = pair_key(queries.row, queries.item)
    in_cart, bought = (queries.has_role(role) for role in ("cart", "purchase"))
    pairs, of_event = np.unique(key, return_inverse=True)
    newest = np.full((2, len(pairs)), np.iinfo(np.int64).min)
    for which, mask in enumerate((in_cart, bought)):
        np.maximum.at(newest[which], of_event[mask], queries.event_time[mask])
    waiting = newest[0] > newest[1]
    return np.asarray(np.bincount(pairs[waiting] >> 32, minlength=len(queries)) > 0)
