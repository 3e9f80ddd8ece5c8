"""RetailRocket's e-commerce events, item properties and category tree (Kaggle: retailrocket/ecommerce-dataset).

`events.csv` has to be there; `item_properties_part1.csv`, `item_properties_part2.csv` and `category_tree.csv` are read when
present; each may be gzipped. Texts are hashed, and numbers among the properties are written `n123.000`.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from recsys.component import component
from recsys.datasets.base import Dataset, Funnel, Loader
from recsys.datasets.reading import read
from recsys.errors import ConfigError, DataError
from recsys.shop.catalogue import Catalogue, CategoryTree
from recsys.shop.customers import Customers
from recsys.shop.events import EventLog, Int64
from recsys.shop.identity import Ids, canonical
from recsys.shop.kinds import RETAIL

KAGGLE = "retailrocket/ecommerce-dataset"
CATEGORY, PRICE, AVAILABLE = "categoryid", "790", "available"
"""Names of the properties whose meaning is known; that 790 is the price is what those who looked at the data hold."""
KNOWN = (CATEGORY, PRICE, AVAILABLE)

WHERE_TO_GET_IT = (
    f"Get it from Kaggle, https://www.kaggle.com/datasets/{KAGGLE}, and give the unzipped folder as `path`, "
    "or set `download: true` (needs: pip install kagglehub)."
)

EVENTS = ("timestamp", "visitorid", "event", "itemid", "transactionid")
PROPERTIES = ("timestamp", "itemid", "property", "value")
OWN_NAMES = {name: name for name in RETAIL.names}
ONE_OF_KINDS = f"one of {', '.join(OWN_NAMES)}"
PARTS = ("item_properties_part1", "item_properties_part2")
TREE = ("categoryid", "parentid")


@component
class RetailRocket(Loader):
    """The folder `path` as it comes from Kaggle.

    `properties`: "known" reads category, price and availability, "all" also the thousand hashed ones (20 million rows in
    all), "none" none. Items that are born in the catalogue count as known from then on, so the choice may change their numbers.
    `download` fetches the data through `kagglehub` (about 300 MB, kept in its cache), and `path` is not looked at.
    """

    path: str | None = None
    properties: Literal["known", "all", "none"] = "known"
    download: bool = False

    def files(self) -> tuple[Path, ...] | None:
        """Those of the folder that are there; None where the folder is still to be fetched or is not there."""
        if self.download or self.path is None:
            return None
        wanted = ["events", "category_tree", *(PARTS if self.properties != "none" else ())]
        return tuple(file for name in wanted if (file := _file(Path(self.path).expanduser(), name)))

    def read(self) -> Dataset:
        """Read the folder. Raises `DataError` that says where to get the data when it is not there."""
        folder = _downloaded() if self.download else _folder(self.path)
        source, funnel = _file(folder, "events"), Funnel()
        if source is None:
            raise DataError(f"{folder} has no events.csv or events.csv.gz. {WHERE_TO_GET_IT}")
        properties = None if self.properties == "none" else _properties(folder, self.properties == "all", funnel)
        events = _events(source, funnel)
        return from_frames(events, properties, _tree(folder), name="retailrocket", source=str(source), funnel=funnel)


def from_frames(
    events: pd.DataFrame,
    properties: pd.DataFrame | None = None,
    tree: pd.DataFrame | None = None,
    *,
    name: str,
    source: str,
    funnel: Funnel,
) -> Dataset:
    """A dataset from frames in RetailRocket's schema.

    `events`: timestamp (epoch ms), visitorid, event, itemid, transactionid; `properties`: timestamp, itemid, property, value
    (text); `tree`: categoryid, parentid (missing at a root). What is read and dropped is added to `funnel`.

    Raises `DataError` for an event of another kind, for no events, and for a tree that is none.
    """
    funnel.add("rows read", len(events))
    events = funnel.drop(events, events.duplicated(), "exact duplicate rows")
    kind = pd.Categorical(events["event"], categories=list(OWN_NAMES)).codes
    if (kind < 0).any():
        found = events["event"].iloc[int(np.argmax(kind < 0))]
        raise DataError(f"{source}, column 'event': wanted {ONE_OF_KINDS}, found {found!r}.")
    if not len(events):
        raise DataError(f"{source} holds no events.")
    if properties is None:
        properties = pd.DataFrame({column: [] for column in PROPERTIES}).astype({"timestamp": np.int64, "itemid": np.int64})
    unsaid = properties["property"].isna() | properties["value"].isna()
    changes = funnel.drop(properties, unsaid, "item properties without a value")
    changes = changes.rename(columns={"timestamp": "time", "itemid": "item"})
    log = EventLog.build(
        events["visitorid"].to_numpy(),
        events["itemid"].to_numpy(),
        kind,
        events["timestamp"].to_numpy(),
        changes["item"].to_numpy(),
        changes["time"].to_numpy(),
    )
    catalogue = Catalogue.build(
        log.items,
        log.item_born,
        changes,
        None if tree is None else _category_tree(tree, source),
        category=CATEGORY,
        price=PRICE,
        available=AVAILABLE,
    )
    return Dataset(log, catalogue, Customers.empty(log.users, log.user_born), name, funnel, source)


def _category_tree(tree: pd.DataFrame, source: str) -> CategoryTree:
    try:
        return CategoryTree.build(*([canonical(category) for category in tree[column]] for column in TREE))  # type: ignore[arg-type]
    except ValueError as error:
        raise DataError(f"{source}, the category tree beside it: {error}") from None


def _events(path: Path, funnel: Funnel) -> pd.DataFrame:
    table = read(path, EVENTS)
    events = pd.DataFrame(
        {
            "timestamp": table.times("timestamp", "ms"),
            "visitorid": table.ids("visitorid"),
            "event": pd.Categorical.from_codes(table.kinds("event", OWN_NAMES, RETAIL, ONE_OF_KINDS), list(OWN_NAMES)),
            "itemid": table.ids("itemid"),
            "transactionid": table.numbers("transactionid"),
        }
    )
    funnel.steps += table.forms
    return events


def _properties(folder: Path, every: bool, funnel: Funnel) -> pd.DataFrame | None:
    paths = [path for part in PARTS if (path := _file(folder, part))]
    if not paths:
        return None
    parts = [_property_columns(path, every, funnel) for path in paths]
    timestamp, itemid, prop, value = zip(*parts, strict=True)
    return pd.DataFrame(
        {
            "timestamp": np.concatenate(timestamp),
            "itemid": np.concatenate(itemid),
            "property": union_categoricals(prop),
            "value": union_categoricals(value),
        }
    )


def _property_columns(path: Path, every: bool, funnel: Funnel) -> tuple[Int64, Ids, pd.Categorical, pd.Categorical]:
    table = read(path, PROPERTIES, encoded=("property",))
    timestamp, itemid, prop = table.times("timestamp", "ms"), table.ids("itemid"), table.encoded("property")
    keep = np.full(len(table), True) if every else np.asarray(prop.isin(KNOWN))
    funnel.add(f"{path.name}: rows read", len(table))
    funnel.add(f"{path.name}: rows of properties that are not read", int((~keep).sum()))
    funnel.steps += [(f"{path.name}: {what}", count) for what, count in table.forms]
    return timestamp[keep], itemid[keep], prop[keep], table.encoded("value", keep)


def _tree(folder: Path) -> pd.DataFrame | None:
    path = _file(folder, "category_tree")
    if path is None:
        return None
    table = read(path, TREE)
    return pd.DataFrame({"categoryid": table.ids("categoryid"), "parentid": table.id_texts("parentid")})


def _file(folder: Path, name: str) -> Path | None:
    return next((path for suffix in (".csv", ".csv.gz") if (path := folder / f"{name}{suffix}").is_file()), None)


def _folder(path: str | None) -> Path:
    if path is None:
        raise DataError(f"RetailRocket needs `path`, the folder of its files. {WHERE_TO_GET_IT}")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. {WHERE_TO_GET_IT}")
    return folder


def _downloaded() -> Path:
    if find_spec("kagglehub") is None:
        raise ConfigError("`download: true` needs the kagglehub package: pip install kagglehub")
    import kagglehub

    return Path(kagglehub.dataset_download(KAGGLE))
