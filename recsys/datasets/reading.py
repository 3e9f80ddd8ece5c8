"""Reading of CSV (plain or gzipped) and Parquet files: the wanted columns, every cell checked, errors that say where.

Rows are numbered as a spreadsheet numbers them: the header is row 1. An empty cell, `NaN` and `null` are missing values.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet
from pydantic import AfterValidator

from recsys.errors import DataError, nearest
from recsys.shop import identity
from recsys.shop.events import Int8, Int64
from recsys.shop.identity import MISSING, Ids, Int32
from recsys.shop.kinds import Kinds

Bool = npt.NDArray[np.bool_]
OnBadRow = Literal["error", "drop"]

SEPARATORS = {".csv": ",", ".tsv": "\t"}
ENCODED = pa.dictionary(pa.int32(), pa.string())

UNITS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}
"""The factor and the divisor that turn each unit into milliseconds."""
YEARS = (1990, 2100)
"""A time outside these years is held to be a mistake."""
EARLIEST, LATEST = (int(pd.Timestamp(year, 1, 1).timestamp()) * 1000 for year in YEARS)


def _known_unit(unit: str) -> str:
    if unit in (*UNITS, "iso") or "%" in unit:
        return unit
    raise ValueError(f"wanted {', '.join(UNITS)}, iso or a strptime format such as '%d/%m/%Y %H:%M', found {unit!r}")


TimeUnit = Annotated[str, AfterValidator(_known_unit)]
"""How a file writes times; see `Table.times`."""

WHOLE = r"^-?\d{1,18}$"
DECIMAL = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"
WHOLE_TEXT = r"^(0|-?[1-9]\d*)(\.0+)?$"
SCIENTIFIC = r"^[-+]?\d+[.,]\d+[eE]\+\d+$"


class Table:
    """Columns of one file, given as checked arrays with an element for every row.

    A cell that is not what was asked for raises `DataError`. With `on_bad_row="drop"` its row is marked in `bad` instead, and
    counted in `reasons` (a row once, under the first thing wrong with it); what the arrays hold there means nothing.
    """

    def __init__(self, path: Path, columns: pa.Table, first_row: int, on_bad_row: OnBadRow = "error") -> None:
        self.path = path
        self.bad: Bool = np.zeros(len(columns), dtype=bool)
        self.reasons: dict[str, int] = {}
        self.forms: list[tuple[str, int]] = []
        """Of the columns of ids read: how many ids came in several written forms, as steps of a funnel."""
        self._columns = columns
        self._first_row = first_row
        self._on_bad_row = on_bad_row

    def __contains__(self, column: str) -> bool:
        return column in self._columns.column_names

    def __len__(self) -> int:
        return len(self.bad)

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        """Finite numbers: `float64[n]`, NaN where missing."""
        values = _filled(_parsed(self._columns[column], pa.float64(), DECIMAL), np.nan)
        self._refuse(~np.isfinite(values) & ~_is_null(self._columns[column]), column, "a number")
        return values

    def ids(self, column: str) -> Ids:
        """Ids in canonical form (`recsys.shop.identity`), none missing: `int64[n]` when all are whole numbers, else text."""
        codes, texts = self._canonical(column)
        self._refuse(codes < 0, column, "an id")
        values = identity.as_ids(texts)
        return np.append(values, values[:1])[codes] if len(values) else np.full(len(self), 0)

    def id_texts(self, column: str, *, required: bool = False) -> npt.NDArray[np.object_]:
        """Ids in canonical form as text: `object[n]`, None where missing unless `required`."""
        codes, texts = self._canonical(column)
        if required:
            self._refuse(codes < 0, column, "an id")
        return np.append(texts.to_numpy(zero_copy_only=False), np.array([None]))[codes]

    def texts(self, column: str, *, required: bool = False) -> npt.NDArray[np.object_]:
        """Text: `object[n]`, None where missing unless `required`. Where all are whole numbers, 17.0 is written 17."""
        codes, values = self._distinct(column)
        if required:
            self._refuse(codes < 0, column, "text")
        return np.array([*map(str, values), None], dtype=object)[codes]

    def encoded(self, column: str, keep: Bool | None = None) -> pd.Categorical:
        """Text, missing or not, of all rows or those in `keep`."""
        cells = self._columns[column]
        codes, values = _dictionary(cells if keep is None else cells.filter(pa.array(keep)))
        return pd.Categorical.from_codes(codes, values.to_numpy(zero_copy_only=False))

    def kinds(self, column: str, known: Mapping[str, str | None], kinds: Kinds, wanted: str) -> Int8:
        """Events as numbers into `kinds`, −1 for an event that `known` maps to None: `int8[n]`.

        An event that `known` lacks raises `DataError` whatever `on_bad_row` says; `wanted` tells what would be right.
        """
        codes, values = self._distinct(column)
        self._refuse(codes < 0, column, "an event")
        numbers = np.full(len(values) + 1, -1, dtype=np.int8)
        for code, event in enumerate(map(str, values)):
            if event not in known:
                raise self._error(int(np.argmax(codes == code)), column, wanted, nearest(event, known))
            kind = known[event]
            numbers[code] = -1 if kind is None else kinds.names.index(kind)
        return numbers[codes]

    def times(self, column: str, unit: str) -> Int64:
        """Times as epoch milliseconds: `int64[n]`.

        `unit` is "s", "ms", "us" or "ns" since 1970, "iso" (ISO 8601 text) or a strptime format such as "%d/%m/%Y %H:%M"; text
        without a time zone is UTC. Dates and timestamps of a Parquet file need no unit. A time outside `YEARS` is a bad
        cell; where most are, the unit is wrong and `DataError` is raised in any case, with the unit that would fit.
        """
        cells = self._columns[column]
        if unit in UNITS and pa.types.is_string(cells.type):
            rounded = pc.fill_null(pc.match_substring_regex(cells, SCIENTIFIC), False)
            self._refuse(np.asarray(rounded), column, "a time with all its digits")
        times = _milliseconds(cells, unit)
        wrong = _out_of_range(times)
        if wrong.any():
            wanted, hint = f"a time in {YEARS[0]} to {YEARS[1]} written as {unit!r}", _unit_hint(cells, unit)
            if _mostly(wrong, cells):
                raise self._error(int(np.argmax(wrong)), column, wanted, hint)
            self._refuse(wrong, column, wanted, hint)
        return times

    def _canonical(self, column: str) -> tuple[Int32, pa.Array]:
        """The code of each row's id (−1: none) and the distinct ids in canonical form; notes those with several forms."""
        cells = self._columns[column]
        if not identity.holds_ids(cells.type):
            raise DataError(f"{self.path}, column {column!r}: wanted ids (text, numbers or UUIDs), found {cells.type}.")
        codes, written = _dictionary(cells)
        try:
            texts, lost = identity.canonical_texts(written)
        except ValueError as error:
            raise DataError(f"{self.path}, column {column!r}: {error}.") from None
        self._refuse(np.append(lost, False)[codes], column, identity.WITH_ALL_DIGITS, identity.AS_TEXT)
        forms = texts.dictionary_encode()
        form = np.asarray(forms.indices.fill_null(-1).to_numpy(zero_copy_only=False))
        several = np.flatnonzero(np.bincount(form[form >= 0]) > 1)
        if len(several):
            one, other = (repr(str(written[int(i)])) for i in np.flatnonzero(form == several[0])[:2])
            self.forms.append((f"{column}: ids written in several forms, such as {one} and {other}", len(several)))
        return np.append(form, np.int32(-1))[codes], forms.dictionary

    def _distinct(self, column: str) -> tuple[Int32, Ids]:
        cells = self._columns[column]
        try:
            return _distinct(cells)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(f"{self.path}, column {column!r}: wanted text, found {cells.type}.") from None

    def _refuse(self, bad: Bool, column: str, wanted: str, hint: str = "") -> None:
        bad = bad & ~self.bad
        if not bad.any():
            return
        if self._on_bad_row == "error":
            raise self._error(int(np.argmax(bad)), column, wanted, hint)
        self.reasons[f"bad {column} (wanted {wanted})"] = int(bad.sum())
        self.bad |= bad

    def _error(self, row: int, column: str, wanted: str, hint: str = "") -> DataError:
        cell = self._columns[column][row].as_py()
        found = "nothing" if cell is None else repr(cell)
        where = f"{self.path}, row {row + self._first_row}, column {column!r}"
        return DataError(f"{where}: wanted {wanted}, found {found}.{hint}")


def read(
    path: Path,
    columns: Iterable[str],
    *,
    separator: str | None = None,
    header: Sequence[str] | None = None,
    encoded: Iterable[str] = (),
    optional: Collection[str] = (),
    on_bad_row: OnBadRow = "error",
) -> Table:
    """Read some columns of a `.csv` or `.tsv` (both also `.gz`) or `.parquet` file.

    `separator` is told by the file's name where it is None; a file of any other name is text when it is given. `header` names
    the columns of a file without a header row. Columns in `encoded` hold few texts in many rows and are kept as codes.

    Columns in `optional` may be missing.

    Raises `DataError` when the file is missing, is empty, lacks another column or has a row of another length.
    """
    columns, separator = list(dict.fromkeys(columns)), _separator(path, separator)
    try:
        if separator is None:
            columns = _present(path, parquet.read_schema(path).names, columns, optional)
            table = parquet.read_table(path, columns=columns)
            table = pa.table({name: _with_nulls(table[name]) for name in columns})
        else:
            table = _read_text(path, columns, separator, header, set(encoded), optional)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not len(table):
        raise DataError(f"{path} has no rows.")
    return Table(path, table, 1 if separator is None or header else 2, on_bad_row)


def column_names(path: Path) -> list[str]:
    """The columns of a file that `read` can read, from its head. Raises `DataError` when it is missing or cannot be read."""
    separator = _separator(path, None)
    try:
        if separator is None:
            return list(parquet.read_schema(path).names)
        with csv.open_csv(path, csv.ReadOptions(use_threads=False), csv.ParseOptions(delimiter=separator)) as start:
            return list(start.schema.names)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _separator(path: Path, given: str | None) -> str | None:
    """What stands between the columns of a text file; None for a Parquet file."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    separator = given or SEPARATORS.get(suffix)
    if not path.is_file():
        raise DataError(f"{path} {'is a folder, wanted a file' if path.is_dir() else 'does not exist'}.")
    if suffix != ".parquet" and separator is None:
        raise DataError(f"{path}: wanted a .csv, .tsv (plain or .gz) or .parquet file; for other text files give `separator`.")
    return None if suffix == ".parquet" else separator


def _read_text(
    path: Path,
    columns: list[str],
    separator: str,
    header: Sequence[str] | None,
    encoded: set[str],
    optional: Collection[str],
) -> pa.Table:
    parse = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    names = {"column_names": list(header)} if header else {}
    single = csv.ReadOptions(**names, use_threads=False)  # counts rows, so that an error can name one
    with csv.open_csv(path, single, parse) as start:
        columns = _present(path, start.schema.names, columns, optional)
    convert = csv.ConvertOptions(
        include_columns=columns,
        column_types={name: ENCODED if name in encoded else pa.string() for name in columns},
        null_values=list(MISSING),
        strings_can_be_null=True,
    )
    try:
        return csv.read_csv(path, csv.ReadOptions(**names), parse, convert)
    except pa.ArrowInvalid:
        return csv.read_csv(path, single, parse, convert)


def _present(path: Path, found: list[str], wanted: list[str], optional: Collection[str]) -> list[str]:
    """The wanted columns that the file has; one that is missing has to be optional."""
    present = [name for name in wanted if name in found or name not in optional]
    for name in present:
        if found.count(name) != 1:
            problem = "has no column" if name not in found else "has more than one column"
            raise DataError(f"{path} {problem} {name!r}; it has {', '.join(found)}.{nearest(name, found)}")
    return present


def _with_nulls(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Parquet cells with nulls for the texts and numbers that stand for a missing value."""
    if isinstance(cells.type, pa.UuidType):
        cells = cells.cast(cells.type.storage_type)
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if pa.types.is_null(cells.type):
        return cells.cast(pa.string())
    if pa.types.is_floating(cells.type):
        return pc.if_else(pc.is_nan(cells), None, cells)
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type) or pa.types.is_string_view(cells.type):
        cells = cells.cast(pa.string())
        return pc.if_else(pc.is_in(cells, pa.array(MISSING, cells.type)), None, cells)
    return cells


def _parsed(cells: pa.ChunkedArray, wanted: pa.DataType, pattern: str) -> pa.ChunkedArray:
    """Cells as numbers, null where they are missing or their text does not fit the pattern."""
    try:
        return cells.cast(wanted)
    except pa.ArrowInvalid:
        texts = cells.cast(pa.string())
        return pc.if_else(pc.match_substring_regex(texts, pattern), texts, None).cast(wanted)


def _is_null(cells: pa.ChunkedArray) -> Bool:
    return np.asarray(cells.is_null().to_numpy(), dtype=bool)


def _filled(cells: pa.ChunkedArray, missing: float) -> Any:
    return pc.fill_null(cells, missing).to_numpy()


def _dictionary(cells: pa.ChunkedArray) -> tuple[Int32, pa.Array]:
    """The code of each cell (−1: missing) and the distinct values."""
    coded = cells.unify_dictionaries() if pa.types.is_dictionary(cells.type) else cells.dictionary_encode()
    array = coded.combine_chunks()
    return np.asarray(array.indices.fill_null(-1).to_numpy(zero_copy_only=False)), array.dictionary


def _distinct(cells: pa.ChunkedArray) -> tuple[Int32, Ids]:
    """The code of each cell (−1: missing) and the distinct values: whole numbers if they all are, else text."""
    codes, values = _dictionary(cells)
    texts = values.cast(pa.string())
    if pc.all(pc.match_substring_regex(texts, WHOLE_TEXT)).as_py():
        with suppress(pa.ArrowInvalid):  # more digits than int64 has
            whole = pc.replace_substring_regex(texts, r"\.0+$", "").cast(pa.int64())
            return codes, whole.to_numpy(zero_copy_only=False)
    return codes, texts.to_numpy(zero_copy_only=False)


def _milliseconds(cells: pa.ChunkedArray, unit: str) -> Int64:
    """Epoch milliseconds; what cannot be read, or lies far off, becomes some time outside `YEARS`."""
    if pa.types.is_temporal(cells.type):
        return _filled(cells.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()), 0)
    if unit not in UNITS:
        texts = pd.Series(cells.cast(pa.string()).to_numpy(), dtype=object)
        times = pd.to_datetime(texts, utc=True, format="ISO8601" if unit == "iso" else unit, errors="coerce")
        return np.where(times.isna(), 0, times.dt.as_unit("ms").astype(np.int64))
    factor, divisor = UNITS[unit]
    low, high = (EARLIEST - 1) * divisor // factor, LATEST * divisor // factor
    whole = _parsed(cells, pa.int64(), WHOLE)
    if whole.null_count == cells.null_count:
        return np.clip(_filled(whole, 0), low, high) * factor // divisor
    decimal = np.nan_to_num(_filled(_parsed(cells, pa.float64(), DECIMAL), np.nan))
    return np.rint(np.clip(decimal, low, high) * factor / divisor).astype(np.int64)


def _out_of_range(times: Int64) -> Bool:
    return (times < EARLIEST) | (times >= LATEST)


def _mostly(wrong: Bool, cells: pa.ChunkedArray) -> bool:
    present = ~_is_null(cells)
    return 2 * int((wrong & present).sum()) > int(present.sum())


def _unit_hint(cells: pa.ChunkedArray, tried: str) -> str:
    """The unit, if any but the one tried, in which most of the first cells are times of `YEARS`."""
    sample = cells.slice(0, 1000)
    units = () if pa.types.is_temporal(cells.type) else (tried, *UNITS, "iso")
    fitting = (unit for unit in units if not _mostly(_out_of_range(_milliseconds(sample, unit)), sample))
    unit = next(fitting, tried)
    return "" if unit == tried else f" The column reads well as {unit!r} (`time_unit`)."
