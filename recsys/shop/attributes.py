"""Attributes that change in time, of items or of customers, read as of a time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.digest import digest
from recsys.shop.events import Int64, number_by_first_time
from recsys.shop.identity import Int32, Vocabulary
from recsys.shop.pairs import pair_key

Type = Literal["number", "category", "words", "link"]

NUMBER = re.compile(r"[-+]?(0|[1-9]\d*|(0|[1-9]\d*)?\.\d+|(0|[1-9]\d*)\.)([eE][-+]?\d+)?")
LINK = re.compile(r"https?://\S+")
MANY_TEXTS = 100


@dataclass(frozen=True, eq=False)
class Attributes:
    """A table of changes sorted by time.

    Row `j` says that from `time[j]` (epoch ms) on, property number `prop[j]` of owner number `owner[j]` has the text
    `texts.ids[value[j]]`. Properties and texts are numbered by first appearance, so that a past shows none of the future.
    `born` is the time from which each owner is known, ascending; no change of an owner is earlier.
    `types` says of properties what they hold; like the names of a file's columns, it is known at all times.
    """

    owner: Int32
    time: Int64
    prop: Int32
    value: Int32
    properties: Vocabulary
    texts: Vocabulary
    born: Int64
    types: Mapping[str, Type] = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        return len(self.time)

    def _before(self, t: int) -> Self:
        """Of `Shop.before`: changes with `time < t`, owners born before `t`, the texts that they use, as a view."""
        end = int(np.searchsorted(self.time, t))
        return replace(
            self,
            owner=self.owner[:end],
            time=self.time[:end],
            prop=self.prop[:end],
            value=self.value[:end],
            properties=self.properties.prefix(int(self.prop[:end].max(initial=-1)) + 1),
            texts=self.texts.prefix(int(self.value[:end].max(initial=-1)) + 1),
            born=self.born[: int(np.searchsorted(self.born, t))],
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the changes and of what the properties mean; owners go by their numbers."""
        return digest(self)

    def rows_of(self, name: str | None) -> Int64:
        """Positions of the changes of property `name`, oldest first."""
        return np.flatnonzero(self.prop == self.properties.exactly([name])[0]) if name else np.empty(0, dtype=np.int64)

    def latest(self, name: str | None) -> Int32:
        """The newest text of property `name` of each owner, as numbers into `texts`: `int32[owners]`, −1 where unknown."""
        return self._newest(self.rows_of(name))

    def number(self, name: str | None) -> npt.NDArray[np.float32]:
        """The newest value of property `name` as a number, with or without an n before it: `float32[owners]`, NaN if none."""
        return self._numbers(self.latest(name))

    def newest(self) -> Int64:
        """Position of the newest change of each owner and property, by owner and property."""
        return len(self) - 1 - np.unique(pair_key(self.owner, self.prop)[::-1], return_index=True)[1]

    def is_a(self, *types: Type) -> npt.NDArray[np.bool_]:
        """Which of `properties` are known to be of one of these types."""
        return np.array([self.types.get(str(name)) in types for name in self.properties.ids], dtype=bool)

    def frame(self, owners: Vocabulary) -> pd.DataFrame:
        """The changes under own ids: columns `owner`, `time`, `property` and `value`, the texts as categoricals."""
        return pd.DataFrame(
            {
                "owner": owners.ids[self.owner],
                "time": self.time,
                "property": pd.Categorical.from_codes(self.prop, pd.Index(self.properties.ids, dtype=object)),
                "value": pd.Categorical.from_codes(self.value, pd.Index(self.texts.ids, dtype=object)),
            }
        )

    def _newest(self, rows: Int64) -> Int32:
        newest = np.full(len(self.born), -1, dtype=np.int32)
        owners, first_from_end = np.unique(self.owner[rows][::-1], return_index=True)
        newest[owners] = self.value[rows][::-1][first_from_end]
        return newest

    def _numbers(self, texts: Int32) -> npt.NDArray[np.float32]:
        numbers = np.full(len(texts), np.nan, dtype=np.float32)
        known = texts >= 0
        parsed = pd.to_numeric(pd.Series(self.texts.ids[texts[known]], dtype=object).str.removeprefix("n"), errors="coerce")
        numbers[known] = parsed.to_numpy(dtype=np.float32)
        return numbers


def changes_of(
    owner: Int32, time: Int64, prop: "pd.Series[str]", value: "pd.Series[str]", born: Int64, types: Mapping[str, Type]
) -> Attributes:
    """The table of rows in any order. Where a property changes twice at one time, the greater text holds."""
    _, number, properties = _numbered_texts(prop, time)
    rank, text, texts = _numbered_texts(value, time)
    order = np.lexsort((rank, pair_key(number, owner), time))
    return Attributes(owner[order], time[order], number[order], text[order], properties, texts, born, types=dict(types))


def type_of(texts: "pd.Series[str]") -> Type:
    """What a column holds, by all of its texts (without missing ones).

    - number: each is a decimal number, with no zero before it (017 is a code)
    - link: each is an http or https address
    - words: two words or more in the mean, and either more than 100 distinct texts or more than half of the texts distinct
    - category: all else, and a column without a text
    """
    counts = texts.value_counts()
    distinct = counts.index.astype(str)
    if not len(distinct):
        return "category"
    if all(map(NUMBER.fullmatch, distinct)):
        return "number"
    if all(map(LINK.fullmatch, distinct)):
        return "link"
    words = np.average(distinct.str.split().str.len(), weights=counts)
    return "words" if words >= 2 and len(distinct) > min(MANY_TEXTS, len(texts) / 2) else "category"


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
