"""What loading gives, whatever the source."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import BeforeValidator

from recsys.component import Component, component
from recsys.datasets.attribute_files import (
    CUSTOMERS,
    PRODUCTS,
    AttributeFile,
    from_path,
    with_customers,
    with_products,
)
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


@component
class Loader(Component, ABC):
    """Settings that say where a shop's events are and how to read them.

    `customers` and `products` are files of what is known of them, for any source: a path, or the settings of an
    `AttributeFile`. A source of your own gives `read`, and `files` where it can; `load` adds what these two hold.
    """

    customers: Annotated[AttributeFile | None, BeforeValidator(from_path)] = None
    products: Annotated[AttributeFile | None, BeforeValidator(from_path)] = None

    def files(self) -> tuple[Path, ...] | None:
        """The files that `read` reads: what it gives is the same while settings and files are. `None`: they cannot be named."""
        return None

    def event_kinds(self) -> Kinds:
        """The kinds of event of what `load` gives, known before anything is read; those of RetailRocket unless overridden."""
        return RETAIL

    @abstractmethod
    def read(self) -> Dataset:
        """Read the source's own files. Raises `DataError` that names file, row and column when one is not as it should be."""

    def load(self) -> Dataset:
        """The dataset, with what the files of customers and products hold.

        Raises `ConfigError` for a column that one of these lacks, before any row is read, and `DataError` as `read` does.
        """
        if self.customers:
            self.customers.check(CUSTOMERS)
        if self.products:
            self.products.check(PRODUCTS)
        dataset = self.read()
        always = int(dataset.log.time[0])
        if self.products:
            rows = self.products.rows(PRODUCTS, always)
            log, catalogue, steps = with_products(dataset.log, dataset.catalogue, rows)
            dataset = replace(dataset, log=log, catalogue=catalogue, funnel=Funnel(dataset.funnel.steps + steps))
        if self.customers:
            rows = self.customers.rows(CUSTOMERS, always)
            customers, steps = with_customers(dataset.log, dataset.customers, rows)
            dataset = replace(dataset, customers=customers, funnel=Funnel(dataset.funnel.steps + steps))
        return dataset
