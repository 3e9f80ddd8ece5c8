"""UCI Online Retail: the invoices of a British gift shop, 2010-12 to 2011-12 (Chen, Sain and Guo, 2012; CC BY 4.0)."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from recsys.component import component
from recsys.datasets import _attributes
from recsys.datasets.base import Dataset, Funnel, Loader
from recsys.datasets.reading import Table, read
from recsys.errors import DataError
from recsys.shop.catalogue import Catalogue
from recsys.shop.customers import Customers
from recsys.shop.events import EventLog
from recsys.shop.identity import as_ids

WHERE_TO_GET_IT = "Get it from https://archive.ics.uci.edu/dataset/352/online+retail (the sheet saved as CSV)."

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
PRODUCT_CODE = r"^(?:\d{5}|DCGS)"
"""A product's code starts with five digits, or with DCGS. The rest is postage (POST, DOT, C2), manual entries (M), discounts
(D), samples (S), fees (BANK CHARGES, AMAZONFEE, CRUK, B), vouchers (gift_0001_20) and PADS."""


@component
class OnlineRetail(Loader):
    """The file `path` with the columns of the UCI sheet; each line of an invoice is a `transaction`.

    Exact duplicates, lines without a customer, cancellations (invoice C…), lines whose quantity is not positive and, unless
    `keep_non_products`, lines that sell no product (`PRODUCT_CODE`) are dropped. The item is the stock code. Description and
    UnitPrice of the lines kept become the properties `name` and `price` from that time on; a price of 0 says nothing. Country
    becomes the customer's attribute `country`. `time_unit` is the form of InvoiceDate: "iso" or a strptime format.
    """

    path: str | None = None
    keep_non_products: bool = False
    time_unit: str = "iso"

    def files(self) -> tuple[Path, ...] | None:
        """The one file."""
        return (Path(self.path).expanduser(),) if self.path else None

    def read(self) -> Dataset:
        """Read the file. Raises `DataError` when it is missing, lacks a column or has a cell that cannot be read."""
        path = Path(self.path or "").expanduser()
        if not path.is_file():
            raise DataError(f"Online Retail wants its file as `path`, found {self.path}. {WHERE_TO_GET_IT}")
        table = read(path, COLUMNS)
        lines = self._lines(table)
        funnel = Funnel([("rows read", len(lines)), *table.forms])
        lines = funnel.drop(lines, lines.duplicated(), "exact duplicate rows")
        lines = funnel.drop(lines, lines["customer"].isna(), "no customer")
        lines = funnel.drop(lines, lines["invoice"].str.startswith("C"), "cancellations")
        lines = funnel.drop(lines, ~(lines["quantity"] > 0), "quantities that are not positive")
        if not self.keep_non_products:
            lines = funnel.drop(lines, ~lines["stock_code"].str.match(PRODUCT_CODE), "not a product")
        if not len(lines):
            raise DataError(f"{path} holds no purchase; {funnel}.")
        time, items = lines["time"].to_numpy(), lines["stock_code"].to_numpy(dtype=object)
        users = as_ids(pa.array(lines["customer"], pa.large_string()))
        log = EventLog.build(
            users,
            items,
            ["transaction"] * len(lines),
            time,
        )
        price = lines["price"].where(lines["price"] > 0).to_numpy()
        changes = _attributes.changes(
            items,
            time,
            {"name": lines["description"].to_numpy(dtype=object), "price": _attributes.number_texts(price)},
        )
        catalogue = Catalogue.build(log.items, log.item_born, changes, name="name", price="price")
        country = {"country": lines["country"].to_numpy(dtype=object)}
        of_users = _attributes.changes(users, time, country, owner="user")
        customers = Customers.build(log.users, log.user_born, of_users, {"country": "category"})
        return Dataset(log, catalogue, customers, "online_retail", funnel, str(path))

    def _lines(self, table: Table) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "invoice": table.texts("InvoiceNo", required=True),
                "stock_code": table.id_texts("StockCode", required=True),
                "description": table.texts("Description"),
                "quantity": table.numbers("Quantity"),
                "time": table.times("InvoiceDate", self.time_unit),
                "price": table.numbers("UnitPrice"),
                "customer": table.id_texts("CustomerID"),
                "country": table.texts("Country"),
            }
        )
