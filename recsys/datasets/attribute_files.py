"""Files of what is known of customers and products, for every source: a row holds from its time on, or always."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals
from pydantic import Field

from recsys.component import Component, component
from recsys.datasets import _attributes
from recsys.datasets.reading import Table, TimeUnit, column_names, read
from recsys.errors import ConfigError, DataError, nearest
from recsys.shop.attributes import Type, type_of
from recsys.shop.catalogue import Catalogue
from recsys.shop.customers import Customers
from recsys.shop.events import EventLog, Int64, number_by_first_time
from recsys.shop.identity import Ids, Vocabulary, encoded, joined

TIMES = ("time", "timestamp", "valid_from")
"""Names of a time column that need no setting."""
YES_OR_NO = {"true": "1", "false": "0", "yes": "1", "no": "0"}

Steps = list[tuple[str, int]]


@dataclass(frozen=True)
class Subject:
    """Whom a file is about.

    `key`: of the config; `owner`: the id column of `Catalogue.build` or `Customers.build`; `ids`: usual
    names of the file's id column; `meanings`: types of columns whose names mean something.
    """

    key: str
    owner: str
    ids: tuple[str, ...]
    meanings: Mapping[str, Type] = field(default_factory=dict)


CUSTOMERS = Subject("dataset.customers", "user", ("user", "user_id", "customer", "customer_id", "id"))
PRODUCTS = Subject(
    "dataset.products",
    "item",
    ("item", "item_id", "product", "product_id", "id"),
    {"category": "category", "price": "number", "name": "words", "available": "number", "image": "link", "url": "link"},
)


@dataclass(frozen=True, eq=False)
class AttributeRows:
    """What a file holds. `ids` and `times` (epoch ms): one for each row; `changes`: columns `user` or `item`, `time`,
    `property` and `value`; `types`: the type of each property; `forms`: counts of ids in several written forms.
    """

    path: Path
    ids: Ids
    times: Int64
    changes: pd.DataFrame
    types: dict[str, Type]
    forms: Steps


@component
class AttributeFile(Component):
    """The file `path`: `.csv` or `.tsv` (also `.gz`) or `.parquet`, with one row for each customer or product, or one for each
    time at which something of it changed.

    `id` is the column of own ids; None: the first usual name that the file has (user, user_id, customer, customer_id, id; item,
    item_id, product, product_id, id). `time` is the column of the times from which rows hold; None: a column called time,
    timestamp or valid_from, and without one rows hold always. `time_unit` is as for events. `columns` are those to take; None:
    all others. `rename` gives columns other names, such as `{title: name, list_price: price}`. `types` says what columns hold
    where their texts mislead (`recsys.shop.attributes.type_of`), such as `{postcode: category}`.
    """

    path: str
    id: str | None = None
    time: str | None = None
    time_unit: TimeUnit = "ms"
    columns: list[str] | None = None
    rename: dict[str, str] = Field(default_factory=dict)
    types: dict[str, Type] = Field(default_factory=dict)

    @property
    def file(self) -> Path:
        """Where the file is."""
        return Path(self.path).expanduser()

    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.file,)

    def check(self, subject: Subject) -> tuple[str, str | None, dict[str, str]]:
        """The columns of ids and of times, and the name of the attribute that each other column holds, from the file's head.

        Raises `DataError` for a file that is not there or cannot be read, `ConfigError` for a column that it lacks.
        """
        present = column_names(self.file)
        settings = {"id": self.id, "time": self.time, "columns": self.columns, "rename": self.rename, "types": self.types}
        for option, names in settings.items():
            for name in [names] if isinstance(names, str) else names or []:
                if name not in present:
                    hint = nearest(name, present)
                    raise ConfigError(f"{subject.key}.{option}: expected a column of {self.file}, got {name!r}.{hint}")
        of_id = self.id or next((name for name in subject.ids if name in present), None)
        if of_id is None:
            usual = f"{self.file} has none of {', '.join(subject.ids)}; its columns: {', '.join(present)}"
            raise ConfigError(f"{subject.key}.id: expected the name of the column with the ids, got none. {usual}")
        of_time = self.time or next((name for name in TIMES if name in present), None)
        names = {
            name: self.rename.get(name, name)
            for name in (present if self.columns is None else self.columns)
            if name not in (of_id, of_time)
        }
        if twice := pd.Series(list(names.values())).value_counts().loc[lambda count: count > 1].index.tolist():
            raise ConfigError(f"{subject.key}.rename: more than one column of {self.file} would be called {twice[0]!r}")
        return of_id, of_time, names

    def rows(self, subject: Subject, always: int) -> AttributeRows:
        """What the file holds. Rows without a time hold from `always` (epoch ms) on.

        Raises as `check` does, and `DataError` that names row and column of a cell that is not what it should be.
        """
        of_id, of_time, names = self.check(subject)
        table = read(self.file, [of_id, *([of_time] if of_time else []), *names])
        ids = table.ids(of_id)
        times = table.times(of_time, self.time_unit) if of_time else np.full(len(table), always)
        columns = {
            name: _texts(table, column, self.types.get(column) or subject.meanings.get(name), name == "available")
            for column, name in names.items()
        }
        texts = {name: values for name, (values, _) in columns.items()}
        changes = _attributes.changes(ids, times, texts, owner=subject.owner)
        types = {name: kind for name, (_, kind) in columns.items()}
        forms = [(f"{subject.key.removeprefix('dataset.')}: {what}", count) for what, count in table.forms]
        return AttributeRows(self.file, ids, times, changes, types, forms)


def from_path(value: Any) -> Any:
    """The settings of an `AttributeFile` of which only the path is given."""
    return {"path": value} if isinstance(value, str) else value


def with_customers(log: EventLog, customers: Customers, rows: AttributeRows) -> tuple[Customers, Steps]:
    """What is known of the log's users, and what the rows add; and counts. Raises `DataError` when no row is of a user."""
    known = log.users.numbers(rows.ids) >= 0
    if not known.any():
        raise DataError(_strangers(rows, "users", log.users))
    changes = rows.changes[log.users.numbers(rows.changes["user"].to_numpy()) >= 0]
    before = customers.frame(log.users).rename(columns={"owner": "user"})
    together = _together(before, changes, "user")
    merged = Customers.build(log.users, log.user_born, together, {**customers.types, **rows.types})
    strangers = ("customers: rows of nobody in the log", int((~known).sum()))
    return merged, [("customers: rows read", len(rows.ids)), *rows.forms, strangers]


def with_products(log: EventLog, catalogue: Catalogue, rows: AttributeRows) -> tuple[EventLog, Catalogue, Steps]:
    """The log, whose items are known from the time of their first row on, the catalogue with what the rows add, and counts.

    Raises `DataError` when no row is of an item of the log.
    """
    if (log.items.numbers(rows.ids) < 0).all():
        raise DataError(_strangers(rows, "items", log.items))
    code, values = encoded(joined(log.items.ids, rows.ids))
    renumbered, order, born = number_by_first_time(code, np.concatenate([log.item_born, rows.times]), len(values))
    items = Vocabulary(values[order])
    without_event = len(values) - len(np.unique(code[np.unique(log.item)]))
    of_meaning = {
        "category": catalogue.category_property,
        "price": catalogue.price_property,
        "name": catalogue.name_property,
        "available": catalogue.available_property,
    }
    names = {name: of_meaning.get(name) or name for name in rows.types}
    meanings = {meaning: of or (meaning if meaning in rows.types else None) for meaning, of in of_meaning.items()}
    changes = rows.changes.assign(property=rows.changes["property"].map(names))
    before = catalogue.frame(log.items).rename(columns={"owner": "item"})
    types = {**catalogue.types, **{names[name]: kind for name, kind in rows.types.items()}}
    known = Catalogue.build(items, born, _together(before, changes, "item"), catalogue.whole_tree, **meanings, types=types)
    steps = [("products: rows read", len(rows.ids)), *rows.forms, ("products: without an event", without_event)]
    return replace(log, item=renumbered[code[: log.n_items]][log.item], items=items, item_born=born), known, steps


def _texts(table: Table, column: str, wanted: Type | None, yes_or_no: bool) -> tuple[_attributes.Texts, Type]:
    """The texts of a column, None where it has none, numbers in their shortest form; and its type."""
    texts = table.texts(column)
    if yes_or_no and set(map(str.lower, texts[pd.notna(texts)])) <= set(YES_OR_NO):
        return np.array([YES_OR_NO.get(str(text).lower()) for text in texts], dtype=object), "number"
    kind = wanted or type_of(pd.Series(texts, dtype=object).dropna())
    return (_attributes.number_texts(table.numbers(column)) if kind == "number" else texts), kind


def _together(before: pd.DataFrame, added: pd.DataFrame, owner: str) -> pd.DataFrame:
    """Both frames below each other, texts as categoricals."""
    frame = {name: joined(before[name].to_numpy(), added[name].to_numpy()) for name in (owner, "time")}
    for name in ("property", "value"):
        frame[name] = union_categoricals([before[name].array, pd.Categorical(added[name].astype(object))])
    return pd.DataFrame(frame)


def _strangers(rows: AttributeRows, what: str, known: Vocabulary) -> str:
    first = f"its first id is {str(rows.ids[0])!r}, the log's {str(known.ids[0])!r}"
    return f"{rows.path}: expected ids of the log's {what}, got none in {len(rows.ids):,} rows; {first}."
