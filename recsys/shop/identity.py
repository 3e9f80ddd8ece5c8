"""Own ids, the one rule for when two written forms are the same id, and the numbers that stand for ids.

The canonical form of an id is a text. Files, lists and requests are compared by it and by nothing else:

1. Text is put into Unicode NFC and loses blanks at both ends: spaces, tabs, line ends, no-break spaces, byte order marks,
   zero-width characters, NUL. A missing value (null, NaN), empty text and the texts `NaN`, `nan`, `NULL` and `null` are no id.
2. A whole number is its digits: `1015`, `1015.0`, `1015.`, ` 1015 `, the integer and the float 1015 are one id. Written with a
   leading zero, a plus, an exponent or a separator (`017`, `+17`, `1e3`, `1,015`), or in digits that are not ASCII, it is a
   text of its own.
3. A float that is whole is that number below 2^53. From there on it is refused: two whole numbers share one float, so digits
   may be gone (float32: from 2^24 on). So is text in a spreadsheet's scientific notation (`1.515915625441994e+18`, `1,78E+12`).
   A float or decimal that is not whole is its shortest text.
4. A UUID is its lower-case text: written in canonical form in any case, Arrow's type `uuid`, fixed-size binary of 16 bytes.
   Other binary is text in UTF-8.
5. Nothing else is an id: booleans, dates, times, durations, lists, structs.

Ids are held as int64 where all of them are whole numbers that fit, else as text. Which of the two never decides identity.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from unicodedata import normalize
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.generic]

MISSING = ("", "NaN", "nan", "NULL", "null")
"""Texts that stand for a missing value."""
WITH_ALL_DIGITS = "an id with all its digits"
AS_TEXT = " Send ids beyond 2^53 as text."
"""What was wanted, and the hint, where a float may have lost digits."""

_BLANKS = (
    "\0\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u180e\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b"
    "\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u202f\u205f\u2060\u2066\u2067\u2068\u2069\u3000\ufeff"
)
_WHOLE = r"(-?(?:0|[1-9][0-9]*))(?:\.0*)?"
_SCIENTIFIC = r"[-+]?[0-9]+[.,][0-9]+[eE]\+[0-9]+"
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_TEXT = pa.large_string()
_DASHES = (8, 13, 18, 23)


def canonical(value: object) -> str | None:
    """The canonical form of one id, None for no id. Raises `ValueError` that says what was wanted and what was found."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return _of_float(value)
    if isinstance(value, Decimal) and not value.is_infinite():
        return None if value.is_nan() else str(int(value)) if value == int(value) else format(value, "f").rstrip("0")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bytes):
        try:
            return _of_text(value.decode())
        except UnicodeDecodeError:
            pass
    raise ValueError(f"wanted an id, a text or a number, found {_short(value)}")


def canonical_texts(values: pa.Array) -> tuple[pa.Array, Bool]:
    """What `canonical` gives for each value, as text with nulls; and which values may have lost digits (null there).

    Raises `ValueError` for a type that holds no ids, and for binary that is not UTF-8.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if isinstance(values.type, pa.UuidType):
        values = values.storage
    if pa.types.is_floating(values.type):
        return _of_floats(values)
    if values.type == pa.binary(16):
        return _of_uuids(values), np.zeros(len(values), dtype=bool)
    if pa.types.is_decimal(values.type):
        return _of_texts(_of_decimals(values))
    if not holds_ids(values.type):
        raise ValueError(f"wanted ids (text, numbers or UUIDs), found {values.type}")
    try:
        texts = values.cast(_TEXT) if not pa.types.is_fixed_size_binary(values.type) else values.cast(pa.binary()).cast(_TEXT)
    except pa.ArrowInvalid:
        raise ValueError(f"wanted ids (text, numbers or UUIDs), found {values.type} that is not UTF-8") from None
    return (texts, np.zeros(len(texts), dtype=bool)) if pa.types.is_integer(values.type) else _of_texts(texts)


def holds_ids(kind: pa.DataType) -> bool:
    """Whether values of this Arrow type can be ids."""
    if pa.types.is_dictionary(kind):
        return holds_ids(kind.value_type)
    tests = (
        pa.types.is_null,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )
    return isinstance(kind, pa.UuidType) or any(test(kind) for test in tests)


def as_ids(texts: pa.Array) -> Ids:
    """Canonical texts, none missing, as they are held: int64 if all are whole numbers that fit, else text."""
    try:
        whole = texts.cast(pa.int64())
        if pc.all(pc.equal(whole.cast(texts.type), texts)).as_py() is not False:
            return np.asarray(whole.to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        pass
    return np.asarray(texts.to_numpy(zero_copy_only=False), dtype=object)


def encoded(ids: Ids) -> tuple[Int64, Ids]:
    """The code of each id, and the distinct ids in sorted order, in canonical form. Texts stay texts, whole or not.

    Raises `ValueError` for a value that is no id.
    """
    ids = np.asarray(ids)
    if np.issubdtype(ids.dtype, np.signedinteger):
        codes, distinct = pd.factorize(ids, sort=True)
        return codes, np.asarray(distinct)
    codes, written = pd.factorize(ids)
    forms = texts_of(np.asarray(written))
    if (codes < 0).any() or forms.null_count:
        raise ValueError("wanted an id, found none")
    form, values = pd.factorize(forms.to_numpy(zero_copy_only=False))
    if not all(isinstance(value, str) for value in written):
        values = as_ids(pa.array(values, _TEXT))
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[form][codes], np.asarray(values)[order]


def joined(first: Ids, second: Ids) -> Ids:
    """Ids of two sources one after the other, with all digits where one holds text or floats and the other whole numbers."""
    if first.dtype.kind != second.dtype.kind:
        first, second = first.astype(object), second.astype(object)
    return np.concatenate([first, second])


def texts_of(ids: Sequence[object] | Ids) -> pa.Array:
    """The canonical form of each value, null for no id. Raises `ValueError` for the first value that is no id, by its place."""
    values = np.array([*ids, None], dtype=object)[:-1] if isinstance(ids, list | tuple) else np.asarray(ids)
    try:
        texts, lost = canonical_texts(pa.array(values, _TEXT if values.dtype == object else None, from_pandas=True))
    except (pa.ArrowTypeError, pa.ArrowInvalid, UnicodeEncodeError):
        return pa.array([_at(place, value) for place, value in enumerate(values)], _TEXT)
    if lost.any():
        place = int(np.argmax(lost))
        _at(place, values[place])
    return texts


class Vocabulary:
    """A user's or item's own id for each number, and back.

    `ids` is an array of integers or of texts in canonical form; number `i` stands for `ids[i]`. A prefix shares the look-up
    table of the whole.
    """

    def __init__(self, ids: Ids) -> None:
        self._all = np.asarray(ids)
        self._size = len(ids)
        self._index: list[pd.Index] = []

    def __len__(self) -> int:
        return self._size

    @property
    def ids(self) -> Ids:
        """The own ids in order of their numbers."""
        return self._all[: self._size]

    def prefix(self, size: int) -> "Vocabulary":
        """The first `size` entries, as a view."""
        view = Vocabulary.__new__(Vocabulary)
        view._all, view._size, view._index = self._all, size, self._index
        return view

    def numbers(self, ids: Sequence[object] | Ids) -> Int32:
        """Numbers of own ids in whatever form; −1 for an id that is not (yet) known and for no id.

        Raises `ValueError` for a value that is no id, such as a float that may have lost digits.
        """
        if not self._whole:
            return self._look_up(texts_of(ids).to_numpy(zero_copy_only=False))
        if isinstance(ids, np.ndarray) and np.issubdtype(ids.dtype, np.signedinteger):
            return self._look_up(ids)
        texts = texts_of(ids)
        whole = _whole_numbers(texts)
        return np.where(whole.is_null(), -1, self._look_up(whole.fill_null(0).to_numpy())).astype(np.int32)

    def exactly(self, texts: Sequence[object] | Ids) -> Int32:
        """Numbers of texts that are no ids, such as names of properties, compared letter by letter; −1 for an unknown one."""
        return self._look_up(np.array([str(text) for text in texts], dtype=object))

    def content(self) -> Ids:
        """What `recsys.digest` takes for the vocabulary: its ids."""
        return self.ids

    def own(self, numbers: Int32) -> npt.NDArray[np.object_]:
        """Own ids of numbers, in their shape; None for −1."""
        own = np.full(numbers.shape, None, dtype=object)
        own[numbers >= 0] = self.ids[numbers[numbers >= 0]]
        return own

    def as_held(self, ids: Ids) -> Ids:
        """Ids, known or not: canonical texts become integers where this vocabulary holds integers and all of them fit."""
        return as_ids(pa.array(ids, _TEXT)) if self._whole and ids.dtype == object else ids

    @property
    def _whole(self) -> bool:
        return np.issubdtype(self._all.dtype, np.integer)

    def _look_up(self, wanted: Ids) -> Int32:
        if not self._index:
            self._index.append(pd.Index(self._all))
        found = self._index[0].get_indexer(pd.Index(wanted))
        return np.where(found < self._size, found, -1).astype(np.int32)


def _of_text(text: str) -> str | None:
    if not text.isascii():
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(f"wanted an id in UTF-8, found {_short(text)}")
        text = normalize("NFC", text)
    text = text.strip(_BLANKS)
    if text in MISSING:
        return None
    if re.fullmatch(_SCIENTIFIC, text):
        raise ValueError(f"wanted {WITH_ALL_DIGITS}, found {_short(text)}.{AS_TEXT}")
    if whole := re.fullmatch(_WHOLE, text):
        return "0" if whole[1] == "-0" else whole[1]
    return text.lower() if re.fullmatch(_UUID, text) else text


def _of_texts(texts: pa.Array) -> tuple[pa.Array, Bool]:
    beyond_ascii = pc.invert(pc.string_is_ascii(texts))
    if _any(beyond_ascii):  # pc.utf8_normalize decomposes under the name of NFC
        composed = [normalize("NFC", text) for text in texts.filter(beyond_ascii).to_pylist()]
        texts = pc.replace_with_mask(texts, pc.fill_null(beyond_ascii, False), pa.array(composed, _TEXT))
    texts = pc.utf8_trim(texts, characters=_BLANKS)
    texts = pc.if_else(pc.is_in(texts, pa.array(MISSING, _TEXT)), None, texts)
    lost = np.zeros(len(texts), dtype=bool)
    if _any(pc.match_substring(texts, "+")):
        lost = np.asarray(pc.fill_null(pc.match_substring_regex(texts, f"^(?:{_SCIENTIFIC})$"), False))
        texts = pc.if_else(lost, None, texts)
    if _any(pc.match_substring(texts, ".")):
        texts = pc.replace_substring_regex(texts, f"^{_WHOLE}$", r"\1")
    texts = pc.if_else(pc.equal(texts, "-0"), "0", texts)
    if _any(pc.equal(pc.binary_length(texts), 36)):
        texts = pc.if_else(pc.match_substring_regex(texts, f"^(?:{_UUID})$"), pc.ascii_lower(texts), texts)
    return texts, lost


def _of_float(value: Any) -> str | None:
    if np.isnan(value):
        return None
    if abs(value) >= _first_shared(value):
        raise ValueError(f"wanted {WITH_ALL_DIGITS}, found {value}.{AS_TEXT}")
    return str(int(value)) if value == int(value) else str(value)


def _of_floats(values: pa.Array) -> tuple[pa.Array, Bool]:
    numbers = values.to_numpy(zero_copy_only=False)
    missing, lost = np.isnan(numbers), np.abs(numbers) >= _first_shared(numbers)
    whole = np.where(missing | lost, 0, numbers).astype(np.int64)
    texts = pa.array(whole, mask=missing | lost).cast(_TEXT)
    if (parts := ~(missing | lost) & (whole != numbers)).any():
        texts = pc.replace_with_mask(texts, pa.array(parts), pa.array([str(number) for number in numbers[parts]], _TEXT))
    return texts, lost


def _first_shared(values: Any) -> float:
    """The least whole number whose float another whole number shares: 2^53 for 64 bits."""
    return float(2 ** (np.finfo(np.asarray(values).dtype).nmant + 1))


def _of_decimals(values: pa.Array) -> pa.Array:
    """Decimals as text; `_of_texts` does the rest for those that are whole."""
    texts = values.cast(pa.string()).cast(_TEXT)
    parts = pc.invert(pc.match_substring_regex(texts, f"^{_WHOLE}$"))
    if _any(parts):
        others = [canonical(value) for value in values.filter(parts).to_pylist()]
        texts = pc.replace_with_mask(texts, pc.fill_null(parts, False), pa.array(others, _TEXT))
    return texts


def _of_uuids(values: pa.Array) -> pa.Array:
    values = values.fill_null(bytes(16)) if (missing := values.is_null()).true_count else values
    raw = np.frombuffer(values.buffers()[1], dtype=np.uint8)[16 * values.offset :][: 16 * len(values)].reshape(-1, 16)
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    letters = np.full((len(values), 36), ord("-"), dtype=np.uint8)
    places = np.delete(np.arange(36), _DASHES)
    letters[:, places[::2]], letters[:, places[1::2]] = digits[raw >> 4], digits[raw & 15]
    ends = pa.py_buffer(np.arange(0, 36 * len(values) + 1, 36, dtype=np.int64))
    texts = pa.LargeStringArray.from_buffers(len(values), ends, pa.py_buffer(letters))
    return pc.if_else(missing, None, texts)


def _whole_numbers(texts: pa.Array) -> pa.Array:
    """Canonical texts as int64, null for what is not a whole number that fits."""
    whole = pc.if_else(pc.match_substring_regex(texts, "^(?:0|-?[1-9][0-9]{0,18})$"), texts, None)
    try:
        return whole.cast(pa.int64())
    except pa.ArrowInvalid:  # some have 19 digits and do not fit
        limits = np.iinfo(np.int64)
        fitting = [text and (limits.min <= int(text) <= limits.max) and int(text) for text in whole.to_pylist()]
        return pa.array([None if number is False else number for number in fitting], pa.int64())


def _at(place: int, value: object) -> str | None:
    try:
        return canonical(value)
    except ValueError as error:
        raise ValueError(f"ids[{place}]: {error}") from None


def _any(marks: pa.Array) -> bool:
    return bool(pc.any(marks).as_py())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
