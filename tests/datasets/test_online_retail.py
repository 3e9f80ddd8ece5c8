"""UCI's Online Retail."""

import gzip
import re

import numpy as np
import pandas as pd
import pytest
from event_files import SHARED, own, steps, write
from logs import BUY

from recsys.datasets.online_retail import PRODUCT_CODE, OnlineRetail
from recsys.errors import DataError

DAY = 86_400_000
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
LINES = {
    "a purchase": '1,22423,"CAKESTAND, 3 TIER",2,2010-12-01 08:26:00,12.75,17850.0,United Kingdom',
    "the same line": '1,22423,"CAKESTAND, 3 TIER",2,2010-12-01 08:26:00,12.75,17850.0,United Kingdom',
    "no customer": "2,22423,CAKESTAND,1,2010-12-02 10:00:00,25,,United Kingdom",
    "cancelled": "C3,22423,CAKESTAND,-2,2010-12-03 10:00:00,12.75,17850.0,United Kingdom",
    "no quantity": "4,22423,CAKESTAND,0,2010-12-03 10:00:00,12.75,17850.0,United Kingdom",
    "postage": "5,POST,POSTAGE,1,2010-12-03 10:00:00,18,12583.0,France",
    "a voucher": "5,gift_0001_20,Voucher,1,2010-12-03 10:00:00,20,12583.0,France",
    "a product with letters": "5,85123A,HEART HOLDER,6,2010-12-03 10:00:00,2.55,12583.0,France",
    "a product of another range": "5,DCGSSBOY,BOYS PARTY BAG,6,2010-12-03 10:00:00,3,12583.0,France",
    "renamed and cheaper": "6,22423,REGENCY CAKESTAND,1,2010-12-05 09:00:00,10.95,12583.0,France",
    "given away": "7,22423,,1,2010-12-06 09:00:00,0,12583.0,France",
}


@pytest.fixture
def shop(tmp_path):
    return write(tmp_path / "online_retail.csv", HEADER, *LINES.values())


def test_online_retail(shop):
    dataset = OnlineRetail(path=str(shop)).load()
    assert [event[:3] for event in own(dataset)] == [
        (17850, "22423", BUY),
        (12583, "85123A", BUY),
        (12583, "DCGSSBOY", BUY),
        (12583, "22423", BUY),
        (12583, "22423", BUY),
    ]
    assert int(dataset.log.time[0]) == pd.Timestamp("2010-12-01T08:26:00Z").timestamp() * 1000
    assert dataset.funnel.steps == [
        ("rows read", 11),
        ("dropped: exact duplicate rows", 1),
        ("dropped: no customer", 1),
        ("dropped: cancellations", 1),
        ("dropped: quantities that are not positive", 1),
        ("dropped: not a product", 2),
    ]


def test_online_retail_names_and_prices_are_as_of_a_time(shop):
    catalogue = OnlineRetail(path=str(shop)).load().catalogue
    first, renamed = (int(pd.Timestamp(t, tz="UTC").timestamp()) * 1000 for t in ("2010-12-01 08:26", "2010-12-05 09:00"))
    assert catalogue._before(first).n_items == 0
    early = catalogue._before(renamed)
    assert (early.names()[0], early.price[0]) == ("CAKESTAND, 3 TIER", np.float32(12.75))
    assert (catalogue.names()[0], catalogue.price[0]) == ("REGENCY CAKESTAND", np.float32(10.95))


def test_online_retail_knows_the_country_of_a_customer_from_the_first_line_on(shop):
    dataset = OnlineRetail(path=str(shop)).load()
    customers = dataset.customers
    assert customers.types == {"country": "category"}
    country = dict(zip(dataset.log.users.ids.tolist(), customers.texts.own(customers.latest("country")), strict=True))
    assert country == {17850: "United Kingdom", 12583: "France"}
    first = int(dataset.log.time[0])
    assert list(dataset.before(first + 1).customers.texts.ids) == ["United Kingdom"]


def test_online_retail_may_keep_what_is_no_product(shop):
    items = OnlineRetail(path=str(shop), keep_non_products=True).load().log.items.ids
    assert {"POST", "gift_0001_20"} <= set(items)


def test_online_retail_of_any_row_order_packing_and_date_format(shop, tmp_path):
    whole = OnlineRetail(path=str(shop)).load()
    write(tmp_path / "backwards.csv", HEADER, *reversed(LINES.values()))
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(shop.read_bytes()))
    frame = pd.read_csv(shop)
    frame.to_parquet(tmp_path / "retail.parquet")
    frame["InvoiceDate"] = pd.to_datetime(frame["InvoiceDate"]).dt.strftime("%m/%d/%Y %H:%M")
    frame.to_csv(tmp_path / "american.csv", index=False)
    for name, unit in (
        ("backwards.csv", "iso"),
        ("packed.csv.gz", "iso"),
        ("retail.parquet", "iso"),
        ("american.csv", "%m/%d/%Y %H:%M"),
    ):
        other = OnlineRetail(path=str(tmp_path / name), time_unit=unit).load()
        assert other.fingerprint == whole.fingerprint, name
        assert other.funnel.steps == whole.funnel.steps, name
        np.testing.assert_array_equal(other.catalogue.price, whole.catalogue.price)


def test_online_retail_without_purchases(tmp_path):
    path = write(tmp_path / "retail.csv", HEADER, LINES["no customer"], LINES["postage"])
    with pytest.raises(
        DataError, match=r"holds no purchase; rows read: 2, .*dropped: no customer: 1, .*dropped: not a product: 1"
    ):
        OnlineRetail(path=str(path)).load()


def test_online_retail_says_where_to_get_it():
    with pytest.raises(DataError, match=r"archive\.ics\.uci\.edu"):
        OnlineRetail(path="nowhere.csv").load()


def test_the_real_online_retail():
    path = SHARED / "online_retail" / "online_retail.csv.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    dataset = OnlineRetail(path=str(path), keep_non_products=True).load()
    assert (steps(dataset)["rows read"], len(dataset.log)) == (459_243, 334_309)
    cutoff = int(pd.Timestamp("2011-10-14T12:50:01", tz="UTC").timestamp()) * 1000
    past, window = dataset.before(cutoff).log, dataset.log.between(cutoff, cutoff + 28 * DAY)
    known = np.isin(window.user, past.user) & (window.item < past.n_items)
    assert len(np.unique(window.user[known])) == 1_083
    assert all(name is not None for name in dataset.catalogue.names())
    no_products = {"POST", "M", "C2", "DOT", "BANK CHARGES", "PADS"}
    assert {code for code in dataset.log.items.ids if not re.match(PRODUCT_CODE, code)} == no_products
