"""The synthetic shop as a source, as files, and beside the figures published of the shop that it stands for."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt, PositiveFloat

from recsys.component import component
from recsys.datasets.base import Dataset, Funnel, Loader
from recsys.datasets.retailrocket import from_frames
from recsys.datasets.simulation import EVENTS, VISITORS, Simulated, simulate
from recsys.errors import DataError
from recsys.shop.kinds import RETAIL
from recsys.shop.pairs import pair_key

SESSION_GAP = 30 * 60 * 1000
"""A longer pause, in milliseconds, begins a new session."""


@component
class Synthetic(Loader):
    """A simulated shop of `scale` times RetailRocket's size (1: 2.76 M events), another one for each `seed`."""

    scale: PositiveFloat = 0.05
    seed: NonNegativeInt = 0

    def files(self) -> tuple[Path, ...]:
        """None are read."""
        return ()

    def read(self) -> Dataset:
        """Simulate the shop: nothing is read."""
        shop = simulate(self.scale, self.seed)
        source = f"synthetic shop, scale {self.scale:g}, seed {self.seed}"
        return from_frames(shop.events, shop.properties, shop.tree, name="synthetic", source=source, funnel=Funnel())


def write(shop: Simulated, folder: Path) -> None:
    """Write RetailRocket's four files into `folder`, which is made: all of them or, when one cannot be written, none.

    Raises `DataError` when the folder or a file cannot be written.
    """
    half = len(shop.properties) // 2
    frames = {
        "events.csv": shop.events,
        "item_properties_part1.csv": shop.properties[:half],
        "item_properties_part2.csv": shop.properties[half:],
        "category_tree.csv": shop.tree,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as unfinished:
            for name, frame in frames.items():
                frame.to_csv(Path(unfinished, name), index=False, lineterminator="\n")
            for name in frames:
                Path(unfinished, name).replace(folder / name)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror}") from None


@dataclass(frozen=True)
class Marginal:
    """A figure published of RetailRocket, and whether a shop has it at any scale, at full scale, or times its scale."""

    name: str
    published: float
    holds: Literal["at any scale", "at full scale", "times the scale"]

    def expected(self, scale: float) -> float:
        """The figure that a shop of this scale should have (the published one where it holds at full scale only)."""
        return self.published * scale if self.holds == "times the scale" else self.published


MARGINALS = (
    Marginal("visitors with 1 event", 0.712, "at any scale"),
    Marginal("visitors with 5 or more events", 0.058, "at any scale"),
    Marginal("visitors with 50 or more events", 0.001, "at any scale"),
    Marginal("distinct items a visitor", 1.52, "at any scale"),
    Marginal("sessions a visitor", 1.25, "at any scale"),
    Marginal("view to cart", 0.0259, "at any scale"),
    Marginal("cart to purchase", 0.3256, "at any scale"),
    Marginal("items with 1 event", 0.313, "at full scale"),
    Marginal("events on the top 100 items", 0.036, "at full scale"),
    Marginal("events of the busiest visitor", 7_757, "at full scale"),
    Marginal("events", EVENTS, "times the scale"),
    Marginal("visitors", VISITORS, "times the scale"),
    Marginal("items with events", 235_061, "times the scale"),
)


def marginals(events: pd.DataFrame) -> dict[str, float]:
    """The figures of `MARGINALS`, by name, of an events frame in RetailRocket's schema."""
    visitor, item = (pd.factorize(events[column])[0] for column in ("visitorid", "itemid"))
    of_visitor, of_item = np.bincount(visitor), np.bincount(item)
    views, carts, purchases = (int((events["event"] == kind).sum()) for kind in RETAIL.names)
    time = events["timestamp"].to_numpy()
    order = np.lexsort((time, visitor))
    pauses = (np.diff(time[order]) > SESSION_GAP) & (np.diff(visitor[order]) == 0)
    pairs = pd.unique(pair_key(visitor, item))
    return {
        "visitors with 1 event": float(np.mean(of_visitor == 1)),
        "visitors with 5 or more events": float(np.mean(of_visitor >= 5)),
        "visitors with 50 or more events": float(np.mean(of_visitor >= 50)),
        "distinct items a visitor": len(pairs) / len(of_visitor),
        "sessions a visitor": 1 + float(pauses.sum()) / len(of_visitor),
        "view to cart": carts / max(views, 1),
        "cart to purchase": purchases / max(carts, 1),
        "items with 1 event": float(np.mean(of_item == 1)),
        "events on the top 100 items": float(np.sort(of_item)[-100:].sum() / len(events)),
        "events of the busiest visitor": float(of_visitor.max()),
        "events": len(events),
        "visitors": len(of_visitor),
        "items with events": len(of_item),
    }
