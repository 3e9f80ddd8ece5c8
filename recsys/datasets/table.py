"""Any CSV, TSV or Parquet file of events, by the names of its columns."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from recsys.catalogue import Catalogue
from recsys.component import component
from recsys.datasets import attributes
from recsys.datasets.base import Dataset, Funnel, Source
from recsys.datasets.reading import UNITS, OnBadRow, Table, read
from recsys.errors import ConfigError, DataError
from recsys.events import KINDS, EventKind, EventLog, Int8

Role = Literal["user", "item", "time", "event", "category", "price", "name"]
Kind = Literal["view", "addtocart", "transaction"]


@component
class Csv(Source):
    """The file `path`: `.csv` or `.tsv` (also `.gz`), `.parquet`, or any text file when `separator` is given.

    `columns` names the file's column for each role: user, item and time have to be there; without an event column every row is
    a `default_event`; category, price and name are attributes of the row's item, known from that time on. `header` names the
    columns of a file that has no header row.

    `time_unit` is s, ms, us or ns since 1970, "iso" for ISO 8601 text or a strptime format; text without a zone is UTC.
    `events` maps the file's events to kinds, null leaves an event out, and an event that it does not name is an error.
    `on_bad_row` says what to do with a row that lacks a user, item, time or event or has an unreadable cell.
    """

    path: str
    columns: dict[Role, str | None] = Field(default_factory=lambda: {"user": "user", "item": "item", "time": "time"})
    time_unit: str = "ms"
    events: dict[str | int, Kind | None] = Field(default_factory=lambda: {kind: kind for kind in KINDS})
    default_event: Kind = "transaction"
    separator: str | None = None
    header: list[str] | None = None
    on_bad_row: OnBadRow = "error"
    drop_duplicates: bool = True
    name: str | None = None
