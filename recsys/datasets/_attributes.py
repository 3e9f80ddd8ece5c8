"""Item attributes that come with the events, such as the price paid, as changes of the catalogue."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.shop.events import Int64
from recsys.shop.identity import Ids

Texts = npt.NDArray[np.object_]


def changes(item_ids: Ids, time: Int64, attributes: Mapping[str, Texts]) -> pd.DataFrame:
    """The rows of `Catalogue.build`: for each item and attribute, the times at which its text became another one.

    `attributes` maps a property to its text on each event, None where the event does not tell. Of several texts at one time
    the greatest holds, as in the catalogue.
    """
    frames = [_changes(item_ids, time, name, texts) for name, texts in attributes.items()]
    return pd.concat(frames or [pd.DataFrame({"item": [], "time": [], "property": [], "value": []})])


def _changes(item_ids: Ids, time: Int64, name: str, texts: Texts) -> pd.DataFrame:
    rows = pd.DataFrame({"item": item_ids, "time": time, "property": name, "value": texts}).dropna(subset="value")
    rows = rows.sort_values(["item", "time", "value"]).drop_duplicates(["item", "time"], keep="last")
    same = (rows["item"] == rows["item"].shift()) & (rows["value"] == rows["value"].shift())
    return rows[~same]


def number_texts(numbers: npt.NDArray[np.float64]) -> Texts:
    """Numbers as the shortest text that stands for them, None for NaN."""
    codes, values = pd.factorize(numbers)
    return np.array([*(f"{value:.15g}" for value in values), None], dtype=object)[codes]
