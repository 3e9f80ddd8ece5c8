"""What is known of items, read as of a time: properties that change, and a category tree that does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.digest import digest
from recsys.shop.events import Int64, number_by_first_time
from recsys.shop.identity import Int32, Vocabulary
from recsys.shop.pairs import pair_key


@dataclass(frozen=True, eq=False)
class CategoryTree:
    """A forest of categories. `category` holds their ids; `parent[i]` is the position of `i`'s parent, −1 at a root."""

    category: Vocabulary
    parent: Int32

    @classmethod
    def empty(cls) -> "CategoryTree":
        """A tree without categories."""
        return cls(Vocabulary(np.empty(0, dtype=object)), np.empty(0, dtype=np.int32))

    @classmethod
    def build(cls, child: Sequence[str], parent: Sequence[str | None]) -> "CategoryTree":
        """From (child, parent) pairs of ids; the parent of a root is None or empty. A parent without a
        row of its own is a root.

        Raises `ValueError` naming a category that has two parents or is its own ancestor.
        """
        pairs = dict(zip(child, parent, strict=True))
        if len(pairs) < len(child):
            twice = pd.Series(list(child))
            raise ValueError(f"category {twice[twice.duplicated()].iloc[0]!r} has more than one row")
        names = sorted(set(pairs) | {p for p in pairs.values() if p})
        vocabulary = Vocabulary(np.array(names, dtype=object))
        number = {name: i for i, name in enumerate(names)}
        parents = np.array([number[p] if (p := pairs.get(name)) else -1 for name in names], dtype=np.int32)
        ancestor = parents.copy()
        for _ in range(len(names)):
            if (ancestor < 0).all():
                return cls(vocabulary, parents)
            ancestor = np.where(ancestor >= 0, parents[ancestor], -1)
        raise ValueError(f"category {names[int(np.flatnonzero(ancestor >= 0)[0])]!r} is its own ancestor")

    def __len__(self) -> int:
        return len(self.parent)

    def parent_of(self, category: Int32) -> Int32:
        """The parent of each category number; −1 for a root, an unknown or a missing (−1) category."""
        known = (category >= 0) & (category < len(self.parent))
        if not len(self.parent):
            return np.full(len(category), -1, dtype=np.int32)
        return np.where(known, self.parent[np.where(known, category, 0)], -1).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Item properties as a table of changes sorted by time, and the category tree.

    Row `j` says that from `time[j]` (epoch ms) on, property number `prop[j]` of item number `item[j]` has the text
    `texts.ids[value[j]]`. `properties` names the properties; `category_property` is the one whose texts are categories of
    `tree`, `price_property` and `name_property` the ones that hold price and product name (None where the data has none).
    """

    item: Int32
    time: Int64
    prop: Int32
    value: Int32
    properties: Vocabulary
    texts: Vocabulary
    tree: CategoryTree
    n_items: int
    item_born: Int64
    category_property: str | None = None
    price_property: str | None = None
    name_property: str | None = None
    available_property: str | None = None

    @classmethod
    def build(
        cls,
        items: Vocabulary,
        item_born: Int64,
        changes: pd.DataFrame,
        tree: CategoryTree | None = None,
        *,
        category: str | None = None,
        price: str | None = None,
        name: str | None = None,
        available: str | None = None,
    ) -> "Catalogue":
        """From a frame of changes: columns `item` (own ids), `time` (epoch ms), `property` and `value` (text or categorical).

        Every item of `changes` has to be in `items`. Where a property changes twice at one time, the greater text holds, so
        that the order of rows does not matter. Without a tree, the texts of the category property are taken as roots.
        """
        number = items.numbers(changes["item"].to_numpy())
        time = changes["time"].to_numpy(dtype=np.int64)
        _, prop, properties = _numbered_texts(changes["property"], time)
        rank, value, texts = _numbered_texts(changes["value"], time)
        order = np.lexsort((rank, pair_key(prop, number), time))
        if tree is None:
            of_category = (changes["property"] == category).to_numpy()
            _, _, roots = _numbered_texts(changes["value"][of_category], time[of_category])
            tree = CategoryTree(roots, np.full(len(roots), -1, dtype=np.int32))
        return cls(
            number[order],
            time[order],
            prop[order],
            value[order],
            properties,
            texts,
            tree,
            len(items),
            item_born,
            category,
            price,
            name,
            available,
        )

    @classmethod
    def empty(cls, items: Vocabulary, item_born: Int64) -> "Catalogue":
        """A catalogue that knows nothing of its items."""
        return cls.build(items, item_born, pd.DataFrame({"item": [], "time": [], "property": [], "value": []}))

    def __len__(self) -> int:
        return len(self.time)

    def _before(self, t: int) -> "Catalogue":
        """Of `Shop.before`: changes with `time < t`, items born before `t`, the texts that they use, as a view."""
        end = int(np.searchsorted(self.time, t))
        n_items = int(np.searchsorted(self.item_born, t))
        return Catalogue(
            self.item[:end],
            self.time[:end],
            self.prop[:end],
            self.value[:end],
            self.properties.prefix(int(self.prop[:end].max(initial=-1)) + 1),
            self.texts.prefix(int(self.value[:end].max(initial=-1)) + 1),
            self.tree,
            n_items,
            self.item_born[:n_items],
            self.category_property,
            self.price_property,
            self.name_property,
            self.available_property,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the changes, the tree and what the properties mean; items go by their numbers."""
        return digest(self)

    def latest(self, name: str | None) -> Int32:
        """The newest text of property `name` of each item, as numbers into `texts`: `int32[n_items]`, −1 where unknown."""
        latest = np.full(self.n_items, -1, dtype=np.int32)
        if name is None:
            return latest
        rows = np.flatnonzero(self.prop == self.properties.exactly([name])[0])
        items, first_from_end = np.unique(self.item[rows][::-1], return_index=True)
        latest[items] = self.value[rows][::-1][first_from_end]
        return latest

    @cached_property
    def category(self) -> Int32:
        """Category of each item as a number into `tree.category`: `int32[n_items]`, −1 where unknown."""
        texts = self.latest(self.category_property)
        in_tree = self.tree.category.exactly(self.texts.ids)
        return np.where(texts >= 0, in_tree[texts], -1).astype(np.int32) if len(in_tree) else texts

    @cached_property
    def price(self) -> npt.NDArray[np.float32]:
        """Price of each item: `float32[n_items]`, NaN where unknown."""
        return self._number(self.latest(self.price_property))

    @cached_property
    def previous_price(self) -> npt.NDArray[np.float32]:
        """Price of each item before its newest other one, NaN where it never had another: `float32[n_items]`."""
        newest = self.latest(self.price_property)
        rows = np.flatnonzero(self.prop == self.properties.exactly([self.price_property])[0])
        rows = rows[self.value[rows] != newest[self.item[rows]]]
        texts = np.full(self.n_items, -1, dtype=np.int32)
        items, first_from_end = np.unique(self.item[rows][::-1], return_index=True)
        texts[items] = self.value[rows][::-1][first_from_end]
        return self._number(texts)

    @cached_property
    def available(self) -> npt.NDArray[np.float32]:
        """1 where an item is available, 0 where it is not, NaN where unknown: `float32[n_items]`."""
        return self._number(self.latest(self.available_property))

    def names(self) -> npt.NDArray[np.object_]:
        """Product name of each item, None where unknown: `object[n_items]`."""
        texts = self.latest(self.name_property)
        names = np.full(self.n_items, None, dtype=object)
        names[texts >= 0] = self.texts.ids[texts[texts >= 0]]
        return names

    def _number(self, texts: Int32) -> npt.NDArray[np.float32]:
        numbers = np.full(self.n_items, np.nan, dtype=np.float32)
        known = texts >= 0
        parsed = pd.to_numeric(pd.Series(self.texts.ids[texts[known]], dtype=object).str.removeprefix("n"), errors="coerce")
        numbers[known] = parsed.to_numpy(dtype=np.float32)
        return numbers


def _numbered_texts(texts: "pd.Series[str]", time: Int64) -> tuple[Int32, Int32, Vocabulary]:
    """Each text's rank in sorted order and its number in order of first appearance, so that a later one changes no earlier."""
    coded = texts if isinstance(texts.dtype, pd.CategoricalDtype) else texts.astype(str).astype("category")
    values = coded.cat.categories.to_numpy(dtype=object)
    by_text = np.argsort(values)
    rank = np.empty(len(values), dtype=np.int32)
    rank[by_text] = np.arange(len(values), dtype=np.int32)
    rank = rank[coded.cat.codes]
    number, order, born = number_by_first_time(rank, time, len(values))
    used = int(np.searchsorted(born, np.iinfo(np.int64).max))
    return rank, number[rank], Vocabulary(values[by_text][order[:used]])
