"""What loading gives, whatever the source."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from recsys.component import Component
from recsys.shop.kinds import RETAIL, Kinds
from recsys.shop.shop import Shop


@dataclass
class Funnel:
    """Counts from the rows read to the events kept: every exclusion with its reason."""

    steps: list[tuple[str, int]] = field(default_factory=list)

    def add(self, what: str, count: int) -> None:
        """Note a count (rows read, rows dropped and why, users, items, …)."""
        self.steps.append((what, int(count)))

    def drop(self, frame: pd.DataFrame, bad: "pd.Series[bool]", why: str) -> pd.DataFrame:
        """`frame` without the rows marked `bad`, noted as `why`."""
        self.add(f"dropped: {why}", int(bad.sum()))
        return frame[~bad]

    def __str__(self) -> str:
        return ", ".join(f"{what}: {count:,}" for what, count in self.steps)


@dataclass(frozen=True, eq=False)
class Dataset(Shop):
    """A shop as loaded, and how the rows of its source became events."""

    name: str
    funnel: Funnel
    source: str

    def summary(self) -> dict[str, str | int]:
        """The funnel, then users, items, events a kind and the time range, in the order to print them."""
        kinds = np.bincount(self.log.kind, minlength=len(self.log.kinds))
        first, last = (str(pd.Timestamp(int(t), unit="ms")) for t in self.log.time[[0, -1]])
        return {
            **dict(self.funnel.steps),
            "events": len(self.log),
            **{f"events: {name}": int(n) for name, n in zip(self.log.kinds.names, kinds, strict=True)},
            "users": int(np.count_nonzero(np.bincount(self.log.user))),
            "items with events": int(np.count_nonzero(np.bincount(self.log.item))),
            "items known": self.log.n_items,
            "first event": first,
            "last event": last,
        }


class Source(Component, ABC):
    """Settings that say where a shop's events are and how to read them."""

    def files(self) -> tuple[Path, ...] | None:
        """The files that `load` reads: the dataset is the same while settings and files are. `None`: they cannot be named."""
        return None

    def event_kinds(self) -> Kinds:
        """The kinds of event of what `load` gives, known before anything is read; those of RetailRocket unless overridden."""
        return RETAIL

    @abstractmethod
    def load(self) -> Dataset:
        """Read the source. Raises `DataError` that names file, row and column when it does not hold what it should."""
