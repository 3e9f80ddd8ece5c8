"""What is shown of an item: from the model's own catalogue as of the cutoff, and over it from the shop's file of products."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from recsys.datasets.reading import Table, read
from recsys.delivery.language import Language
from recsys.delivery.letter import Product
from recsys.delivery.recipients import one_line
from recsys.errors import DataError
from recsys.recommender import TwoStageRecommender
from recsys.shop.identity import Int32, Vocabulary

TEXTS = ("name", "category", "image", "url")
LONGEST_ADDRESS = 2000
"""Characters of an address that every client opens."""

_NO_ADDRESS = re.compile(r"[\s\x00-\x20\x7f\"'<>\\^`{|}]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_TURNS = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])

Column = npt.NDArray[np.object_]


class Products:
    """Products by item number. A name is one line that cannot turn the direction of what stands beside it; where there is none,
    the language's neutral words stand. Nothing is invented.

    `table` has a row an item: own `id`, `name`, `category`, `price` and, where known, `image` and `url`; null where not.
    `product_url` is the address of an item without one of its own, `{item}` standing for its id.
    """

    unknown: Sequence[str] = ()
    """Ids of the shop's file that the model does not know."""

    def __init__(self, table: pa.Table, language: Language, currency: str = "EUR", product_url: str | None = None) -> None:
        self._ids = table["id"].to_numpy()
        self._texts = {name: _column(table, name) for name in TEXTS}
        for name in ("image", "url"):
            self._texts[name] = np.array([link if link and is_link(link) else None for link in self._texts[name]], dtype=object)
        self._price = table["price"].to_numpy().astype(np.float64)
        self._language, self._currency, self._product_url = language, currency, product_url

    @classmethod
    def of(
        cls,
        model: TwoStageRecommender,
        language: Language,
        currency: str = "EUR",
        product_url: str | None = None,
        catalogue: str | None = None,
    ) -> "Products":
        """The model's items, and what the file `catalogue` says of them: columns id and any of name, price, image, url,
        category; an empty cell leaves what the model knows.

        Raises `DataError` that names the row and column of what cannot be shown.
        """
        products = cls(model.products, language, currency, product_url)
        if catalogue is not None:
            products._take(Path(catalogue).expanduser(), Vocabulary(products._ids))
        return products

    def __getitem__(self, item: int) -> Product:
        """The product of an item number."""
        image, url = self._texts["image"][item], self._texts["url"][item]
        if url is None and self._product_url is not None:
            url = self._product_url.replace("{item}", quote(str(self._ids[item]), safe=""))
        price = self._price[item]
        return Product(
            id=str(self._ids[item]),
            name=self.name(item),
            price=self._language.price(price, self._currency) if np.isfinite(price) else None,
            image=image,
            url=url,
            category=self.category_name(item),
        )

    def name(self, item: int) -> str:
        """The name to show."""
        name = self._texts["name"][item]
        if name and (line := shown(name)):
            return line
        return self._language.say("product", id=str(self._ids[item]), category=self.category_name(item) or "")

    def category_name(self, item: int) -> str | None:
        """The category to show, None where there is none."""
        category = self._texts["category"][item]
        return (shown(category) or None) if category else None

    @cached_property
    def categories(self) -> tuple[Int32, list[str]]:
        """A number for each item's category, −1 where it has none: `int32[n_items]`; and the categories' names."""
        codes, names = pd.factorize(self._texts["category"])
        return codes.astype(np.int32), [shown(str(name)) for name in names]

    def _take(self, path: Path, items: Vocabulary) -> None:
        """Let what the file says stand over what the model knows."""
        table = read(path, ("id", "price", *TEXTS), optional=("price", *TEXTS))
        ids = table.id_texts("id", required=True)
        if (repeated := pd.Series(ids).duplicated()).any():
            row = int(np.argmax(repeated))
            raise DataError(f"{path}, row {_row(path, row)}, column 'id': {ids[row]!r} has an earlier row already")
        number = items.numbers(ids)
        known = number >= 0
        self.unknown = ids[~known].tolist()
        for name in (name for name in TEXTS if name in table):
            values = table.texts(name)
            if name in ("image", "url"):
                _refuse_addresses(path, table, name, values)
            told = known & pd.notna(values)
            self._texts[name][number[told]] = values[told]
        if "price" in table:
            price = table.numbers("price")
            if (price < 0).any():
                row = int(np.argmax(price < 0))
                raise DataError(f"{path}, row {_row(path, row)}, column 'price': wanted 0 or more, found {price[row]:g}")
            told = known & np.isfinite(price)
            self._price[number[told]] = price[told]


def is_link(url: str) -> bool:
    """Whether this is an http or https address that may stand in a letter."""
    if len(url) > LONGEST_ADDRESS or _NO_ADDRESS.search(url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def shown(text: str) -> str:
    """Text as one line; characters that would turn the direction of their neighbours are left out."""
    return one_line(text.translate(_TURNS))


def short(text: str, length: int) -> str:
    """At most `length` characters, cut at the end of a word where one is near."""
    if len(text) <= length:
        return text
    cut = text[: length - 1]
    word = cut.rpartition(" ")[0]
    return (word if len(word) >= 0.6 * length else cut).rstrip(" ,;:–-·") + "…"


def isolated(text: str) -> str:
    """Text to stand inside a sentence of another direction: right-to-left text between invisible marks that contain it."""
    return f"\u2068{text}\u2069" if _RIGHT_TO_LEFT.search(text) else text


def _refuse_addresses(path: Path, table: Table, column: str, values: Column) -> None:
    for row, url in enumerate(values):
        if url is not None and not is_link(url):
            raise DataError(
                f"{path}, row {_row(path, row)}, column {column!r}: wanted an http or https address"
                f" of at most {LONGEST_ADDRESS} characters, found {short(url, 80)!r}"
            )


def _row(path: Path, row: int) -> int:
    """The row as a spreadsheet numbers it."""
    return row + (1 if path.suffix == ".parquet" else 2)


def _column(table: pa.Table, name: str) -> Column:
    if name not in table.column_names:
        return np.full(len(table), None, dtype=object)
    return np.asarray(table[name].to_pylist(), dtype=object) if len(table) else np.empty(0, dtype=object)
