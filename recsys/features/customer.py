"""Who the customer is: attributes such as country or age, and what others like them choose."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import PositiveFloat, PositiveInt

from recsys.component import State, component
from recsys.features.base import FeatureFamily, spread
from recsys.features.embedding import cosines, profiles, unit_vectors
from recsys.features.history import find
from recsys.features.words import tf_idf
from recsys.shop.customers import Customers
from recsys.shop.events import EventLog, Int64
from recsys.shop.identity import Int32
from recsys.shop.kinds import Kinds
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool, Float32
from recsys.shop.queries import Queries
from recsys.shop.shop import Shop

OF_TYPE = {"number": ("",), "category": ("_rank", "_share", "_lift"), "words": ("_closeness",)}
"""What the columns of an attribute of each type are called, after its own name."""


@component
class Customer(FeatureFamily):
    """Attributes of the query's customer as of the cutoff. NaN where unknown; without attributes there is no column.

    - a number: `<attribute>`, as it is
    - a category: `<attribute>_rank`, the place of the value by how many customers have it (1: the most frequent), and
      `<attribute>_share`, the part of the customers with a known value that have it; `<attribute>_lift`, how the candidate does
      with them: ln(share of their events that are with the item / share of all events that are), the first share drawn towards
      the second by `smoothing` events (NaN: an item without an event)
    - words: `<attribute>_closeness`, the cosine between the customer's words and those of the candidate's customers together,
      weighted by ln(customers / customers with the word), in a space of `dimensions` directions (as in `Content`)

    No label is read: shares are of the events before the cutoff.
    """

    smoothing: PositiveFloat = 100.0
    """Events' worth of the shop's own share of an item."""
    dimensions: PositiveInt = 16
    max_words: PositiveInt = 20_000
    """Most words of an attribute that are used, the most frequent first."""
    seed: int = 0

    def __post_init__(self) -> None:
        self.attributes: tuple[tuple[str, str], ...] = ()
        self.table = np.empty((1, 0), dtype=np.float32)
        self.group = np.empty((1, 0), dtype=np.int32)
        self.keys, self.lift = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        self.never, self.active = np.empty(0, dtype=np.float32), np.zeros(1, dtype=bool)
        self.customer_words = self.item_words = np.empty((0, 1, self.dimensions), dtype=np.float32)

    def columns(self, sources: tuple[str, ...], kinds: Kinds) -> tuple[str, ...]:
        """Those of the attributes that the fit found."""
        return tuple(f"{name}{what}" for name, kind in self.attributes for what in OF_TYPE[kind])

    def fit(self, past: Shop) -> None:
        """Take the customers' attributes as of the cutoff, and what customers of each category did before it."""
        log, customers = past.log, past.customers
        types = {name: kind for name, kind in customers.types.items() if kind in OF_TYPE}
        self.attributes = tuple(zip(_column_names(types), types.values(), strict=True))
        of_type = {kind: [name for name, its in types.items() if its == kind] for kind in OF_TYPE}
        columns: list[npt.NDArray[np.floating]] = []
        groups: list[Int32] = []
        n_groups = 0
        for name, kind in types.items():
            if kind == "number":
                columns.append(customers.number(name))
            elif kind == "category":
                code, size = _codes(customers.latest(name))
                columns += [_of_code(np.arange(1, len(size) + 1), code), _of_code(size / max(size.sum(), 1), code)]
                groups.append(np.where(code >= 0, code + n_groups, -1).astype(np.int32))
                n_groups += len(size)
        self.table = _with_unknown(columns, customers.n_users, np.nan).astype(np.float32)
        self.group = _with_unknown(groups, customers.n_users, -1).astype(np.int32)
        self._learn_lift(log, n_groups)
        vectors = [self._vectors(customers, name) for name in of_type["words"]]
        if vectors:
            user, item = _pairs(log)
            of_items = [profiles(of_user, item, user, log.n_items + 1) for of_user in vectors]
            self.customer_words, self.item_words = np.stack(vectors), np.stack(of_items)

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """Look up the query's customer, and the candidate among customers like them."""
        user = np.where(queries.user < 0, len(self.table) - 1, np.minimum(queries.user, len(self.table) - 1))
        column = of_customer = categories = texts = 0
        for _, kind in self.attributes:
            for _ in range({"number": 1, "category": 2, "words": 0}[kind]):
                spread(self.table[user, of_customer], pool, out[:, column])
                column, of_customer = column + 1, of_customer + 1
            if kind == "category":
                self._lifts(self.group[user, categories][pool.row], pool.item, out[:, column])
                column, categories = column + 1, categories + 1
            elif kind == "words":
                of_query = self.customer_words[texts][user]
                cosines(self.item_words[texts], [of_query], pool, out[:, column : column + 1])
                column, texts = column + 1, texts + 1

    def _learn_lift(self, log: EventLog, n_groups: int) -> None:
        """ln of share among the group / share among all, for each (group, item) with an event, and for those without one."""
        events = np.bincount(log.item, minlength=log.n_items)
        counted = [_counted(group[log.user], log.item) for group in self.group.T]
        self.keys = np.concatenate([keys for keys, _ in counted] or [self.keys[:0]])
        with_item = np.concatenate([count for _, count in counted] or [self.keys[:0]])
        of_group = np.bincount(self.keys >> 32, weights=with_item, minlength=n_groups)
        share = events[self.keys & 0xFFFFFFFF] / max(len(log), 1)
        total = of_group[self.keys >> 32] + self.smoothing
        self.lift = np.log((with_item + self.smoothing * share) / total / share).astype(np.float32)
        self.never = np.log(self.smoothing / (of_group + self.smoothing)).astype(np.float32)
        self.active = np.append(events > 0, False)

    def _lifts(self, group: Int32, item: Int32, out: Float32) -> None:
        place, found = find(self.keys, pair_key(group, item))
        known = (group >= 0) & self.active.take(item, mode="clip")
        out[:] = np.nan
        out[known & found] = self.lift[place[known & found]]
        out[known & ~found] = self.never[group[known & ~found]]

    def _vectors(self, customers: Customers, name: str) -> Float32:
        newest = customers.newest()
        rows = newest[customers.prop[newest] == customers.properties.exactly([name])[0]]
        return unit_vectors(tf_idf(customers, rows, self.max_words), self.dimensions, self.seed)

    def state(self) -> State:
        """Names and types of the attributes, the values of each customer, and what customers of each category choose."""
        return {
            "names": np.array([name for name, _ in self.attributes], dtype=np.str_),
            "types": np.array([kind for _, kind in self.attributes], dtype=np.str_),
            "table": self.table,
            "group": self.group,
            "keys": self.keys,
            "lift": self.lift,
            "never": self.never,
            "active": self.active,
            "customer_words": self.customer_words,
            "item_words": self.item_words,
        }

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.attributes = tuple(zip(state["names"].tolist(), state["types"].tolist(), strict=True))
        self.table, self.group = state["table"], state["group"]
        self.keys, self.lift, self.never = state["keys"], state["lift"], state["never"]
        self.active = state["active"]
        self.customer_words, self.item_words = state["customer_words"], state["item_words"]


def _column_names(names: Iterable[str]) -> list[str]:
    """Names in small letters, digits and underscores, each once."""
    taken: list[str] = []
    for name in names:
        plain = re.sub(r"\W+", "_", name.lower()).strip("_") or "attribute"
        number = next(i for i in range(1, len(taken) + 2) if (plain if i == 1 else f"{plain}_{i}") not in taken)
        taken.append(plain if number == 1 else f"{plain}_{number}")
    return taken


def _codes(texts: Int32) -> tuple[Int32, Int64]:
    """A code for each customer's value, by how many have it, then by the text's number; −1: unknown. And how many have each."""
    value, code, count = np.unique(texts[texts >= 0], return_inverse=True, return_counts=True)
    order = np.lexsort((value, -count))
    rank = np.empty(len(value), dtype=np.int32)
    rank[order] = np.arange(len(value), dtype=np.int32)
    codes = np.full(len(texts), -1, dtype=np.int32)
    codes[texts >= 0] = rank[code]
    return codes, count[order]


def _of_code(values: npt.NDArray[np.number], code: Int32) -> npt.NDArray[np.floating]:
    return np.append(values.astype(np.float64), np.nan)[code]


def _with_unknown(columns: Sequence[npt.NDArray[np.generic]], n: int, unknown: float) -> npt.NDArray[np.generic]:
    """The columns side by side, and a last row of `unknown`: `[n + 1, columns]`."""
    return np.column_stack([np.append(column, unknown) for column in columns] or [np.empty((n + 1, 0))])


def _counted(group: Int32, item: Int32) -> tuple[Int64, Int64]:
    """The `pair_key`s of the events whose customer's group is known, ascending, and how many events each has."""
    return np.unique(pair_key(group[group >= 0], item[group >= 0]), return_counts=True)


def _pairs(log: EventLog) -> tuple[Int64, Int64]:
    """User and item of each distinct pair with an event."""
    keys = np.unique(pair_key(log.user, log.item))
    return keys >> 32, keys & 0xFFFFFFFF
