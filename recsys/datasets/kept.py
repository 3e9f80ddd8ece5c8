"""Datasets from the cache: what was read once is not read again while its files hold the same bytes."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.cache import Arrays, NoCache
from recsys.datasets.base import Dataset, Funnel, Loader
from recsys.shop.attributes import Attributes
from recsys.shop.catalogue import Catalogue, CategoryTree
from recsys.shop.customers import Customers
from recsys.shop.events import EventLog
from recsys.shop.identity import Ids, Vocabulary
from recsys.shop.kinds import Kinds

EVENTS = ("user", "item", "kind", "time", "user_born", "item_born")
CHANGES = ("owner", "time", "prop", "value")
TAKEN_BACK = "log_undone"
MEANINGS = ("category_property", "price_property", "name_property", "available_property")


def load(source: Loader, cache: NoCache) -> Dataset:
    """The dataset of `source`, from the cache while settings, code and the content of its `files` are the same.

    A source that cannot name its `files`, or whose files are not there, is read each time. Raises `DataError` as
    `Loader.load` does.
    """
    return cache.packed("dataset", source, lambda: None, source.load, to_arrays, from_arrays)


def to_arrays(dataset: Dataset) -> Arrays:
    """All that the dataset holds, as arrays of numbers and of text."""
    log, catalogue, tree = dataset.log, dataset.catalogue, dataset.catalogue.whole_tree
    steps = dataset.funnel.steps
    texts = [
        dataset.name,
        dataset.source,
        json.dumps(log.kinds.declared()),
        json.dumps([dict(catalogue.types), dict(dataset.customers.types)]),
        *(getattr(catalogue, meaning) or "" for meaning in MEANINGS),
    ]
    return {
        "texts": np.array(texts, dtype=np.str_),
        "steps": np.array([what for what, _ in steps], dtype=np.str_),
        "counts": np.array([count for _, count in steps], dtype=np.int64),
        **{f"log_{name}": getattr(log, name) for name in EVENTS},
        **({} if log.undone is None else {TAKEN_BACK: log.undone}),
        **_of_ids("users", log.users.ids),
        **_of_ids("items", log.items.ids),
        **_of_attributes("item", catalogue),
        **_of_attributes("user", dataset.customers),
        **({} if tree is None else {**_of_ids("categories", tree.category.ids), "parent": tree.parent}),
    }


def from_arrays(arrays: Arrays) -> Dataset:
    """The dataset that `to_arrays` was given."""
    name, source, kinds, types, *meanings = arrays["texts"].tolist()
    users, items = _vocabulary("users", arrays), _vocabulary("items", arrays)
    columns = {name: arrays[f"log_{name}"] for name in EVENTS}
    kinds_of_log = Kinds.of(json.loads(kinds))
    log = EventLog(**columns, users=users, items=items, kinds=kinds_of_log, undone=arrays.get(TAKEN_BACK))
    of_items, of_users = json.loads(types)
    tree = CategoryTree(_vocabulary("categories", arrays), arrays["parent"]) if "parent" in arrays else None
    named: dict[str, Any] = dict(zip(MEANINGS, (meaning or None for meaning in meanings), strict=True))
    catalogue = Catalogue(**_attributes("item", arrays), born=log.item_born, types=of_items, whole_tree=tree, **named)
    customers = Customers(**_attributes("user", arrays), born=log.user_born, types=of_users)
    funnel = Funnel(list(zip(arrays["steps"].tolist(), arrays["counts"].tolist(), strict=True)))
    return Dataset(log, catalogue, customers, name, funnel, source)


def _of_attributes(whose: str, attributes: Attributes) -> Arrays:
    return {
        **{f"{whose}_change_{name}": getattr(attributes, name) for name in CHANGES},
        **_of_ids(f"{whose}_properties", attributes.properties.ids),
        **_of_ids(f"{whose}_values", attributes.texts.ids),
    }


def _attributes(whose: str, arrays: Arrays) -> dict[str, Any]:
    changes = {name: arrays[f"{whose}_change_{name}"] for name in CHANGES}
    texts = {"properties": _vocabulary(f"{whose}_properties", arrays), "texts": _vocabulary(f"{whose}_values", arrays)}
    return changes | texts


def _of_ids(name: str, ids: Ids) -> Arrays:
    """Whole numbers as they are; text as UTF-8 bytes, one after the other, and where each ends."""
    if np.issubdtype(ids.dtype, np.integer):
        return {name: ids}
    texts = pa.array(ids, type=pa.large_string())
    ends = np.frombuffer(texts.buffers()[1], dtype=np.int64)[: len(ids) + 1] if len(ids) else np.zeros(1, dtype=np.int64)
    content = texts.buffers()[2]
    return {f"{name}_text": np.frombuffer(content or b"", dtype=np.uint8)[: ends[-1]], f"{name}_ends": ends}


def _vocabulary(name: str, arrays: Arrays) -> Vocabulary:
    if name in arrays:
        return Vocabulary(arrays[name])
    content, ends = (np.ascontiguousarray(arrays[f"{name}_{part}"]) for part in ("text", "ends"))
    texts = pa.LargeStringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(content))
    ids: npt.NDArray[Any] = texts.to_numpy(zero_copy_only=False)
    return Vocabulary(ids.astype(object))
