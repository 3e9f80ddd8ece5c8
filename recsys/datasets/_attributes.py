"""Attributes that come with rows, such as the price paid, as changes of the catalogue or of customers."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.shop.events import Int64
from recsys.shop.identity import Ids

Texts = npt.NDArray[np.object_]


def changes(ids: Ids, time: Int64, attributes: Mapping[str, Texts], owner: str = "item") -> pd.DataFrame:
    """The rows of `Catalogue.build` or `Customers.build`: for each owner and attribute, the times at which its text changed.

    `ids` are those of each row's `owner`, the name of their column. `attributes` maps a property to its text on each row, None
    where the row has none. Of several texts at one time the greatest holds, as in the catalogue.
    """
    frames = [_changes(ids, time, name, texts, owner) for name, texts in attributes.items()]
    return pd.concat(frames or [pd.DataFrame({owner: [], "time": [], "property": [], "value": []})])


def _changes(ids: Ids, time: Int64, name: str, texts: Texts, owner: str) -> pd.DataFrame:
    rows = pd.DataFrame({owner: ids, "time": time, "property": name, "value": texts}).dropna(subset="value")
    rows = rows.sort_values([owner, "time", "value"]).drop_duplicates([owner, "time"], keep="last")
    same = (rows[owner] == rows[owner].shift()) & (rows["value"] == rows["value"].shift())
    return rows[~same]


def number_texts(numbers: npt.NDArray[np.float64]) -> Texts:
    """Numbers as the shortest text that stands for them, None for NaN."""
    codes, values = pd.factorize(numbers)
    return np.array([*(f"{value:.15g}" for value in values), None], dtype=object)[codes]
