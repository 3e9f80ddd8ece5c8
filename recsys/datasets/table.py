"""Any CSV, TSV or Parquet file of events, by the names of its columns."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import AfterValidator, Field, StringConstraints

from recsys.component import component
from recsys.datasets import _attributes
from recsys.datasets.base import Dataset, Funnel, Loader
from recsys.datasets.reading import OnBadRow, Table, TimeUnit, read
from recsys.errors import ConfigError, DataError, nearest
from recsys.shop.catalogue import Catalogue
from recsys.shop.customers import Customers
from recsys.shop.events import EventLog, Int8
from recsys.shop.kinds import RETAIL, Kinds

Role = Literal["user", "item", "time", "event", "category", "price", "name"]
EVENT = "event"
"""Name of an event column that a file may do without."""
ATTRIBUTES = ("category", "price", "name")
DEFAULT_COLUMNS: dict[Role, str | None] = {
    "user": "user",
    "item": "item",
    "time": "time",
    "event": EVENT,
    "category": None,
    "price": None,
    "name": None,
}


def _with_needed(columns: dict[Role, str | None]) -> dict[Role, str | None]:
    missing = [role for role in ("user", "item", "time") if not columns.get(role)]
    if missing:
        raise ValueError(f"wanted the names of the columns that hold user, item and time, found none for {', '.join(missing)}")
    return columns


@component
class Csv(Loader):
    """The file `path`: `.csv` or `.tsv` (also `.gz`), `.parquet`, or any text file when `separator` is given.

    `columns` names the file's column for each role: user, item and time have to be there; without an event column every row is
    a `default_event` (a column called `event` may be missing unless `events` is given); category, price and name are attributes
    of the row's item, known from that time on. `header` names the columns of a file that has no header row.

    `time_unit` is s, ms, us or ns since 1970, "iso" for ISO 8601 text or a strptime format; text without a zone is UTC.
    `kinds` declares the kinds of event, weakest first, each with a `role` (view, cart, purchase) or none, and the kind that it
    `undoes` where it takes one back (see `recsys.shop.kinds`); without it they are view, addtocart and transaction. `events`
    maps the file's events to kinds, null leaves an event out, and an event that it does not name is an error; without it the
    file's events have the names of the kinds. `default_event` is by default the strongest kind that takes nothing back.
    `on_bad_row` says what to do with a row that lacks a user, item, time or event or has an unreadable cell.
    """

    path: str
    columns: Annotated[dict[Role, str | None], AfterValidator(_with_needed)] = Field(default=DEFAULT_COLUMNS)
    time_unit: TimeUnit = "ms"
    kinds: dict[str, dict[str, str | None] | None] | None = None
    events: dict[str | int, str | None] | None = None
    default_event: str | None = None
    separator: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = None
    header: list[str] | None = None
    on_bad_row: OnBadRow = "error"
    drop_duplicates: bool = True
    name: str | None = None

    def __post_init__(self) -> None:
        if self.events is not None and not self.columns.get("event"):
            raise ConfigError("dataset.columns.event: wanted the column that holds what `events` maps, found none")
        self._kinds_of_log = RETAIL if self.kinds is None else Kinds.of({k: v or {} for k, v in self.kinds.items()})
        known = self._kinds_of_log.names
        settings = {f"dataset.events.{event}": kind for event, kind in (self.events or {}).items()}
        for key, kind in (settings | {"dataset.default_event": self.default_event}).items():
            if kind is not None and kind not in known:
                raise ConfigError(f"{key}: expected a kind of event, got {kind!r}.{nearest(kind, known)}")

    def event_kinds(self) -> Kinds:
        """Those of the setting `kinds`."""
        return self._kinds_of_log

    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (Path(self.path).expanduser(),)

    def read(self) -> Dataset:
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
        funnel.steps += table.forms
        if self.drop_duplicates:
            rows = funnel.drop(rows, rows.duplicated(), "exact duplicate rows")
        if not len(rows):
            raise DataError(f"{path} holds no event to keep; {funnel}.")
        time, items = rows["time"].to_numpy(), rows["item"].to_numpy()
        log = EventLog.build(rows["user"].to_numpy(), items, rows["kind"].to_numpy(), time, kinds=self.event_kinds())
        texts = {role: rows[role].to_numpy(dtype=object) for role in ATTRIBUTES if role in rows}
        changes = _attributes.changes(items, time, texts)
        category, price, name = (role if role in texts else None for role in ATTRIBUTES)
        catalogue = Catalogue.build(log.items, log.item_born, changes, category=category, price=price, name=name)
        customers = Customers.empty(log.users, log.user_born)
        return Dataset(log, catalogue, customers, self.name or path.name.split(".")[0], funnel, str(path))

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
        kinds = self.event_kinds()
        if column is None or column not in table:
            plain = [name for name, undone in zip(kinds.names, kinds.undoes, strict=True) if undone is None]
            return np.full(len(table), kinds.names.index(self.default_event or plain[-1]), dtype=np.int8)
        known = {str(event): kind for event, kind in (self.events or {name: name for name in kinds.names}).items()}
        return table.kinds(column, known, kinds, "an event that `events` gives a kind, or null")
