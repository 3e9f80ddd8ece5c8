"""When the query is asked."""

import numpy as np
import pandas as pd

from recsys.component import component
from recsys.features.base import FeatureFamily
from recsys.shop.kinds import Kinds
from recsys.shop.pools import CandidatePool, Float32
from recsys.shop.queries import Queries

COLUMNS = ("hour", "weekday", "day_of_month", "days_to_month_end", "day_of_year", "days_to_christmas")


@component
class Calendar(FeatureFamily):
    """The query's time (UTC): the same for all candidates, it can only tell when to trust which other column.

    All queries of a cutoff share it, so that a ranker sees as many different values as there are label windows: with a few
    windows it learns the windows apart instead of the season. Not in a set by default.

    - `hour` with fraction, `weekday` (Monday 0), `day_of_month`, `days_to_month_end`, `day_of_year`
    - `days_to_christmas`: until the next 25 December
    """

    def columns(self, sources: tuple[str, ...], kinds: Kinds) -> tuple[str, ...]:
        """See the class."""
        return COLUMNS

    def compute(self, pool: CandidatePool, queries: Queries, out: Float32) -> None:
        """One value a column."""
        time = pd.Timestamp(queries.time, unit="ms")
        christmas = pd.Timestamp(time.year + (time.month == 12 and time.day > 25), 12, 25)
        out[:] = np.array(
            [
                (time - time.normalize()) / pd.Timedelta("1h"),
                time.weekday(),
                time.day,
                time.days_in_month - time.day,
                time.day_of_year,
                (christmas - time.normalize()).days,
            ],
            dtype=np.float32,
        )
