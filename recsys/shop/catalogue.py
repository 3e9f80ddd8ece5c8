"""What is known of items, read as of a time: properties that change, and the tree of the categories that items had by then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.shop.attributes import Attributes, Type, changes_of
from recsys.shop.events import Int64
from recsys.shop.identity import Ids, Int32, Vocabulary


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

    def only(self, named: Ids) -> "CategoryTree":
        """The categories of `named` that the tree has, and their ancestors, in the order of the tree."""
        numbers = self.category.exactly(named)
        kept = np.zeros(len(self), dtype=bool)
        while len(numbers := numbers[numbers >= 0]):
            numbers = np.unique(numbers[~kept[numbers]])
            kept[numbers] = True
            numbers = self.parent[numbers]
        place = np.append(np.cumsum(kept, dtype=np.int32) - 1, np.int32(-1))
        return CategoryTree(Vocabulary(self.category.ids[kept]), place[self.parent[kept]])

    def parent_of(self, category: Int32) -> Int32:
        """The parent of each category number; −1 for a root, an unknown or a missing (−1) category."""
        known = (category >= 0) & (category < len(self.parent))
        if not len(self.parent):
            return np.full(len(category), -1, dtype=np.int32)
        return np.where(known, self.parent[np.where(known, category, 0)], -1).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Catalogue(Attributes):
    """Properties of items, and the categories among them.

    `category_property` is the one whose texts are categories of `tree`, `price_property`, `name_property` and
    `available_property` those that hold price, product name and availability (None where the data has none). `whole_tree`
    is the tree as the data gives it, with categories that no item has had yet; None: every category is a root.
    """

    whole_tree: CategoryTree | None = None
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
        types: Mapping[str, Type] | None = None,
    ) -> "Catalogue":
        """From a frame of changes: columns `item` (own ids), `time` (epoch ms), `property` and `value` (text or categorical).

        Every item of `changes` has to be in `items`. Where a property changes twice at one time, the greater text holds, so
        that the order of rows does not matter. Without a tree, the texts of the category property are taken as roots.
        """
        time, owner = changes["time"].to_numpy(dtype=np.int64), items.numbers(changes["item"].to_numpy())
        table = changes_of(owner, time, changes["property"], changes["value"], item_born, types or {})
        return cls(
            **vars(table),
            whole_tree=tree,
            category_property=category,
            price_property=price,
            name_property=name,
            available_property=available,
        )

    @classmethod
    def empty(cls, items: Vocabulary, item_born: Int64) -> "Catalogue":
        """A catalogue that knows nothing of its items."""
        return cls.build(items, item_born, pd.DataFrame({"item": [], "time": [], "property": [], "value": []}))

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.born)

    @cached_property
    def tree(self) -> CategoryTree:
        """The categories that items have had, and their ancestors, in the order of the whole tree."""
        rows = self.rows_of(self.category_property)
        used, first = np.unique(self.value[rows], return_index=True)
        texts = self.texts.ids[used]
        if self.whole_tree is not None:
            return self.whole_tree.only(texts)
        roots = texts[np.lexsort((np.argsort(np.argsort(texts)), self.time[rows][first]))]
        return CategoryTree(Vocabulary(roots), np.full(len(roots), -1, dtype=np.int32))

    @cached_property
    def category(self) -> Int32:
        """Category of each item as a number into `tree.category`: `int32[n_items]`, −1 where unknown."""
        used, of_item = np.unique(self.latest(self.category_property), return_inverse=True)
        number = self.tree.category.exactly(self.texts.ids[used[used >= 0]])
        return np.append(np.full(int((used < 0).sum()), -1, dtype=np.int32), number)[of_item]

    @cached_property
    def price(self) -> npt.NDArray[np.float32]:
        """Price of each item: `float32[n_items]`, NaN where unknown."""
        return self.number(self.price_property)

    @cached_property
    def previous_price(self) -> npt.NDArray[np.float32]:
        """Price of each item before its newest other one, NaN where it never had another: `float32[n_items]`."""
        newest, rows = self.latest(self.price_property), self.rows_of(self.price_property)
        return self._numbers(self._newest(rows[self.value[rows] != newest[self.owner[rows]]]))

    @cached_property
    def available(self) -> npt.NDArray[np.float32]:
        """1 where an item is available, 0 where it is not, NaN where unknown: `float32[n_items]`."""
        return self.number(self.available_property)

    def names(self) -> npt.NDArray[np.object_]:
        """Product name of each item, None where unknown: `object[n_items]`."""
        return self.texts.own(self.latest(self.name_property))
