"""What everybody wants more than they used to."""

from typing import ClassVar

from pydantic import Field, PositiveFloat

from recsys.component import component
from recsys.retrieval.popularity import Popularity, summed_weights
from recsys.shop.events import EventLog, days
from recsys.shop.kinds import SIGNAL_WEIGHTS, KindWeights
from recsys.shop.pools import Float32


@component
class Trending(Popularity):
    """Items whose popularity in the last days is high for what it was before.

    score(i) = w / (w_before · window / before + smoothing), w and w_before the summed weights of the events of i in the last
    `window_days` and in the `before_days` before them. The trend ratios of OTTO's winners (Theo Viel: hour/day, day/week).
    """

    name: ClassVar[str] = "trending"
    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """Weight of an event of each kind."""
    window_days: PositiveFloat = 3.0
    """Days before the last event that are recent."""
    before_days: PositiveFloat = 28.0
    """Days before those that they are compared with."""
    smoothing: PositiveFloat = 10.0
    """Weight that every item is taken to have had anyway: larger, and only popular items can trend."""

    def scores(self, log: EventLog) -> Float32:
        """The ratio of each item."""
        end = int(log.time[-1]) + 1 if len(log) else 0
        middle = end - days(self.window_days)
        now = summed_weights(log, self.weights, middle, end)
        before = summed_weights(log, self.weights, middle - days(self.before_days), middle)
        return (now / (before * (self.window_days / self.before_days) + self.smoothing)).astype("float32")
