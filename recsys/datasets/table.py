"""Any CSV, TSV or Parquet file of events, by the names of its columns."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import AfterValidator, StringConstraints

from recsys.component import component
from recsys.datasets import _attributes
from recsys.datasets.base import Dataset, Funnel, Source
from recsys.datasets.reading import UNITS, OnBadRow, Table, read
from recsys.errors import ConfigError, DataError
from recsys.shop.catalogue import Catalogue
from recsys.shop.events import EventLog, Int8
from recsys.shop.kinds import KINDS, EventKind

Role = Literal["user", "item", "time", "event", "category", "price", "name"]
EVENT = "event"
"""Name of an event column that a file may do without."""
ATTRIBUTES = ("category", "price", "name")
Kind = Literal["view", "addtocart", "transaction"]
OWN_NAMES = dict(zip(KINDS, KINDS, strict=True))


def _with_needed(columns: dict[Role, str | None]) -> dict[Role, str | None]:
    missing = [role for role in ("user", "item", "time") if not columns.get(role)]
    if missing:
        raise ValueError(f"wanted the names of the columns that hold user, item and time, found none for {', '.join(missing)}")
    return columns


def _known_unit(unit: str) -> str:
    if unit in (*UNITS, "iso") or "%" in unit:
        return unit
    raise ValueError(f"wanted {', '.join(UNITS)}, iso or a strptime format such as '%d/%m/%Y %H:%M', found {unit!r}")


@component
class Csv(Source):
    """The file `path`: `.csv` or `.tsv` (also `.gz`), `.parquet`, or any text file when `separator` is given.

    `columns` names the file's column for each role: user, item and time have to be there; without an event column every row is
    a `default_event` (a column called `event` may be missing unless `events` is given); category, price and name are attributes
    of the row's item, known from that time on. `header` names the columns of a file that has no header row.

    `time_unit` is s, ms, us or ns since 1970, "iso" for ISO 8601 text or a strptime format; text without a zone is UTC.
    `events` maps the file's events to kinds, null leaves an event out, and an event that it does not name is an error;
    without it the file's events have the names of the kinds.
    `on_bad_row` says what to do with a row that lacks a user, item, time or event or has an unreadable cell.
    """

    path: str
    columns: Annotated[dict[Role, str | None], AfterValidator(_with_needed)]
    time_unit: Annotated[str, AfterValidator(_known_unit)] = "ms"
    events: dict[str | int, Kind | None] | None = None
    default_event: Kind = "transaction"
    separator: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = None
    header: list[str] | None = None
    on_bad_row: OnBadRow = "error"
    drop_duplicates: bool = True
    name: str | None = None

    def __post_init__(self) -> None:
        if self.events is not None and not self.columns.get("event"):
            raise ConfigError("dataset.columns.event: wanted the column that holds what `events` maps, found none")

    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (Path(self.path).expanduser(),)

    def load(self) -> Dataset:
        """Read the file. Raises `DataError` that names row and column of a cell that is not what its role needs."""
        path, columns = Path(self.path).expanduser(), {role: column for role, column in self.columns.items() if column}
        table = read(
            path,
            columns.values(),
            separator=self.separator,
            header=self.header,
            optional={EVENT} if self.events is None else set(),
            on_bad_row=self.on_bad_row,
        )
        rows = self._rows(table, columns)
        funnel = Funnel([("rows read", len(table)), *((f"dropped: {why}", n) for why, n in table.reasons.items())])
        rows = rows[~table.bad]
        rows = funnel.drop(rows, rows["kind"] < 0, "events left out by `events`")
        if self.drop_duplicates:
            rows = funnel.drop(rows, rows.duplicated(), "exact duplicate rows")
        if not len(rows):
            raise DataError(f"{path} holds no event to keep; {funnel}.")
        time, items = rows["time"].to_numpy(), rows["item"].to_numpy()
        log = EventLog.build(rows["user"].to_numpy(), items, rows["kind"].to_numpy(), time)
        texts = {role: rows[role].to_numpy(dtype=object) for role in ATTRIBUTES if role in rows}
        changes = _attributes.changes(items, time, texts)
        category, price, name = (role if role in texts else None for role in ATTRIBUTES)
        catalogue = Catalogue.build(log.items, log.item_born, changes, category=category, price=price, name=name)
        return Dataset(log, catalogue, self.name or path.name.split(".")[0], funnel, str(path))

    def _rows(self, table: Table, columns: dict[Role, str]) -> pd.DataFrame:
        rows = {
            "user": table.ids(columns["user"]),
            "item": table.ids(columns["item"]),
            "time": table.times(columns["time"], self.time_unit),
            "kind": self._kinds(table, columns.get("event")),
        }
        if "category" in columns:
            rows["category"] = table.texts(columns["category"])
        if "price" in columns:
            rows["price"] = _attributes.number_texts(table.numbers(columns["price"]))
        if "name" in columns:
            rows["name"] = table.texts(columns["name"])
        return pd.DataFrame(rows)

    def _kinds(self, table: Table, column: str | None) -> Int8:
        if column is None or column not in table:
            return np.full(len(table), EventKind[self.default_event], dtype=np.int8)
        known = {str(event): kind for event, kind in (self.events or OWN_NAMES).items()}
        return table.kinds(column, known, "an event that `events` gives a kind, or null")
