"""Where a candidate stands among the candidates of its own query."""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from recsys.component import component
from recsys.errors import ConfigError
from recsys.features.base import DerivedFamily, FeatureMatrix
from recsys.pools import Float32

WHAT = ("rank", "z", "to_max")


@component
class WithinQuery(DerivedFamily):
    """Strong columns of other families seen relative to the query, which makes them comparable between queries and cutoffs.

    For a column x, over the query's candidates where x is known (NaN elsewhere):

    - `<x>_rank`: (number of candidates with a greater x + 1) / number of candidates
    - `<x>_z`: (x − mean) / deviation, 0 where all are equal
    - `<x>_to_max`: x / max |x|, 0 where all are 0

    The trick that winners of every challenge share (shimacos, OTTO: dense ranks within the session).
    """

    of: Annotated[list[str], Field(min_length=1)]
    """Full names of the columns, such as `user_item__weight_hl_30d`; those of families that are not chosen are left out."""

    def columns(self, given: tuple[str, ...]) -> tuple[str, ...]:
        """Three columns for each that is there. Raises `ConfigError` for one that a chosen family does not have."""
        families = {name.partition("__")[0] for name in given}
        for name in self.of:
            if name not in given and name.partition("__")[0] in families:
                raise ConfigError(f"features: within_query.of names {name!r}, which its family does not have")
        return tuple(f"{name}_{what}" for name in self.of if name in given for what in WHAT)

    def compute(self, given: FeatureMatrix, out: Float32) -> None:
        """Sort and sum each column query by query."""
        pool = given.pool
        if not len(pool):
            return
        width = np.diff(pool.indptr)
        starts, width = pool.indptr[:-1][width > 0], width[width > 0]
        query = np.repeat(np.arange(len(width)), width)
        offset = np.repeat(starts, width) - 1
        share = np.repeat(1 / width.astype(np.float32), width)
        for i, name in enumerate(name for name in self.of if name in given.names):
            x = given[name]
            rank, z, to_max = (out[:, 3 * i + j] for j in range(3))
            unknown = np.isnan(x)
            filled = np.where(unknown, np.float32(0), x)
            count = np.maximum(width - np.add.reduceat(unknown, starts, dtype=np.int64), 1)
            mean = np.add.reduceat(filled, starts, dtype=np.float64) / count
            centred = x - np.repeat(mean.astype(np.float32), width)
            square = np.where(unknown, np.float32(0), centred * centred)
            deviation = np.sqrt(np.add.reduceat(square, starts, dtype=np.float64) / count)
            np.multiply(centred, np.repeat(_inverse(deviation), width), out=z)
            np.multiply(x, np.repeat(_inverse(np.maximum.reduceat(np.abs(filled), starts)), width), out=to_max)
            np.multiply(_rank(x, unknown, query) - offset, share, out=rank, casting="same_kind")
            rank[unknown] = np.nan


def _rank(x: Float32, unknown: npt.NDArray[np.bool_], query: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Position of each value when the block is sorted by query, then greatest first, NaN last; equal ones share the first.

    Query, value and position are packed into one integer where they fit, which sorts several times faster than indirectly.
    """
    bits = (np.where(unknown, np.float32(-np.inf), x) + np.float32(0)).view(np.int32)
    key = (query << 32) - (bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF)))
    room = len(x).bit_length()
    if int(query[-1] + 1).bit_length() + 32 + room < 64:
        packed = np.sort((key << room) | np.arange(len(x)))
        order, key = packed & ((1 << room) - 1), packed >> room
    else:
        order = np.argsort(key)
        key = key[order]
    place = np.arange(len(x))
    place[1:][key[1:] == key[:-1]] = 0
    rank = np.empty(len(x), dtype=np.int64)
    rank[order] = np.maximum.accumulate(place)
    return rank


def _inverse(x: npt.NDArray[np.floating]) -> Float32:
    """1 / x, and 0 for an `x` of 0."""
    return np.divide(1, x, out=np.zeros(len(x), dtype=np.float32), where=x > 1e-12, casting="same_kind")
