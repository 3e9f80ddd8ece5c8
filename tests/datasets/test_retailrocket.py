"""RetailRocket's files."""

import gzip
import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from event_files import SHARED, own, steps, write
from logs import BUY, CART, VIEW

from recsys.datasets import Funnel
from recsys.datasets.retailrocket import RetailRocket, from_frames
from recsys.errors import DataError

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
        (30, 5, VIEW, START),
        (30, 5, CART, START + 2 * DAY),
        (4, 6, BUY, START + 3 * DAY),
        (4, 6, BUY, START + 3 * DAY),
    ]
    assert list(dataset.log.items.ids) == [5, 9, 6]
    assert list(dataset.log.item_born) == [START, START + DAY, START + 3 * DAY]
    assert steps(dataset)["rows read"] == 5
    assert steps(dataset)["dropped: exact duplicate rows"] == 1


def test_retailrocket_properties_are_read_as_of_a_time(rocket):
    catalogue = RetailRocket(path=str(rocket)).load().catalogue

    def known(seen):
        return [seen.tree.category.ids[n] for n in seen.category if n >= 0], seen.price[0], seen.available[0]

    assert catalogue._before(START + DAY).price.tolist() == pytest.approx([np.nan], nan_ok=True)
    np.testing.assert_equal(known(catalogue._before(START + DAY + 1)), (["21"], np.float32(15.5), np.float32(np.nan)))
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
    for name in ("owner", "time", "prop", "value"):
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
        ("events.csv", f"{START},,view,5,", "row 7, column 'visitorid': wanted an id, found nothing"),
        ("events.csv", f"{START},1,view,1.5E+17,", "row 7, column 'itemid': wanted an id with all its digits, found '1.5E+17'"),
        (
            "events.csv",
            "soon,1,view,5,",
            "row 7, column 'timestamp': wanted a time in 1990 to 2100 written as 'ms', found 'soon'",
        ),
        ("item_properties_part2.csv", f"{START},,790,n1", "row 5, column 'itemid': wanted an id, found nothing"),
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
    tree = RetailRocket(path=str(SHARED / "retailrocket")).load().catalogue.whole_tree
    assert (len(tree), int((tree.parent < 0).sum())) == (1_669, 25)
