"""Any table of events by the names of its columns."""

import gzip
import re

import numpy as np
import pandas as pd
import pytest
from event_files import own, steps, write
from hypothesis import given
from hypothesis import strategies as st
from logs import BUY, CART, VIEW, kinds_of
from pydantic import ValidationError

from recsys.datasets import _attributes as attributes
from recsys.datasets.reading import read
from recsys.datasets.table import Csv
from recsys.errors import ConfigError, DataError

T0 = 1_511_544_070  # 2017-11-24 17:21:10 UTC
KINDS_OF_TAOBAO = {"pv": "view", "cart": "addtocart", "fav": "addtocart", "buy": "transaction"}
COLUMNS = {"user": "uid", "item": "iid", "time": "ts", "event": "ev"}


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


EXPECTED = [(7, "a1", VIEW, T0 * 1000), (12, "b2", CART, T0 * 1000 + 60_000), (7, "b2", BUY, T0 * 1000 + 120_000)]


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
    assert set(kinds_of(csv(taobao, columns=columns, events=None).load().log)) == {BUY}
    assert set(kinds_of(csv(taobao, columns=columns, events=None, default_event="view").load().log)) == {VIEW}


def test_a_column_called_event_is_read_where_there_is_one(tmp_path):
    columns = {"user": "uid", "item": "item", "time": "ts", "event": "event"}
    settings = {"columns": columns, "events": None}
    with_it = write(tmp_path / "with.csv", "uid,item,ts,event", f"1,a,{T0},view", f"1,a,{T0 + 1},addtocart")
    assert kinds_of(csv(with_it, **settings).load().log) == [VIEW, CART]
    mapped = write(tmp_path / "mapped.csv", "uid,item,ts,event", f"1,a,{T0},pv", f"1,a,{T0 + 1},buy")
    assert kinds_of(csv(mapped, columns=columns, events={"pv": "view", "buy": "transaction"}).load().log) == [VIEW, BUY]
    without = write(tmp_path / "without.csv", "uid,item,ts", f"1,a,{T0}")
    assert kinds_of(csv(without, **settings).load().log) == [BUY]


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
    assert kinds_of(csv(path, events={0: "view", 2: "transaction"}).load().log) == [VIEW, BUY]


def test_duplicates_may_be_kept(taobao):
    assert len(csv(taobao, drop_duplicates=False).load().log) == 4


def test_attributes_of_rows_become_properties_as_of_their_time(taobao):
    catalogue = csv(taobao, columns=COLUMNS | {"category": "cat", "price": "paid", "name": "iid"}).load().catalogue

    def known(seen):
        categories = [None if n < 0 else seen.tree.category.ids[n] for n in seen.category]
        return categories, np.nan_to_num(seen.price).tolist(), seen.names().tolist()

    start = T0 * 1000
    assert known(catalogue._before(start)) == ([], [], [])
    assert known(catalogue._before(start + 1)) == (["c1"], [0], ["a1"])
    assert known(catalogue._before(start + 60_001)) == (["c1", "c2"], [0, 3.5], ["a1", "b2"])
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
    same = csv(write(tmp_path / "good.csv", "uid,iid,ev,ts", *(g[:-4] for g in good))).load()
    assert dataset.log.fingerprint == same.log.fingerprint


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
        {"separater": ","},
        {"separator": "::"},
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        csv("log.csv", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"events": {"pv": "look"}},
            "dataset.events.pv: expected a kind of event, got 'look'. Known: addtocart, transaction, v",
        ),
        ({"default_event": "veiw"}, "dataset.default_event: expected a kind of event, got 'veiw'. Did you mean 'view'?"),
        ({"kinds": {"view": None}, "events": None}, "dataset.kinds.view.role: expected view, as it is called, got none"),
    ],
)
def test_a_kind_that_is_not_declared_is_refused_unread(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        csv("log.csv", **settings)


def test_kinds_of_the_shops_own(tmp_path):
    kinds = {"look": {"role": "view"}, "wish": None, "buy": {"role": "purchase"}, "back": {"undoes": "buy"}}
    rows = (f"1,a,{event},{T0 + i}" for i, event in enumerate(("look", "wish", "buy", "back")))
    dataset = csv(write(tmp_path / "log.csv", "uid,iid,ev,ts", *rows), kinds=kinds, events=None).load()
    assert kinds_of(dataset.log) == ["look", "wish", "buy", "back"]
    assert kinds_of(dataset.before((T0 + 4) * 1000).log) == ["look", "wish", "back"]
    assert dataset.summary()["events: wish"] == 1
    plain = csv(
        write(tmp_path / "plain.csv", "uid,iid,ts", f"1,a,{T0}"), columns=COLUMNS | {"event": None}, kinds=kinds, events=None
    )
    assert kinds_of(plain.load().log) == ["buy"], "the strongest that takes nothing back"


def test_text_with_commas_quotes_and_line_breaks(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(f'uid,iid,ts,title\nu,"a,1",{T0},"12"" ruler,\nred"\n')
    dataset = csv(path, columns={"user": "uid", "item": "iid", "time": "ts", "name": "title"}, events=None).load()
    assert list(dataset.log.items.ids) == ["a,1"]
    assert list(dataset.catalogue.names()) == ['12" ruler,\nred']
