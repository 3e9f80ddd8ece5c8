"""(row, item) pairs as single numbers, which sort and compare fast."""

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]


def pair_key(row: npt.NDArray[np.integer], item: npt.NDArray[np.integer]) -> Keys:
    """One `int64` for each (row, item) pair, ascending by row, then item."""
    return (np.asarray(row, dtype=np.int64) << 32) | np.asarray(item, dtype=np.int64)


def is_member(keys: Keys, ascending: Keys) -> npt.NDArray[np.bool_]:
    """Which of `keys` are among the `ascending` ones."""
    if not len(ascending):
        return np.zeros(len(keys), dtype=bool)
    place = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    return ascending[place] == keys
