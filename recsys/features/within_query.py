"""Where a candidate stands among the candidates of its own query."""

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from recsys.component import component
from recsys.errors import ConfigError
from recsys.features.base import DerivedFamily, FeatureMatrix
from recsys.shop.events import Int64
from recsys.shop.pools import Float32
from recsys.shop.reasons import Codes

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

    of: list[str] = Field(
        default=[
            "source__fusion",
            "user_item__weight_hl_30d",
            "user_item__days_since_last",
            "user_item__order_share",
            "user_item__due",
            "affinity__covisit_decayed",
            "affinity__cosine_recent",
            "content__category_share",
            "item__purchases_28d",
            "item__conversion",
        ],
        min_length=1,
    )
    """Full names of the columns, such as `user_item__weight_hl_30d`; those of families that are not chosen are left out."""

    def columns(self, given: tuple[str, ...]) -> tuple[str, ...]:
        """Three columns for each that is there. Raises `ConfigError` for one that a chosen family does not have."""
        families = {name.partition("__")[0] for name in given}
        for name in self.of:
            if name not in given and name.partition("__")[0] in families:
                raise ConfigError(f"features: within_query.of names {name!r}, which its family does not have")
        return tuple(f"{name}_{what}" for name in self.of if name in given for what in WHAT)

    def speakers(self, given: Mapping[str, Codes]) -> dict[str, Codes]:
        """What is made of a column speaks for what the column does."""
        return {f"{name}_{what}": given[name] for name in self.of if name in given for what in WHAT}

    def compute(self, given: FeatureMatrix, out: Float32) -> None:
        """Sort and sum each column query by query."""
        from recsys.features import _kernels

        for i, name in enumerate(name for name in self.of if name in given.names):
            x, indptr = given[name], given.pool.indptr
            rank, z, to_max = (out[:, 3 * i + j] for j in range(3))
            _kernels.relative(x, indptr, z, to_max)
            key = np.empty(len(x), dtype=np.int64)
            _kernels.greatest_first(x, x.view(np.int32), indptr, key)
            _kernels.ranks(x, indptr, *_sorted(key, len(indptr)), rank)


def _sorted(key: Int64, n_rows: int) -> tuple[Int64, Int64]:
    """The keys, `row << 32` less a value each, in ascending order, and where each of them stood.

    Key and position are packed into one integer where they fit, which sorts several times faster than indirectly.
    """
    room = len(key).bit_length()
    if n_rows.bit_length() + 32 + room < 64:
        packed = np.sort((key << room) | np.arange(len(key)))
        return packed >> room, packed & ((1 << room) - 1)
    order = np.argsort(key)
    return key[order], order
