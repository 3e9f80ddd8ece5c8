import gzip
import importlib
import re
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.component import construct
from recsys.datasets import Funnel, attributes
from recsys.datasets.online_retail import PRODUCT_CODE, OnlineRetail
from recsys.datasets.reading import read
from recsys.datasets.retailrocket import RetailRocket, from_frames
from recsys.datasets.table import Csv
from recsys.errors import ConfigError, DataError

SHARED = Path(__file__).parents[2] / "shared" / "data"
CONFIGS = Path(__file__).parents[1] / "conf" / "dataset"
T0 = 1_511_544_070  # 2017-11-24 17:21:10 UTC
KINDS_OF_TAOBAO = {"pv": "view", "cart": "addtocart", "fav": "addtocart", "buy": "transaction"}
COLUMNS = {"user": "uid", "item": "iid", "time": "ts", "event": "ev"}


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def own(dataset):
    """The events under their own ids, in order."""
    log = dataset.log
    return [
        (u, i, int(k), int(t))
        for u, i, k, t in zip(log.users.ids[log.user], log.items.ids[log.item], log.kind, log.time, strict=True)
    ]


def steps(dataset):
    return dict(dataset.funnel.steps)


# Any table


@pytest.fixture
def taobao(tmp_path):
    """A log of another shop: own column names, own event names, seconds, a row twice."""
    return write(
        tmp_path / "log.csv",
        "uid,iid,cat,ev,ts,paid",
        f"7,a1,c1,pv,{T0},",
        f"7,a1,c1,pv,{T0},",
        f"12,b2,c2,cart,{T0 + 60},3.50",
        f"7,b2,c1,buy,{T0 + 120},4",
    )


def csv(path, **settings):
    settings = {"columns": COLUMNS, "time_unit": "s", "events": KINDS_OF_TAOBAO, **settings}
    return Csv(path=str(path), **settings)


EXPECTED = [(7, "a1", 0, T0 * 1000), (12, "b2", 1, T0 * 1000 + 60_000), (7, "b2", 2, T0 * 1000 + 120_000)]


def test_a_table_by_its_column_names(taobao):
    dataset = csv(taobao).load()
    assert own(dataset) == EXPECTED
    assert (dataset.name, dataset.source) == ("log", str(taobao))
    assert dataset.log.users.ids.dtype == np.int64
    assert steps(dataset) == {
        "rows read": 4,
        "dropped: events left out by `events`": 0,
        "dropped: exact duplicate rows": 1,
    }
    assert dataset.summary()["events: addtocart"] == 1


def test_one_answer_from_plain_gzipped_tabbed_parquet_and_headerless_files(taobao, tmp_path):
    text = taobao.read_text()
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "log.tsv").write_text(text.replace(",", "\t"))
    (tmp_path / "log.dat").write_text(text.replace(",", "|"))
    (tmp_path / "marked.csv").write_text("\ufeff" + text)
    frame = pd.read_csv(taobao)
    frame.to_parquet(tmp_path / "log.parquet")
    frame.astype({"uid": float, "ev": "category"}).to_parquet(tmp_path / "other.parquet")
    names, _, rows = text.partition("\n")
    (tmp_path / "rows.csv").write_text(rows)
    whole = csv(taobao).load()
    for source in (
        csv(tmp_path / "log.csv.gz"),
        csv(tmp_path / "log.tsv"),
        csv(tmp_path / "log.dat", separator="|"),
        csv(tmp_path / "marked.csv"),
        csv(tmp_path / "log.parquet"),
        csv(tmp_path / "other.parquet"),
        csv(tmp_path / "rows.csv", header=names.split(",")),
    ):
        dataset = source.load()
        assert own(dataset) == EXPECTED
        assert dataset.fingerprint == whole.fingerprint
        assert steps(dataset) == steps(whole)


@given(st.permutations(range(4)))
def test_row_order_does_not_matter(tmp_path_factory, order):
    rows = [f"7,a,pv,{T0}", f"7,b,buy,{T0}", f"8,a,pv,{T0}", f"8,a,cart,{T0 - 5}"]
    folder = tmp_path_factory.mktemp("orders")
    first = csv(write(folder / "a.csv", "uid,iid,ev,ts", *rows)).load()
    other = csv(write(folder / "b.csv", "uid,iid,ev,ts", *(rows[i] for i in order))).load()
    assert first.fingerprint == other.fingerprint


def test_without_an_event_column_every_row_is_the_default_event(taobao):
    columns = COLUMNS | {"event": None}
    assert set(csv(taobao, columns=columns, events=None).load().log.kind) == {2}
    assert set(csv(taobao, columns=columns, events=None, default_event="view").load().log.kind) == {0}


def test_a_column_called_event_is_read_where_there_is_one(tmp_path):
    columns = {"user": "uid", "item": "item", "time": "ts", "event": "event"}
    settings = {"columns": columns, "events": None}
    with_it = write(tmp_path / "with.csv", "uid,item,ts,event", f"1,a,{T0},view", f"1,a,{T0 + 1},addtocart")
    assert list(csv(with_it, **settings).load().log.kind) == [0, 1]
    mapped = write(tmp_path / "mapped.csv", "uid,item,ts,event", f"1,a,{T0},pv", f"1,a,{T0 + 1},buy")
    assert list(csv(mapped, columns=columns, events={"pv": "view", "buy": "transaction"}).load().log.kind) == [0, 2]
    without = write(tmp_path / "without.csv", "uid,item,ts", f"1,a,{T0}")
    assert list(csv(without, **settings).load().log.kind) == [2]


def test_a_map_of_events_wants_the_column_that_it_maps(taobao, tmp_path):
    without = write(tmp_path / "without.csv", "uid,iid,ts", f"1,a,{T0}")
    with pytest.raises(DataError, match="has no column 'event'"):
        csv(without, columns=COLUMNS | {"event": "event"}).load()
    with pytest.raises(ConfigError, match=r"dataset\.columns\.event: wanted the column"):
        csv(taobao, columns=COLUMNS | {"event": None})


def test_an_event_mapped_to_null_is_left_out_and_counted(taobao):
    dataset = csv(taobao, events=KINDS_OF_TAOBAO | {"pv": None}).load()
    assert own(dataset) == EXPECTED[1:]
    assert steps(dataset)["dropped: events left out by `events`"] == 2


def test_events_may_be_numbers(tmp_path):
    path = write(tmp_path / "log.csv", "uid,iid,ev,ts", f"1,1,0,{T0}", f"1,1,2,{T0}")
    assert list(csv(path, events={0: "view", 2: "transaction"}).load().log.kind) == [0, 2]


def test_duplicates_may_be_kept(taobao):
    assert len(csv(taobao, drop_duplicates=False).load().log) == 4


def test_attributes_of_rows_become_properties_as_of_their_time(taobao):
    catalogue = csv(taobao, columns=COLUMNS | {"category": "cat", "price": "paid", "name": "iid"}).load().catalogue

    def known(seen):
        categories = [None if n < 0 else seen.tree.category.ids[n] for n in seen.category]
        return categories, np.nan_to_num(seen.price).tolist(), seen.names().tolist()

    start = T0 * 1000
    assert known(catalogue.before(start)) == ([], [], [])
    assert known(catalogue.before(start + 1)) == (["c1"], [0], ["a1"])
    assert known(catalogue.before(start + 60_001)) == (["c1", "c2"], [0, 3.5], ["a1", "b2"])
    assert known(catalogue) == (["c1", "c1"], [0, 4], ["a1", "b2"])


def test_only_changes_of_an_attribute_are_kept():
    items, time = np.array([1, 1, 1, 1, 2, 1]), np.array([3, 1, 2, 4, 5, 5])
    price = np.array(["9", "8", None, "9", "9", "8"], dtype=object)
    changes = attributes.changes(items, time, {"price": price})
    assert changes.to_numpy().tolist() == [
        [1, 1, "price", "8"],
        [1, 3, "price", "9"],
        [1, 5, "price", "8"],
        [2, 5, "price", "9"],
    ]


def test_numbers_have_one_text():
    assert attributes.number_texts(np.array([2.5, 3, np.nan, 0.1])).tolist() == ["2.5", "3", None, "0.1"]


@pytest.mark.parametrize(
    ("texts", "ids"),
    [
        (["7", "12"], [7, 12]),
        (["17850.0", "12"], [17850, 12]),
        (["007", "7"], ["007", "7"]),
        (["7", "x"], ["7", "x"]),
        (["-1", "0"], [-1, 0]),
        (["7.5", "8"], ["7.5", "8"]),
        (["9223372036854775807", "1"], [2**63 - 1, 1]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"]),
    ],
)
def test_ids_are_integers_when_all_are_written_as_such(tmp_path, texts, ids):
    table = read(write(tmp_path / "ids.csv", "id,x", *(f"{text},1" for text in texts)), ["id"])
    assert table.ids("id").tolist() == ids


@pytest.mark.parametrize(
    ("unit", "cell"),
    [
        ("s", f"{T0}"),
        ("s", f"{T0}.0"),
        ("ms", f"{T0}000"),
        ("us", f"{T0}000000"),
        ("ns", f"{T0}000000999"),
        ("iso", "2017-11-24 17:21:10"),
        ("iso", "2017-11-24T18:21:10+01:00"),
        ("%d/%m/%Y %H:%M:%S", "24/11/2017 17:21:10"),
    ],
)
def test_times_of_every_unit_are_utc_milliseconds(tmp_path, unit, cell):
    table = read(write(tmp_path / "times.csv", "ts", cell), ["ts"])
    assert table.times("ts", unit).tolist() == [T0 * 1000]


def test_fractions_of_seconds_are_kept(tmp_path):
    table = read(write(tmp_path / "times.csv", "ts", f"{T0}.25", f"{T0}"), ["ts"])
    assert table.times("ts", "s").tolist() == [T0 * 1000 + 250, T0 * 1000]


def test_a_parquet_column_of_nulls_is_missing(tmp_path):
    pd.DataFrame({"id": [1, 2], "none": [None, None]}).to_parquet(tmp_path / "nulls.parquet")
    table = read(tmp_path / "nulls.parquet", ["none"])
    assert table.texts("none").tolist() == [None, None]
    assert np.isnan(table.numbers("none")).all()
    with pytest.raises(DataError, match="row 1, column 'none': wanted an id, found nothing"):
        table.ids("none")


@pytest.mark.parametrize("zone", [None, "Asia/Shanghai"])
def test_timestamps_of_parquet_need_no_unit(tmp_path, zone):
    when = pd.Series([pd.Timestamp(T0, unit="s", tz="UTC")])
    when = when.dt.tz_convert(zone) if zone else when.dt.tz_localize(None)
    pd.DataFrame({"ts": when}).to_parquet(tmp_path / "times.parquet")
    assert read(tmp_path / "times.parquet", ["ts"]).times("ts", "ms").tolist() == [T0 * 1000]


@pytest.mark.parametrize(
    ("unit", "cell", "fits"),
    [
        ("ms", T0, "s"),
        ("s", T0 * 1000, "ms"),
        ("s", T0 * 10**9, "ns"),
        ("ms", T0 * 10**6, "us"),
        ("iso", T0, "s"),
        ("ms", "2017-11-24", "iso"),
    ],
)
def test_a_wrong_time_unit_is_told_with_the_one_that_fits(tmp_path, unit, cell, fits):
    path = write(tmp_path / "log.csv", "uid,iid,ev,ts", *[f"1,1,pv,{cell}"] * 3)
    for on_bad_row in ("error", "drop"):
        with pytest.raises(
            DataError, match=re.escape(f"row 2, column 'ts': wanted a time in 1990 to 2100 written as '{unit}'")
        ) as e:
            csv(path, time_unit=unit, on_bad_row=on_bad_row).load()
        assert f"The column reads well as '{fits}' (`time_unit`)" in str(e.value)


BAD_ROWS = {
    "missing user": (",a,pv,{t}", "column 'uid': wanted an id, found nothing"),
    "missing item": ("1,,pv,{t}", "column 'iid': wanted an id, found nothing"),
    "missing event": ("1,a,,{t}", "column 'ev': wanted an event, found nothing"),
    "missing time": ("1,a,pv,", "column 'ts': wanted a time in 1990 to 2100 written as 's', found nothing"),
    "unreadable time": ("1,a,pv,noon", "column 'ts': wanted a time in 1990 to 2100 written as 's', found 'noon'"),
    "time before 1990": ("1,a,pv,-5", "column 'ts': wanted a time in 1990 to 2100 written as 's', found '-5'"),
    "time beyond int64": ("1,a,pv,99999999999999999999", "wanted a time in 1990 to 2100"),
    "unreadable price": ("1,a,pv,{t},dear", "column 'paid': wanted a number, found 'dear'"),
    "infinite price": ("1,a,pv,{t},inf", "column 'paid': wanted a number, found 'inf'"),
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_or_dropped_and_counted(tmp_path, row, message):
    bad = row.format(t=T0)
    bad += "," * (4 - bad.count(","))
    good = [f"{user},a,pv,{T0 + user},1.5" for user in (1, 2, 3)]
    path = write(tmp_path / "log.csv", "uid,iid,ev,ts,paid", good[0], bad, *good[1:])
    columns = COLUMNS | {"price": "paid"}
    with pytest.raises(DataError, match=re.escape(f"{path}, row 3, ")) as error:
        csv(path, columns=columns).load()
    assert message in str(error.value)
    dataset = csv(path, columns=columns, on_bad_row="drop").load()
    assert sum(n for what, n in dataset.funnel.steps if what.startswith("dropped: bad")) == 1
    assert dataset.fingerprint == csv(write(tmp_path / "good.csv", "uid,iid,ev,ts", *(g[:-4] for g in good))).load().fingerprint


def test_a_row_with_two_faults_is_counted_once(tmp_path):
    path = write(tmp_path / "log.csv", "uid,iid,ev,ts", ",,pv,", f"1,a,pv,{T0}", f"2,,pv,{T0}")
    dataset = csv(path, on_bad_row="drop").load()
    assert steps(dataset)["dropped: bad uid (wanted an id)"] == 1
    assert steps(dataset)["dropped: bad iid (wanted an id)"] == 1
    assert len(dataset.log) == 1


def test_rows_without_a_header_are_counted_from_one(tmp_path):
    path = write(tmp_path / "log.csv", f"1,a,pv,{T0}", f",a,pv,{T0}")
    with pytest.raises(DataError, match="row 2, column 'uid'"):
        csv(path, header=["uid", "iid", "ev", "ts"]).load()


@pytest.mark.parametrize("on_bad_row", ["error", "drop"])
def test_an_unknown_event_is_told_with_the_nearest(tmp_path, on_bad_row):
    path = write(tmp_path / "log.csv", "uid,iid,ev,ts", f"1,a,pv,{T0}", f"1,a,crt,{T0}")
    with pytest.raises(DataError, match=r"row 3, column 'ev': .* found 'crt'\. Did you mean 'cart'") as error:
        csv(path, on_bad_row=on_bad_row).load()
    assert "`events`" in str(error.value)


def test_a_wrong_column_is_told_with_those_found_and_the_nearest(taobao):
    with pytest.raises(DataError, match=r"no column 'uidd'; it has uid, iid, cat, ev, ts, paid\. Did you mean 'uid'"):
        csv(taobao, columns=COLUMNS | {"user": "uidd"}).load()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "does not exist"),
        ("empty.csv", b"", "cannot be read: Empty CSV file"),
        ("header.csv", b"uid,iid,ev,ts\n", "has no rows"),
        ("short.csv", b"uid,iid,ev,ts\n1,2,pv,1511544070\n1,2\n", "Row #3: Expected 4 columns, got 2"),
        ("twice.csv", b"uid,uid,iid,ev,ts\n1,1,2,pv,1511544070\n", "more than one column 'uid'"),
        ("latin.csv", b"uid,iid,ev,ts\n1,\xe9,pv,1511544070\n", "invalid UTF8"),
        ("plain.csv.gz", b"uid,iid,ev,ts\n1,2,pv,1511544070\n", "cannot be read"),
        ("plain.parquet", b"uid,iid,ev,ts\n1,2,pv,1511544070\n", "cannot be read"),
        ("log.xlsx", b"", "wanted a .csv, .tsv (plain or .gz) or .parquet file"),
        ("ignored.csv", b"uid,iid,ev,ts\n1,2,like,1511544070\n", "holds no event to keep; rows read: 1"),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_clear_error(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)) as error:
        csv(tmp_path / name, events=KINDS_OF_TAOBAO | {"like": None}).load()
    assert str(tmp_path / name) in str(error.value)


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        csv(tmp_path).load()


@pytest.mark.parametrize(
    "settings",
    [
        {"columns": {"user": "uid", "item": "iid"}},
        {"columns": COLUMNS | {"visitor": "uid"}},
        {"time_unit": "seconds"},
        {"events": {"pv": "look"}},
        {"separater": ","},
        {"separator": "::"},
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        csv("log.csv", **settings)


def test_text_with_commas_quotes_and_line_breaks(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(f'uid,iid,ts,title\nu,"a,1",{T0},"12"" ruler,\nred"\n')
    dataset = csv(path, columns={"user": "uid", "item": "iid", "time": "ts", "name": "title"}, events=None).load()
    assert list(dataset.log.items.ids) == ["a,1"]
    assert list(dataset.catalogue.names()) == ['12" ruler,\nred']


# RetailRocket

DAY = 86_400_000
START = 1_430_622_004_384


@pytest.fixture
def rocket(tmp_path):
    """Four events of which one is twice, three changes of item 5, and item 9 that no one has touched."""
    write(
        tmp_path / "events.csv",
        "timestamp,visitorid,event,itemid,transactionid",
        f"{START},30,view,5,",
        f"{START},30,view,5,",
        f"{START + 2 * DAY},30,addtocart,5,",
        f"{START + 3 * DAY},4,transaction,6,17",
        f"{START + 3 * DAY},4,transaction,6,18",
    )
    write(
        tmp_path / "item_properties_part1.csv",
        "timestamp,itemid,property,value",
        f"{START + DAY},5,categoryid,21",
        f"{START + DAY},5,790,n15.500",
        f"{START + DAY},5,888,n3.000 991",
        f"{START + DAY},9,available,0",
    )
    write(
        tmp_path / "item_properties_part2.csv",
        "timestamp,itemid,property,value",
        f"{START + 3 * DAY},5,790,n12.000",
        f"{START + 3 * DAY},5,categoryid,22",
        f"{START + 3 * DAY},5,available,1",
    )
    write(tmp_path / "category_tree.csv", "categoryid,parentid", "21,3", "22,3", "3,")
    return tmp_path


def test_retailrocket(rocket):
    dataset = RetailRocket(path=str(rocket)).load()
    assert own(dataset) == [
        (30, 5, 0, START),
        (30, 5, 1, START + 2 * DAY),
        (4, 6, 2, START + 3 * DAY),
        (4, 6, 2, START + 3 * DAY),
    ]
    assert list(dataset.log.items.ids) == [5, 9, 6]
    assert list(dataset.log.item_born) == [START, START + DAY, START + 3 * DAY]
    assert steps(dataset)["rows read"] == 5
    assert steps(dataset)["dropped: exact duplicate rows"] == 1


def test_retailrocket_properties_are_read_as_of_a_time(rocket):
    catalogue = RetailRocket(path=str(rocket)).load().catalogue

    def known(seen):
        return [seen.tree.category.ids[n] for n in seen.category if n >= 0], seen.price[0], seen.available[0]

    assert catalogue.before(START + DAY).price.tolist() == pytest.approx([np.nan], nan_ok=True)
    np.testing.assert_equal(known(catalogue.before(START + DAY + 1)), (["21"], np.float32(15.5), np.float32(np.nan)))
    np.testing.assert_equal(known(catalogue), (["22"], np.float32(12), np.float32(1)))
    assert catalogue.tree.category.ids[catalogue.tree.parent_of(catalogue.category)[0]] == "3"
    assert catalogue.available[1] == 0


def test_retailrocket_reads_the_properties_it_is_asked_for(rocket):
    known, every, none = (RetailRocket(path=str(rocket), properties=p).load() for p in ("known", "all", "none"))
    assert set(known.catalogue.properties.ids) == {"categoryid", "790", "available"}
    assert set(every.catalogue.properties.ids) == {"categoryid", "790", "available", "888"}
    assert every.catalogue.texts.ids[every.catalogue.latest("888")[0]] == "n3.000 991"
    assert (len(known.catalogue), len(every.catalogue), len(none.catalogue)) == (6, 7, 0)
    assert list(none.log.items.ids) == [5, 6]
    assert steps(known)["item_properties_part1.csv: rows read"] == 4
    assert steps(known)["item_properties_part1.csv: rows of properties that are not read"] == 1
    np.testing.assert_array_equal(known.catalogue.price, every.catalogue.price)


def test_retailrocket_without_a_property_that_is_known(rocket):
    for part in (1, 2):
        write(rocket / f"item_properties_part{part}.csv", "timestamp,itemid,property,value", f"{START},5,888,n3.000")
    assert len(RetailRocket(path=str(rocket)).load().catalogue) == 0


def test_retailrocket_gzipped(rocket, tmp_path_factory):
    packed = tmp_path_factory.mktemp("packed")
    for path in rocket.iterdir():
        (packed / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    plain, unpacked = (RetailRocket(path=str(folder)).load() for folder in (rocket, packed))
    assert plain.fingerprint == unpacked.fingerprint
    np.testing.assert_array_equal(plain.catalogue.price, unpacked.catalogue.price)
    np.testing.assert_array_equal(plain.catalogue.category, unpacked.catalogue.category)


def test_retailrocket_with_events_alone(rocket):
    for name in ("item_properties_part1.csv", "item_properties_part2.csv", "category_tree.csv"):
        (rocket / name).unlink()
    dataset = RetailRocket(path=str(rocket)).load()
    assert len(dataset.log) == 4
    assert len(dataset.catalogue) == len(dataset.catalogue.tree) == 0
    assert list(dataset.catalogue.category) == [-1, -1]


def test_frames_in_memory_give_what_the_files_give(rocket):
    frames = [pd.read_csv(rocket / name) for name in ("events.csv", "category_tree.csv")]
    parts = [pd.read_csv(rocket / f"item_properties_part{i}.csv", dtype={"value": str}) for i in (1, 2)]
    events, tree, properties = *frames, pd.concat(parts)
    made = from_frames(events, properties, tree, name="made", source="memory", funnel=Funnel())
    read = RetailRocket(path=str(rocket), properties="all").load()
    assert made.fingerprint == read.fingerprint
    assert (made.name, made.source) == ("made", "memory")
    for name in ("item", "time", "prop", "value"):
        np.testing.assert_array_equal(getattr(made.catalogue, name), getattr(read.catalogue, name), err_msg=name)
    np.testing.assert_array_equal(made.catalogue.category, read.catalogue.category)


def test_a_property_without_a_value_is_dropped(rocket):
    with (rocket / "item_properties_part2.csv").open("a") as file:
        file.write(f"{START + 4 * DAY},5,790,\n")
    dataset = RetailRocket(path=str(rocket)).load()
    assert steps(dataset)["dropped: item properties without a value"] == 1
    assert dataset.catalogue.price[0] == 12


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("events.csv", f"{START},1,veiw,5,", "row 7, column 'event': wanted one of view, addtocart, transaction, found 'veiw'"),
        ("events.csv", f"{START},one,view,5,", "row 7, column 'visitorid': wanted a whole number, found 'one'"),
        ("events.csv", f"{START},,view,5,", "row 7, column 'visitorid': wanted a whole number, found nothing"),
        (
            "events.csv",
            "soon,1,view,5,",
            "row 7, column 'timestamp': wanted a time in 1990 to 2100 written as 'ms', found 'soon'",
        ),
        ("item_properties_part2.csv", f"{START},x,790,n1", "row 5, column 'itemid': wanted a whole number, found 'x'"),
        ("category_tree.csv", "21,", "'21' has more than one row"),
        ("category_tree.csv", "4,5\n5,4", "'4' is its own ancestor"),
    ],
)
def test_retailrocket_names_the_bad_cell(rocket, name, line, message):
    with (rocket / name).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=re.escape(message)):
        RetailRocket(path=str(rocket)).load()


@pytest.mark.parametrize("path", [None, "nowhere", "."])
def test_retailrocket_says_where_to_get_it(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"kaggle\.com/datasets/retailrocket/ecommerce-dataset.*pip install kagglehub"):
        RetailRocket(path=path).load()


def test_retailrocket_downloads_through_kagglehub(rocket, monkeypatch):
    asked = []
    kagglehub = SimpleNamespace(dataset_download=lambda name: asked.append(name) or str(rocket), __spec__=object())
    monkeypatch.setitem(sys.modules, "kagglehub", kagglehub)
    assert len(RetailRocket(download=True).load().log) == 4
    assert asked == ["retailrocket/ecommerce-dataset"]


def test_downloading_without_kagglehub_says_what_to_install(monkeypatch):
    monkeypatch.setattr("recsys.datasets.retailrocket.find_spec", lambda name: None)
    with pytest.raises(Exception, match="pip install kagglehub"):
        RetailRocket(download=True).load()


@pytest.mark.parametrize(
    ("folder", "read", "events", "kinds"),
    [
        ("retailrocket", 79_264, 79_264, [61_559, 10_053, 7_652]),
        ("retailrocket_raw_sample", 9_385, 9_382, [9_075, 261, 46]),
    ],
)
def test_the_real_retailrocket(folder, read, events, kinds):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"{SHARED / folder} is not here")
    dataset = RetailRocket(path=str(SHARED / folder)).load()
    assert steps(dataset)["rows read"] == read
    assert len(dataset.log) == events
    assert np.bincount(dataset.log.kind).tolist() == kinds


def test_the_real_category_tree():
    if not (SHARED / "retailrocket").is_dir():
        pytest.skip(f"{SHARED / 'retailrocket'} is not here")
    tree = RetailRocket(path=str(SHARED / "retailrocket")).load().catalogue.tree
    assert (len(tree), int((tree.parent < 0).sum())) == (1_669, 25)


# Online Retail

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
        (17850, "22423", 2),
        (12583, "85123A", 2),
        (12583, "DCGSSBOY", 2),
        (12583, "22423", 2),
        (12583, "22423", 2),
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
    assert catalogue.before(first).n_items == 0
    early = catalogue.before(renamed)
    assert (early.names()[0], early.price[0]) == ("CAKESTAND, 3 TIER", np.float32(12.75))
    assert (catalogue.names()[0], catalogue.price[0]) == ("REGENCY CAKESTAND", np.float32(10.95))


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
    past, window = dataset.log.before(cutoff), dataset.log.between(cutoff, cutoff + 28 * DAY)
    known = np.isin(window.user, past.user) & (window.item < past.n_items)
    assert len(np.unique(window.user[known])) == 1_083
    assert all(name is not None for name in dataset.catalogue.names())
    no_products = {"POST", "M", "C2", "DOT", "BANK CHARGES", "PADS"}
    assert {code for code in dataset.log.items.ids if not re.match(PRODUCT_CODE, code)} == no_products


# Settings


@pytest.mark.parametrize("source", [RetailRocket(path="x"), OnlineRetail(path="x"), csv("x", header=["a"])])
def test_a_source_is_made_again_from_its_settings(source):
    assert construct(source.settings()).settings() == source.settings()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_lists_every_option(path):
    config = yaml.safe_load(path.read_text())
    module, _, name = config.pop("_target_").rpartition(".")
    options = fields(getattr(importlib.import_module(module), name))
    assert set(config) == {field.name for field in options if field.init}
