"""The one rule for ids: what is one id, what is none, and that arrays and single values agree on it."""

import datetime
from decimal import Decimal
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recsys.shop import identity
from recsys.shop.events import EventLog
from recsys.shop.identity import Vocabulary, as_ids, canonical, canonical_texts

LARGE = 1_515_915_625_441_993_998
A_UUID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"

ONE_ID = {
    "1015": [
        "1015",
        "1015.0",
        "1015.",
        "1015.00",
        " 1015 ",
        "1015\t",
        "\ufeff1015",
        "1015\u00a0",
        "\u200b1015\r\n",
        1015,
        1015.0,
    ],
    str(LARGE): [LARGE, str(LARGE), f"{LARGE}.0", np.int64(LARGE), Decimal(LARGE)],
    str(2**64 - 1): [2**64 - 1, np.uint64(2**64 - 1), str(2**64 - 1)],
    "1" * 40: ["1" * 40, int("1" * 40), Decimal("1" * 40)],
    "-7": [-7, "-7", "-7.0", np.float32(-7)],
    "0": [0, "0", "-0", "-0.0", -0.0],
    "1.5": [1.5, "1.5", Decimal("1.50"), np.float32(1.5)],
    A_UUID: [A_UUID, A_UUID.upper(), f" {A_UUID}", UUID(A_UUID)],
    "café": ["café", "cafe\u0301", "café ", "café".encode()],
}
TEXTS_OF_THEIR_OWN = ["017", "+17", "1e3", "1,015", "1 015", "٣", "guest-1", "1E+12", "0x11", "a1015.0", "--1", "1..0", "17.05"]
NO_ID = [None, float("nan"), np.nan, pd.NA, pd.NaT, "", "  ", "\ufeff", "NaN", "nan ", "NULL", "null", Decimal("NaN")]
FLOATS_WITHOUT_THEIR_DIGITS = [2.0**53, float(LARGE), -(2.0**60), float("inf"), np.float32(2**24)]
TEXTS_WITHOUT_THEIR_DIGITS = ["1.515915625441994e+18", "1.78000E+12", " 1,78E+12 ", "-1.5e+17"]
NOTHING_LIKE_AN_ID = [True, np.True_, [1], {"id": 1}, b"\xff", "\ud800", 1j, Decimal("Infinity"), datetime.date(2026, 1, 1)]


@pytest.mark.parametrize("text", ONE_ID)
def test_one_id_has_one_canonical_form(text: str):
    assert {canonical(form) for form in ONE_ID[text]} == {text}


@pytest.mark.parametrize("text", TEXTS_OF_THEIR_OWN)
def test_what_only_looks_like_a_number_is_text_of_its_own(text: str):
    assert canonical(text) == text


@pytest.mark.parametrize("value", NO_ID, ids=repr)
def test_a_missing_value_is_no_id(value: object):
    assert canonical(value) is None


@pytest.mark.parametrize("value", FLOATS_WITHOUT_THEIR_DIGITS + TEXTS_WITHOUT_THEIR_DIGITS, ids=repr)
def test_what_may_have_lost_digits_is_refused_with_what_to_do(value: object):
    with pytest.raises(ValueError, match=r"wanted an id with all its digits, found .*\. Send ids beyond 2\^53 as text\."):
        canonical(value)


@pytest.mark.parametrize("value", NOTHING_LIKE_AN_ID, ids=repr)
def test_what_is_no_id_is_refused(value: object):
    with pytest.raises(ValueError, match="wanted an id"):
        canonical(value)


pieces = st.sampled_from([*"0123456789.-+eE, \t\u00a0\u200b\ufeff\u0301aZ", "NaN", "null", ".0", ".00", A_UUID, A_UUID.upper()])
texts = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.lists(pieces, max_size=8).map("".join))
floats = st.one_of(st.floats(), st.integers(-(2**54), 2**54).map(float))
COLUMNS = {
    "text": (texts, pa.string()),
    "large text": (texts, pa.large_string()),
    "int64": (st.integers(-(2**63), 2**63 - 1), pa.int64()),
    "uint64": (st.integers(0, 2**64 - 1), pa.uint64()),
    "float64": (floats, pa.float64()),
    "decimal": (st.decimals(-(10**20), 10**20, places=3), pa.decimal128(24, 3)),
    "binary": (texts.map(str.encode), pa.binary()),
    "coded": (texts, pa.dictionary(pa.int32(), pa.string())),
}


def one_by_one(values: list[object]) -> list[tuple[str | None, bool]]:
    found = []
    for value in values:
        try:
            found.append((canonical(value), False))
        except ValueError:
            found.append((None, True))
    return found


@pytest.mark.parametrize("name", COLUMNS)
@given(data=st.data())
def test_a_column_and_its_single_values_agree(name: str, data: st.DataObject):
    values, kind = COLUMNS[name]
    column = data.draw(st.lists(st.one_of(st.none(), values), max_size=12))
    forms, lost = canonical_texts(pa.array(column, kind))
    assert list(zip(forms.to_pylist(), lost.tolist(), strict=True)) == one_by_one(column)


@given(st.lists(st.floats(width=32), max_size=8))
def test_a_float32_column_and_its_single_values_agree(values: list[float]):
    column = np.array(values, dtype=np.float32)
    forms, lost = canonical_texts(pa.array(column))
    assert list(zip(forms.to_pylist(), lost.tolist(), strict=True)) == one_by_one(list(column))


@given(st.lists(st.one_of(st.none(), st.uuids()), max_size=5), st.integers(0, 3))
def test_uuids_of_every_kind_of_column_are_their_text(values: list[UUID | None], start: int):
    raw = [value and value.bytes for value in values]
    expected = [value and str(value) for value in values][start:]
    for column in (pa.array(raw, pa.binary(16)), pa.array(raw, pa.uuid())):
        assert canonical_texts(column[start:])[0].to_pylist() == expected
    assert canonical_texts(pa.array(expected, pa.string()))[0].to_pylist() == expected


@given(texts)
@example("\u1fef1\u200b\u0301")
def test_a_canonical_form_is_its_own_canonical_form(text: str):
    for form, refused in one_by_one([text]):
        assert refused or canonical(form) == form


@given(st.floats())
def test_the_text_of_a_float_is_the_same_id(value: float):
    ((form, refused),) = one_by_one([value])
    assert refused or canonical(form) == form


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1]]),
        pa.array([{"id": 1}]),
        pa.array([True]),
        pa.array([1], pa.date32()),
        pa.array([1], pa.timestamp("ms")),
        pa.array([1], pa.time32("s")),
        pa.array([1], pa.duration("s")),
        pa.array([b"\xff"]),
        pa.array([b"\xff\xff"], pa.binary(2)),
    ],
    ids=lambda column: str(column.type),
)
def test_a_column_that_holds_no_ids_is_refused_by_its_type(column: pa.Array):
    with pytest.raises(ValueError, match="wanted ids") as error:
        canonical_texts(column)
    assert str(column.type) in str(error.value)


def test_fixed_size_binary_of_another_length_is_text():
    assert canonical_texts(pa.array([b"1015\0\0\0\0", b"guest-01"], pa.binary(8)))[0].to_pylist() == ["1015", "guest-01"]


def test_ids_are_whole_numbers_only_where_all_of_them_fit():
    def held(*values: str) -> tuple[str, list[object]]:
        ids = as_ids(pa.array(values, pa.large_string()))
        return ids.dtype.kind, ids.tolist()

    assert held("7", "-12") == ("i", [7, -12])
    assert held(str(2**63 - 1)) == ("i", [2**63 - 1])
    assert held(str(2**63), "1") == ("O", [str(2**63), "1"])
    assert held("017", "7") == ("O", ["017", "7"])


known = st.lists(st.integers(-20, 20), min_size=1, unique=True)
asked = st.one_of(st.integers(-20, 20), st.floats(-20, 20), st.none(), st.integers(-20, 20).map(lambda n: f" {n}.0"), texts)


@given(known, st.lists(asked, max_size=6))
def test_numbers_do_not_depend_on_how_ids_are_held(ids: list[int], wanted: list[object]):
    if any(refused for _, refused in one_by_one(wanted)):
        return
    as_numbers, as_texts = Vocabulary(np.array(ids)), Vocabulary(np.array([str(i) for i in ids], dtype=object))
    expected = [ids.index(int(form)) if (form := canonical(value)) in map(str, ids) else -1 for value in wanted]
    assert as_numbers.numbers(wanted).tolist() == as_texts.numbers(wanted).tolist() == expected


@pytest.mark.parametrize("held", [np.int64, object])
def test_a_vocabulary_knows_an_id_in_every_form(held: type):
    ids = [1015, LARGE] if held is np.int64 else ["1015", str(LARGE)]
    vocabulary = Vocabulary(np.array(ids, dtype=held))
    for form in ONE_ID["1015"]:
        assert vocabulary.numbers([form, str(LARGE)]).tolist() == [0, 1], form
    for column in (
        np.array([1015.0, 7]),
        np.array(["1015.0", "7"]),
        np.array(["1015 ", None], dtype=object),
        np.array([1015, "x"], dtype=object),
        np.array([1015, 2**64 - 1], dtype=np.uint64),
        pd.array([1015, None], dtype="Int64"),
        pd.Series(["1015", None]),
    ):
        assert vocabulary.numbers(column).tolist() == [0, -1]
    for wanted in ([1015, float(LARGE)], np.array([1015, float(LARGE)]), np.array(["1015", "1.5E+17"])):
        with pytest.raises(ValueError, match=r"^ids\[1\]: wanted an id with all its digits"):
            vocabulary.numbers(wanted)


def test_names_of_properties_are_no_ids():
    vocabulary = Vocabulary(np.array(["5", "5.0", "1.5e+18"], dtype=object))
    assert vocabulary.exactly(["5.0", "5", "1.5e+18", "6"]).tolist() == [1, 0, 2, -1]


def log_of(users: object, items: object) -> EventLog:
    n = len(users)
    return EventLog.build(users, items, ["view"] * n, np.arange(n, dtype=np.int64), items, np.zeros(n, np.int64))


def test_a_log_made_in_memory_keeps_the_rule():
    users = np.array(["1015", "1015.0", " b", "b"], dtype=object)
    log = log_of(users, np.array([3.0, 1.0, 3.0, 1.0]))
    assert log.users.ids.tolist() == ["1015", "b"]
    assert log.items.ids.tolist() == [1, 3]
    assert log.user.tolist() == [0, 0, 1, 1]
    assert log_of(np.array([1015, "1015", 7, 8], dtype=object), np.arange(4)).users.ids.tolist() == [1015, 7, 8]
    for wrong in (np.array([1.0, float(LARGE)]), np.array(["a", None], dtype=object), np.array([True, False])):
        with pytest.raises(ValueError, match=r"wanted (an id|ids)"):
            log_of(wrong, np.arange(2))


def test_whole_numbers_beside_floats_keep_their_digits():
    joined = identity.joined(np.array([LARGE]), np.array([1015.0]))
    assert identity.texts_of(joined).to_pylist() == [str(LARGE), "1015"]
