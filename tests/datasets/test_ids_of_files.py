"""Ids as tools write them into files: one customer stays one customer, and what cannot be told apart is refused by row."""

import re
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_files import steps, write

from recsys.datasets.online_retail import OnlineRetail
from recsys.datasets.reading import read
from recsys.datasets.retailrocket import RetailRocket
from recsys.datasets.table import Csv
from recsys.errors import DataError

T0 = 1_780_000_000_000
DAY = 86_400_000
LARGE = 1_515_915_625_441_993_998
COLUMNS = {"user": "user", "item": "item", "time": "time"}


def load(path, **settings):
    return Csv(path=str(path), columns=COLUMNS, **settings).load()


def csv_of(path, *users):
    return write(path, "user,item,time", *(f"{user},a{i},{T0 + i}" for i, user in enumerate(users)))


def parquet_of(path, users, items=None):
    n = len(users)
    items = pa.array(np.arange(n)) if items is None else items
    pq.write_table(pa.table({"user": users, "item": items, "time": np.arange(n) + T0}), path)
    return path


def test_a_number_written_in_two_forms_beside_a_guest_is_one_customer_and_told(tmp_path):
    dataset = load(csv_of(tmp_path / "events.csv", "1015", "1016", "guest-1", "1015.0", "1016.0", "1017.0"))
    assert dataset.log.users.ids.tolist() == ["1015", "1016", "guest-1", "1017"]
    assert steps(dataset)["user: ids written in several forms, such as '1015' and '1015.0'"] == 2
    clean = load(csv_of(tmp_path / "clean.csv", "1015", "1016", "guest-1", "1015", "1016", "1017"))
    assert dataset.fingerprint == clean.fingerprint
    assert not any("several forms" in what for what, _ in clean.funnel.steps)


@pytest.mark.parametrize("blank", [" ", "\t", "\u00a0", "\ufeff", "\u200b", "  \u2009"])
def test_blanks_at_the_ends_make_no_new_customer(tmp_path, blank):
    dataset = load(csv_of(tmp_path / "events.csv", "1015", f"1015{blank}", f"{blank}1016", "1016"))
    assert dataset.log.users.ids.tolist() == [1015, 1016]
    assert sum(n for what, n in dataset.funnel.steps if "several forms" in what) == 2


def test_rows_that_differ_in_the_form_of_the_id_alone_are_exact_duplicates(tmp_path):
    path = write(tmp_path / "events.csv", "user,item,time", f"1015,a,{T0}", f"1015.0,a ,{T0}")
    assert len(load(path).log) == 1


def test_an_id_of_blanks_is_missing(tmp_path):
    with pytest.raises(DataError, match=re.escape("row 3, column 'user': wanted an id, found '  '.")):
        load(csv_of(tmp_path / "events.csv", "1015", "  "))


@pytest.mark.parametrize("cell", ["1.515915625441994e+18", "1.51592E+18", '"1,51592E+18"'])
def test_digits_that_a_spreadsheet_took_are_told_by_row(tmp_path, cell):
    path = csv_of(tmp_path / "events.csv", "1015", cell, "1016")
    expected = f"{path}, row 3, column 'user': wanted an id with all its digits, found '{cell.strip(chr(34))}'."
    with pytest.raises(DataError, match=re.escape(f"{expected} Send ids beyond 2^53 as text.")):
        load(path)
    dataset = load(path, on_bad_row="drop")
    assert dataset.log.users.ids.tolist() == [1015, 1016]
    assert steps(dataset)["dropped: bad user (wanted an id with all its digits)"] == 1


def test_a_float_column_is_whole_numbers_up_to_2_to_the_53(tmp_path):
    small = parquet_of(tmp_path / "small.parquet", pa.array([1015.0, 2.0**53 - 1]))
    assert load(small).log.users.ids.tolist() == [1015, 2**53 - 1]
    large = parquet_of(tmp_path / "large.parquet", pa.array([1015.0, float(LARGE)]))
    with pytest.raises(DataError, match=r"row 2, column 'user': wanted an id with all its digits, found 1\.51.*as text"):
        load(large)


FORMS = {
    "int32": (pa.array([7, 8], pa.int32()), [7, 8]),
    "uint64 beyond int64": (pa.array([2**64 - 1, 8], pa.uint64()), [str(2**64 - 1), "8"]),
    "decimal": (pa.array([Decimal(LARGE), Decimal(8)], pa.decimal128(38, 0)), [LARGE, 8]),
    "decimal with zeros": (pa.array([Decimal("7.00"), Decimal("8.00")], pa.decimal128(9, 2)), [7, 8]),
    "large_string": (pa.array(["7", "8.0"], pa.large_string()), [7, 8]),
    "string_view": (pa.array(["7", "b "], pa.string_view()), ["7", "b"]),
    "dictionary": (pa.array(["7 ", "8"]).dictionary_encode(), [7, 8]),
    "dictionary of numbers": (pa.array([7, 8]).dictionary_encode(), [7, 8]),
    "binary": (pa.array([b"7", b"b"]), ["7", "b"]),
    "long numbers": (pa.array(["1" * 30, "8"]), ["1" * 30, "8"]),
    "uuid": (pa.array([uuid.UUID(int=7).bytes, uuid.UUID(int=8).bytes], pa.uuid()), [str(uuid.UUID(int=n)) for n in (7, 8)]),
    "bytes of a uuid": (pa.array([uuid.UUID(int=7).bytes] * 2, pa.binary(16)), [str(uuid.UUID(int=7))]),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_kind_of_column_that_holds_ids_is_read(tmp_path, name):
    users, expected = FORMS[name]
    assert load(parquet_of(tmp_path / "events.parquet", users)).log.users.ids.tolist() == expected
    assert load(parquet_of(tmp_path / "items.parquet", pa.array([1, 1]), users)).log.items.ids.tolist() == expected


def test_a_nullable_column_of_large_numbers_keeps_their_digits(tmp_path):
    frame = pd.DataFrame({"user": pd.array([LARGE, None, 8], dtype="Int64"), "item": [1, 2, 3], "time": T0 + np.arange(3)})
    frame.to_parquet(tmp_path / "events.parquet")
    with pytest.raises(DataError, match="row 2, column 'user': wanted an id, found nothing"):
        load(tmp_path / "events.parquet")
    assert load(tmp_path / "events.parquet", on_bad_row="drop").log.users.ids.tolist() == [LARGE, 8]


NO_IDS = {
    "list": pa.array([[1, 2], [3]]),
    "struct": pa.array([{"id": 1}, {"id": 2}]),
    "boolean": pa.array([True, False]),
    "date": pa.array([1, 2], pa.date32()),
    "timestamp": pa.array([1, 2], pa.timestamp("us")),
    "time": pa.array([1, 2], pa.time64("us")),
    "duration": pa.array([1, 2], pa.duration("ms")),
    "binary": pa.array([b"\xff", b"\xfe"]),
}


@pytest.mark.parametrize("name", NO_IDS)
def test_a_column_of_something_else_is_refused_in_one_line(tmp_path, name):
    path = parquet_of(tmp_path / "events.parquet", pa.array([1, 2]), NO_IDS[name])
    with pytest.raises(
        DataError, match=re.escape(f"{path}, column 'item': wanted ids (text, numbers or UUIDs), found ")
    ) as error:
        load(path)
    assert str(NO_IDS[name].type).partition("<")[0] in str(error.value)
    assert "\n" not in str(error.value)


def test_a_list_is_no_text_either(tmp_path):
    path = parquet_of(tmp_path / "events.parquet", NO_IDS["list"])
    with pytest.raises(DataError, match="column 'user': wanted text, found list"):
        read(path, ["user"]).texts("user")


def test_times_in_scientific_notation_are_refused_as_ids_are(tmp_path):
    path = write(tmp_path / "events.csv", "user,item,time", f"1,a,{T0}", "1,b,1.78000E+12")
    with pytest.raises(
        DataError, match=re.escape("row 3, column 'time': wanted a time with all its digits, found '1.78000E+12'")
    ):
        load(path)
    assert len(load(path, on_bad_row="drop").log) == 1


def test_retailrocket_s_files_agree_on_an_item_however_each_writes_it(tmp_path):
    write(
        tmp_path / "events.csv",
        "timestamp,visitorid,event,itemid,transactionid",
        f"{T0 + DAY},guest-1,view,5,",
        f"{T0 + DAY},7.0,view,{LARGE},",
        f"{T0 + DAY},7,addtocart,6.0,",
    )
    rows = [f"{T0},5.0,categoryid,21", f"{T0}, 6,790,n2.000", f"{T0},{LARGE},790,n3.000"]
    write(tmp_path / "item_properties_part1.csv", "timestamp,itemid,property,value", *rows)
    write(tmp_path / "category_tree.csv", "categoryid,parentid", f"21,{LARGE}", f"{LARGE},")
    dataset = RetailRocket(path=str(tmp_path)).load()
    assert sorted(dataset.log.users.ids) == ["7", "guest-1"]
    assert sorted(dataset.log.items.ids) == [5, 6, LARGE]
    assert np.sort(dataset.catalogue.price).tolist() == pytest.approx([2, 3, np.nan], nan_ok=True)
    assert dataset.catalogue.tree.category.ids.tolist() == [str(LARGE), "21"]
    assert steps(dataset)["visitorid: ids written in several forms, such as '7.0' and '7'"] == 1


def test_online_retail_s_customers_are_whole_numbers_in_every_form(tmp_path):
    header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
    lines = [
        f"{i},{code},LAMP,1,2010-12-0{i},2.5,{customer},UK"
        for i, (code, customer) in enumerate(
            [("85123A", "17850.0"), ("85123A ", "17850"), ("22423", " 17850"), ("22423", ""), ("22423", LARGE)], start=1
        )
    ]
    log = OnlineRetail(path=str(write(tmp_path / "retail.csv", header, *lines))).load().log
    assert log.users.ids.tolist() == [17850, LARGE]
    assert log.items.ids.tolist() == ["85123A", "22423"]
    assert len(log) == 4
