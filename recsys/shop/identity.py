"""A shop's own ids, and the numbers that stand for them."""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

Int32 = npt.NDArray[np.int32]
Ids = npt.NDArray[np.generic]

WHOLE_NUMBER = re.compile(r"(-?\d+)(?:\.0+)?")


class Vocabulary:
    """A user's or item's own id for each number, and back.

    `ids` is an array of integers or strings; number `i` stands for `ids[i]`. A prefix shares the look-up table of the whole.
    """

    def __init__(self, ids: Ids) -> None:
        self._all = ids
        self._size = len(ids)
        self._index: list[pd.Index] = []

    def __len__(self) -> int:
        return self._size

    @property
    def ids(self) -> Ids:
        """The own ids in order of their numbers."""
        return self._all[: self._size]

    def prefix(self, size: int) -> "Vocabulary":
        """The first `size` entries, as a view."""
        view = Vocabulary.__new__(Vocabulary)
        view._all, view._size, view._index = self._all, size, self._index
        return view

    def numbers(self, ids: Sequence[object] | Ids) -> Int32:
        """Numbers of own ids; −1 for an id that is not (yet) known. Text is read as an integer where ids are integers."""
        if not self._index:
            self._index.append(pd.Index(self._all))
        wanted = np.asarray(ids)
        if np.issubdtype(self._all.dtype, np.integer) and not np.issubdtype(wanted.dtype, np.integer):
            read = [int(match[1]) if (match := WHOLE_NUMBER.fullmatch(str(i))) else None for i in ids]
            whole = np.array([n is not None and abs(n) <= np.iinfo(np.int64).max for n in read], dtype=bool)
            wanted = np.array([n if w else 0 for n, w in zip(read, whole, strict=True)], dtype=np.int64)
            found = np.where(whole, self._index[0].get_indexer(pd.Index(wanted)), -1)
        else:
            if not np.issubdtype(self._all.dtype, np.integer):
                wanted = np.array([str(i) for i in ids], dtype=object)
            found = self._index[0].get_indexer(pd.Index(wanted))
        return np.where(found < self._size, found, -1).astype(np.int32)

    def content(self) -> Ids:
        """What `recsys.digest` takes for the vocabulary: its ids."""
        return self.ids

    def own(self, numbers: Int32) -> npt.NDArray[np.object_]:
        """Own ids of numbers, in their shape; None for −1."""
        own = np.full(numbers.shape, None, dtype=object)
        own[numbers >= 0] = self.ids[numbers[numbers >= 0]]
        return own
