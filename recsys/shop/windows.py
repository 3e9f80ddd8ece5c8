"""Which windows a log has room for: every default that depends on the length of the log, and the line that says what was taken.

All times and lengths are milliseconds; nothing here sees an event but through `asks`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

LABEL_WINDOWS = 4
"""Label windows where none are asked for by number."""
TEST_CUTOFFS = 4
"""Test cutoffs of a backtest where none are asked for by number."""
VALIDATION_WINDOWS = 3
"""Validation windows of a sweep where none are asked for by number."""
UNITS = (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1000), ("millisecond", 1))


@dataclass(frozen=True)
class Window:
    """A cutoff and the end of the window that begins there, in epoch milliseconds."""

    cutoff: int
    end: int

    @property
    def length(self) -> int:
        """Milliseconds from the cutoff to the end."""
        return self.end - self.cutoff

    def __str__(self) -> str:
        return f"{moment(self.cutoff)} … {moment(self.end)}"


@dataclass(frozen=True)
class Row:
    """Equally long windows, and in one line what was taken instead of the usual and why; empty where nothing was."""

    windows: tuple[Window, ...]
    why: str = ""


def spread(room: int, length: int, count: int | None, usual: int, step: int | None) -> tuple[int, int]:
    """How many windows of `length` there are room for, and the distance between them, if the newest can go back by `room`.

    A given `step` is kept. Without one, windows follow each other without overlap. Where fewer than `count` do (or only one, if
    `count` is None and `usual` are wanted), they overlap by as little as leaves a quarter of a length free before them, and by
    three quarters at most. Fewer than `count` come back where that many do not fit, none where `room` is negative.
    """
    wanted = usual if count is None else count
    if room < 0:
        return 0, step or length
    if step is None:
        apart = 1 + room // length
        if apart >= wanted or (count is None and apart > 1):
            return min(wanted, apart), length
        step = max(length // 4, (room - length // 4) // (wanted - 1), 1)
    return min(wanted, 1 + room // step), step


def shortened(room: int, parts: int, lead: Callable[[int], int]) -> int:
    """A length with `room` for what a window so long needs in front, `lead(length)`: one of `parts` equal parts at most."""
    length = room // parts
    while length and length + lead(length) >= room:
        length //= 2
    return length


def label_windows(
    first: int,
    end: int,
    usual: int,
    length: int | None = None,
    step: int | None = None,
    count: int | None = None,
    asks: Callable[[Window], bool] = lambda window: True,
) -> Row:
    """Label windows, oldest first, that begin after the `first` event; the newest ends at `end`.

    Given values are kept, and no window comes back where they do not fit. Else there are `LABEL_WINDOWS`, or as many as fit, as
    long as the `usual` window, a quarter of their length apart; they are shorter where not one of that length fits, and of
    another length where none of that length `asks` anything.
    """
    room, wanted = end - first, LABEL_WINDOWS if count is None else count

    def stride(length: int) -> int:
        return step or max(length // 4, 1)

    def of(length: int) -> tuple[Window, ...]:
        n, _ = spread(room - length - 1, length, None, wanted, stride(length)) if length > 0 else (0, 0)
        newest = end - length
        cutoffs = [newest - i * stride(length) for i in reversed(range(n))]
        return tuple(Window(cutoff, cutoff + length) for cutoff in cutoffs) if n >= (count or 1) else ()

    lengths = [length] if length is not None else [usual, shortened(room, 2, lambda each: (wanted - 1) * stride(each))]
    rows = [row for row in map(of, lengths) if row]
    row = next((row for row in rows if len(rows) == 1 or any(map(asks, row))), rows[0] if rows else ())
    if not row or (len(row) == wanted and row[0].length == lengths[0]):
        return Row(row)
    reason = f"the log before the cutoff has {span(room)}"
    if row[0].length != lengths[0] and of(lengths[0]):
        reason = f"nobody is asked anything in label windows of {span(lengths[0])}"
    return Row(row, taken("label window", row[0].length, len(row), lengths[0], wanted, reason))


def taken(
    what: str, length: int, count: int, usual_length: int, usual: int, reason: str = "", overlap: int | None = None
) -> str:
    """What was taken, how much of the usual, and why: "2 windows of 28 days instead of 3: the log … has 107 days"."""
    text = f"{plural(count, what)} of {span(length)}"
    if overlap is not None and count > 1:
        text += f", {span(overlap)} apart so that they overlap"
    if length != usual_length:
        text += f" instead of {usual} of {span(usual_length)}"
    elif count != usual:
        text += f" instead of {usual}"
    return f"{text}: {reason}" if reason else text


def plural(count: int, what: str) -> str:
    """`1 window`, `2 windows`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def span(length: int) -> str:
    """A length for people: in the largest unit that it has two of, with three digits."""
    name, unit = next(((name, unit) for name, unit in UNITS if abs(length) >= 2 * unit), UNITS[-1])
    number = f"{length / unit:.3g}" if abs(length) < 1000 * unit else f"{length / unit:,.0f}"
    return f"{number} {name}{'' if number == '1' else 's'}"


def moment(time: int) -> str:
    """A time for people, to the second."""
    return str(pd.Timestamp(time, unit="ms").floor("s"))


def milliseconds(span: str) -> int:
    """A span as pandas reads it, such as `28d` or `12h`. Raises `ValueError` for what is none."""
    return int(pd.Timedelta(re.sub(r"(?<=[\d ])d\b|(?<=\d)d(?=\d)", "D", span)) / pd.Timedelta(1, "ms"))
