"""Datasets from the cache: equal to what is read, and read again as soon as anything that they depend on changes."""

import os
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.cache import NoCache, StageCache
from recsys.datasets import Loader, kept
from recsys.datasets.online_retail import OnlineRetail
from recsys.datasets.retailrocket import RetailRocket
from recsys.datasets.simulation import simulate
from recsys.datasets.synthetic import Synthetic, write
from recsys.datasets.table import Csv
from recsys.errors import DataError

INVOICES = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123A,"Lantern, größer",6,2010-12-01 08:26:00,2.55,17850,France
536366,71053,Mug,2,2010-12-02 09:00:00,,17850,France
536367,22752,,2,2010-12-03 10:00:00,7.65,13047,France
"""
EVENTS = """user,item,timestamp,event,name
ann,17,1400000001,view,Mug
bob,18,1400000002,addtocart,日本
ann,18,1400000003,transaction,日本
"""
WITH_RETURNS = {
    "view": {"role": "view"},
    "addtocart": None,
    "transaction": {"role": "purchase"},
    "return": {"undoes": "transaction"},
}


@pytest.fixture
def cache(tmp_path):
    return StageCache(folder=tmp_path / "cache")


@pytest.fixture
def reads(monkeypatch):
    """The sources that were read, in order."""
    seen = []
    for source in (Csv, OnlineRetail, RetailRocket, Synthetic):
        load = source.load
        monkeypatch.setattr(source, "load", lambda self, load=load: (seen.append(self), load(self))[1])
    return seen


def csv(folder, **settings):
    columns = {"user": "user", "item": "item", "time": "timestamp", "event": "event", "name": "name"}
    return Csv(path=str(folder / "events.csv"), columns=columns, time_unit="s", **settings)


def shop_files(folder):
    write(simulate(0.002, 1), folder)
    return RetailRocket(path=str(folder), properties="all")


def one_of(kind, folder):
    """A source of each kind with its files."""
    if kind == "csv":
        (folder / "events.csv").write_text(EVENTS)
        return csv(folder)
    if kind == "csv_with_returns":
        (folder / "events.csv").write_text(EVENTS + "ann,18,1400000004,return,日本\n")
        return csv(folder, kinds=WITH_RETURNS)
    if kind == "online_retail":
        (folder / "retail.csv").write_text(INVOICES)
        return OnlineRetail(path=str(folder / "retail.csv"))
    return shop_files(folder) if kind == "retailrocket" else Synthetic(scale=0.002)


def same(one, other):
    """Whether two datasets are equal in every array, text and count."""
    assert (one.name, one.source, one.funnel) == (other.name, other.source, other.funnel)
    assert one.fingerprint == other.fingerprint
    assert one.catalogue.fingerprint == other.catalogue.fingerprint
    assert list(one.customers.types.items()) == list(other.customers.types.items())
    parts = [(shop.log, shop.catalogue, shop.customers, shop.catalogue.tree) for shop in (one, other)]
    for a, b in zip(*parts, strict=True):
        for name in (field.name for field in fields(a)):
            x, y = (getattr(value, name) for value in (a, b))
            x, y = (value.ids if hasattr(value, "ids") else value for value in (x, y))
            if isinstance(x, np.ndarray):
                assert x.dtype == y.dtype, name
                np.testing.assert_array_equal(x, y, err_msg=name)
            elif name != "whole_tree":
                assert x == y, name


@pytest.mark.parametrize("kind", ["csv", "csv_with_returns", "online_retail", "retailrocket", "synthetic"])
def test_what_is_kept_equals_what_is_read(kind, tmp_path, cache, reads):
    source = one_of(kind, tmp_path)
    read = source.load()
    first, second = kept.load(source, cache), kept.load(source, cache)
    assert len(reads) == 2
    same(read, first)
    same(read, second)
    past = read.log.time[len(read.log) // 2]
    assert list(second.before(past).catalogue.names()) == list(read.before(past).catalogue.names())
    assert second.log.users.numbers(read.log.users.ids[:1]).tolist() == [0]


def test_a_file_that_changes_is_read_again(tmp_path, cache, reads):
    source = one_of("csv", tmp_path)
    assert len(kept.load(source, cache).log) == 3
    file = tmp_path / "events.csv"
    old = file.stat()
    file.write_text(file.read_text().replace("ann,17", "bob,17"))
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert len(kept.load(source, cache).log.users) == 2
    assert len(reads) == 2


def test_a_file_that_joins_the_folder_is_read(tmp_path, cache, reads):
    source = shop_files(tmp_path)
    tree = tmp_path / "category_tree.csv"
    aside = tree.rename(tmp_path / "elsewhere")
    assert (kept.load(source, cache).catalogue.tree.parent < 0).all()
    aside.rename(tree)
    assert (kept.load(source, cache).catalogue.tree.parent >= 0).any()
    assert len(reads) == 2


def test_settings_tell_datasets_apart(tmp_path, cache, reads):
    source = one_of("csv", tmp_path)
    assert kept.load(source, cache).name == "events"
    assert kept.load(csv(tmp_path, name="mine"), cache).name == "mine"
    assert len(reads) == 2


def test_nothing_is_kept_of_a_source_whose_files_are_not_known(tmp_path, cache):
    class Stream(Loader):
        count = 0

        def read(self):
            Stream.count += 1
            return Synthetic(scale=0.002, seed=Stream.count).load()

    stream = Stream()
    assert kept.load(stream, cache).fingerprint != kept.load(stream, cache).fingerprint
    assert not cache.entries()


def test_without_a_cache_it_is_read_each_time(reads):
    for _ in range(2):
        kept.load(Synthetic(scale=0.002), NoCache())
    assert len(reads) == 2


def test_an_entry_from_which_no_dataset_can_be_put_together_is_made_again(cache, reads, monkeypatch):
    source = Synthetic(scale=0.002)
    with monkeypatch.context() as patch:
        patch.setattr(kept, "CHANGES", ("owner", "time", "prop"))  # an array is missing
        made = kept.load(source, cache)
    same(made, kept.load(source, cache))
    assert len(reads) == 2


def test_a_missing_file_is_told_as_ever(tmp_path, cache):
    with pytest.raises(DataError, match=r"gone\.csv"):
        kept.load(OnlineRetail(path=str(tmp_path / "gone.csv")), cache)
    with pytest.raises(DataError, match="RetailRocket needs `path`"):
        kept.load(RetailRocket(), cache)
    assert not cache.entries()


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), unique=True))
def test_any_text_survives(texts):
    ids = np.array([*texts, "x"], dtype=object)[: len(texts)]
    arrays = kept._of_ids("some", ids)
    assert list(kept._vocabulary("some", arrays).ids) == texts


def test_numbers_stay_numbers():
    ids = pd.Index([3, 1, 2]).to_numpy()
    assert kept._vocabulary("some", kept._of_ids("some", ids)).ids.dtype == ids.dtype
