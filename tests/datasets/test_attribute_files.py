"""Files of customers and products, beside events of any source."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.cache import StageCache
from recsys.datasets import Loader, kept
from recsys.datasets.online_retail import OnlineRetail
from recsys.datasets.retailrocket import RetailRocket
from recsys.datasets.simulation import simulate
from recsys.datasets.synthetic import Synthetic, write
from recsys.datasets.table import Csv
from recsys.errors import ConfigError, DataError
from recsys.recommender import TwoStageRecommender

EVENTS = "user,item,time\n7,b,1600000002000\n3,a,1600000001000\n7,c,1600000003000\n3,b,1600000004000\n"
FIRST = 1_600_000_001_000


@pytest.fixture
def shop(tmp_path):
    """A source over a small file of events, with other settings."""
    (tmp_path / "events.csv").write_text(EVENTS)

    def source(**settings):
        columns = {"user": "user", "item": "item", "time": "time"}
        return Csv(path=str(tmp_path / "events.csv"), columns=columns, **settings)

    return source


def file(tmp_path, text, name="file.csv"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def texts(attributes, name):
    return [None if n < 0 else str(attributes.texts.ids[n]) for n in attributes.latest(name)]


def test_a_row_without_a_time_holds_always(shop, tmp_path):
    dataset = shop(customers=file(tmp_path, "user_id,country,age\n7,FR,31\n3,DE,\n99,IT,5\n")).load()
    assert list(dataset.log.users.ids) == [3, 7]
    assert texts(dataset.customers, "country") == ["DE", "FR"]
    assert dataset.customers.types == {"age": "number", "country": "category"}
    early = dataset.before(FIRST + 1).customers
    assert texts(early, "country") == ["DE"]
    assert list(early.texts.ids) == ["DE"]
    steps = dict(dataset.funnel.steps)
    assert (steps["customers: rows read"], steps["customers: rows of nobody in the log"]) == (3, 1)


def test_a_row_with_a_time_holds_from_then_on(shop, tmp_path):
    rows = f"customer,time,plan\n3,{FIRST + 500},free\n3,{FIRST + 2500},gold\n7,{FIRST - 10_000},free\n"
    dataset = shop(customers=file(tmp_path, rows)).load()
    at = [texts(dataset.before(FIRST + after).customers, "plan") for after in (400, 600, 2600)]
    assert at == [[None], ["free"], ["gold", "free"]]


def test_products_that_only_their_file_knows_are_born_with_their_first_row(shop, tmp_path):
    plain = shop().load()
    always = shop(products=file(tmp_path, "id,colour\na,red\nd,blue\nb,red\n")).load()
    assert always.log.n_items == 4
    assert [always.before(FIRST + 1).log.items.ids.tolist(), always.log.items.ids.tolist()] == [
        ["a", "b", "d"],
        ["a", "b", "d", "c"],
    ]
    assert texts(always.before(FIRST + 1).catalogue, "colour") == ["red", "red", "blue"]
    later = shop(products=file(tmp_path, f"id,time,colour\nd,{FIRST + 1500},blue\nb,{FIRST + 9000},red\n", "later.csv")).load()
    assert later.log.items.ids.tolist() == ["a", "b", "d", "c"]
    for dataset in (always, later):
        assert dict(dataset.funnel.steps)["products: without an event"] == 1
        own = [dataset.log.items.ids[dataset.log.item].tolist(), dataset.log.user.tolist(), dataset.log.time.tolist()]
        assert own == [plain.log.items.ids[plain.log.item].tolist(), plain.log.user.tolist(), plain.log.time.tolist()]
        for t in range(FIRST, FIRST + 10_000, 500):
            past = dataset.before(t)
            assert past.catalogue.n_items == past.log.n_items == np.searchsorted(dataset.log.item_born, t)
            assert (past.catalogue.owner < past.log.n_items).all()
            assert list(past.log.items.ids) == list(dataset.log.items.ids[: past.log.n_items])


def test_names_give_columns_of_products_their_meaning(shop, tmp_path):
    header = "id,title,list_price,category,available,image,url,weight\n"
    rows = (
        "a,Blue Mug,3.50,mugs,true,https://x.example/a.png,https://x.example/a,5\nb,Hat,12,hats,false,,https://x.example/b,7\n"
    )
    path = file(tmp_path, header + rows)
    catalogue = shop(products={"path": path, "rename": {"title": "name", "list_price": "price"}}).load().catalogue
    assert list(catalogue.names()) == ["Blue Mug", "Hat", None]
    np.testing.assert_array_equal(catalogue.price, np.array([3.5, 12, np.nan], dtype=np.float32))
    np.testing.assert_array_equal(catalogue.available, np.array([1, 0, np.nan], dtype=np.float32))
    assert [None if n < 0 else catalogue.tree.category.ids[n] for n in catalogue.category] == ["mugs", "hats", None]
    assert {name: catalogue.types[name] for name in ("price", "image", "weight", "name")} == {
        "price": "number",
        "image": "link",
        "weight": "number",
        "name": "words",
    }


def test_types_and_columns_may_be_chosen(shop, tmp_path):
    path = file(tmp_path, "user,postcode,income,note\n3,75001,10,x\n7,75002,20,y\n")
    settings = {"path": path, "columns": ["postcode", "income"], "types": {"postcode": "category"}}
    assert shop(customers=settings).load().customers.types == {"income": "number", "postcode": "category"}


def test_any_packing_gives_the_same(shop, tmp_path):
    text = "user,country,age\n3,DE,40\n7,FR,31\n"
    plain = shop(customers=file(tmp_path, text)).load()
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(text.encode()))
    pd.read_csv(tmp_path / "file.csv").to_parquet(tmp_path / "file.parquet")
    pd.read_csv(tmp_path / "file.csv")[["age", "user", "country"]][::-1].to_csv(tmp_path / "turned.csv", index=False)
    for name in ("packed.csv.gz", "file.parquet", "turned.csv"):
        other = shop(customers=str(tmp_path / name)).load().customers
        assert other.fingerprint == plain.customers.fingerprint, name
        assert list(other.types) == list(plain.customers.types)


def source_of(kind, folder, **settings):
    if kind == "synthetic":
        return Synthetic(scale=0.002, **settings)
    if kind == "retailrocket":
        write(simulate(0.002, 1), folder)
        return RetailRocket(path=str(folder), **settings)
    if kind == "online_retail":
        lines = "1,85123A,Lantern,6,2010-12-01 08:26:00,2.55,17850,France\n2,71053,Mug,2,2010-12-02 09:00:00,,13047,Italy\n"
        header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        return OnlineRetail(path=file(folder, header + lines, "retail.csv"), **settings)

    class Mine(Loader):
        def read(self):
            return Synthetic(scale=0.002, seed=4).load()

    return Mine(**settings)


@pytest.mark.parametrize("kind", ["synthetic", "retailrocket", "online_retail", "mine"])
def test_every_source_takes_them(kind, tmp_path):
    plain = source_of(kind, tmp_path).load()
    user, item = plain.log.users.ids[plain.log.user[-1]], plain.log.items.ids[plain.log.item[-1]]
    settings = {
        "customers": file(tmp_path, f"user,tier\n{user},gold\nnobody,tin\n", "c.csv"),
        "products": file(tmp_path, f"item,colour,price\n{item},red,7\n{10**9},blue,8\n", "p.csv"),
    }
    dataset = source_of(kind, tmp_path, **settings).load()
    assert texts(dataset.customers, "tier")[dataset.log.users.numbers([user])[0]] == "gold"
    assert texts(dataset.catalogue, "colour")[dataset.log.items.numbers([item])[0]] == "red"
    assert dataset.catalogue.price_property == (plain.catalogue.price_property or "price")
    assert len(dataset.catalogue) >= len(plain.catalogue) + 2
    assert (dataset.log.user == plain.log.user).all()
    assert (dataset.log.items.ids[dataset.log.item] == plain.log.items.ids[plain.log.item]).all()
    if kind == "online_retail":
        assert texts(dataset.customers, "country") == ["France", "Italy"]


def test_a_changed_file_is_read_again(shop, tmp_path):
    cache = StageCache(folder=tmp_path / "cache")
    source = shop(customers=file(tmp_path, "user,plan\n3,free\n"), products=file(tmp_path, "id,colour\na,red\n", "p.csv"))
    first, again = kept.load(source, cache), kept.load(source, cache)
    assert first.fingerprint == again.fingerprint
    assert texts(again.customers, "plan") == ["free", None]
    assert again.catalogue.types == {"colour": "category"}
    file(tmp_path, "user,plan\n3,gold\n")
    assert texts(kept.load(source, cache).customers, "plan") == ["gold", None]
    file(tmp_path, "id,colour\na,blue\n", "p.csv")
    assert texts(kept.load(source, cache).catalogue, "colour")[0] == "blue"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "idd"}, r"dataset\.customers\.id: expected a column of .*file\.csv, got 'idd'\. Did you mean 'id'"),
        ({"columns": ["ages"]}, r"dataset\.customers\.columns: expected a column of .*'ages'\. Did you mean 'age'"),
        ({"types": {"agee": "number"}}, r"dataset\.customers\.types: expected a column .*'agee'"),
        ({"rename": {"age": "city"}}, r"rename: more than one column of .* would be called 'city'"),
    ],
)
def test_wrong_columns_are_refused_before_a_row_is_read(settings, message, shop, tmp_path, monkeypatch):
    monkeypatch.setattr(Csv, "read", lambda self: pytest.fail("rows were read"))
    path = file(tmp_path, "id,age,city\n3,31,Rome\n")
    with pytest.raises(ConfigError, match=message):
        shop(customers={"path": path, **settings}).load()


def test_a_file_that_is_not_there_is_refused_before_a_row_is_read(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(Csv, "read", lambda self: pytest.fail("rows were read"))
    with pytest.raises(DataError, match=r"gone\.csv does not exist"):
        shop(products=str(tmp_path / "gone.csv")).load()
    with pytest.raises(ConfigError, match=r"dataset\.products\.id: expected the name of the column with the ids.*sku, size"):
        shop(products=file(tmp_path, "sku,size\n1,2\n")).load()


def test_wrong_cells_and_foreign_ids_are_refused(shop, tmp_path):
    with pytest.raises(DataError, match=r"file\.csv, row 3, column 'age': wanted a number, found 'old'"):
        shop(customers={"path": file(tmp_path, "id,age\n3,31\n7,old\n"), "types": {"age": "number"}}).load()
    with pytest.raises(DataError, match=r"expected ids of the log's users, got none in 1 rows; its first id is '5'"):
        shop(customers=file(tmp_path, "id,age\n5,31\n")).load()
    with pytest.raises(DataError, match="expected ids of the log's items, got none"):
        shop(products=file(tmp_path, "id,age\n5,31\n")).load()


def train(folder, *arguments):
    environment = {**os.environ, "RECSYS_HOME": str(folder), "COLUMNS": "200"}
    command = [sys.executable, str(Path(__file__).parents[2] / "train.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


def test_a_run_with_customers_and_products_has_columns_of_their_attributes(tmp_path):
    """From the command line to the ranker, the saved model and the report."""
    log = Synthetic(scale=0.01, seed=3).load().log
    users, items = log.users.ids, log.items.ids
    kind = np.array(log.kinds.names)[log.kind]
    events = pd.DataFrame({"user": users[log.user], "item": items[log.item], "time": log.time, "event": kind})
    events.to_csv(tmp_path / "events.csv", index=False)
    draw = np.random.default_rng(0)
    people = pd.DataFrame({"user": users, "country": draw.choice(["FR", "DE"], len(users))})
    people.assign(age=draw.integers(18, 80, len(users))).to_csv(tmp_path / "customers.csv", index=False)
    goods = pd.DataFrame({"id": items, "price": draw.integers(1, 9, len(items))})
    goods["image"] = [f"https://x.example/{item}" for item in items]
    goods.to_parquet(tmp_path / "products.parquet")
    done = train(
        tmp_path,
        "debug=quick",
        "dataset=csv",
        f"dataset.path={tmp_path / 'events.csv'}",
        f"dataset.customers={tmp_path / 'customers.csv'}",
        f"dataset.products={tmp_path / 'products.parquet'}",
        "features=full",
        "features.families=[source,content,customer]",
        "retriever.sources=[history,popularity]",
        "ranker.trees=5",
        "cache=off",
        f"outputs={tmp_path / 'outputs'}",
    )
    assert done.returncode == 0, done.stderr
    assert f"customers: rows read {len(users):,}" in " ".join(done.stdout.split())
    model = TwoStageRecommender.load(tmp_path / "outputs" / "latest" / "model")
    columns = {"customer__age", "customer__country_rank", "customer__country_share", "customer__country_lift"}
    assert columns <= set(model.ranker.names)
    known = model.products.to_pylist()[0]
    assert known["image"] == f"https://x.example/{known['id']}"
    assert known["price"] == goods.set_index("id")["price"][int(known["id"])]
    assert json.loads((tmp_path / "outputs" / "latest" / "metrics.json").read_text())["two_stage/ndcg_at_10"] > 0
    assert "customer" in (tmp_path / "outputs" / "latest" / "report.html").read_text()
