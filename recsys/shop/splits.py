"""Honest folds on the global timeline.

    ──────────── history ────────────┤c₁── label window ──┤
                  ───── history ─────────┤c₂── label window ──┤        label windows end before the test cutoff t
                            ──────────── history ─────────────────┤t────── test window ──────┤

At each cutoff all that may be used is `shop.before(cutoff)`; what is asked for happens in the window that begins there.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from recsys.component import Component, component
from recsys.errors import ConfigError, nearest
from recsys.shop import ragged
from recsys.shop.events import EventLog
from recsys.shop.kinds import KindName
from recsys.shop.pairs import pair_key
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop

Grade = Annotated[float, Field(gt=0)]
Target = Literal["next", "window"]


@dataclass(frozen=True)
class Window:
    """A cutoff and the end of the window that begins there, in epoch milliseconds."""

    cutoff: int
    end: int

    def __str__(self) -> str:
        return f"{_text(self.cutoff)} … {_text(self.end)}"


@dataclass(frozen=True, eq=False)
class Task:
    """Queries at a cutoff, the truth of the window after it, and the count of what was left out and why."""

    window: Window
    queries: Queries
    truth: Truth
    funnel: dict[str, int]


@dataclass(frozen=True)
class Fold:
    """Label windows, oldest first, for the ranker to learn from; then the test window."""

    labels: tuple[Window, ...]
    test: Window


@component
class Split(Component):
    """Where the cutoffs lie, whom to ask about, and what counts as right.

    Spans are written as pandas reads them (`28d`, `12h`). Raises `ConfigError` for a time that cannot be read and for windows
    that the log has no events for.
    """

    cutoff: float | str = 0.8
    """The test cutoff: a time (UTC), or the quantile of event time where a number between 0 and 1 is given."""
    horizon: str | None = None
    """Length of the test window; none: to the end of the log."""
    target: Target = "window"
    """`next`: the first target event after the cutoff (all of one instant: a basket has no first item); `window`: all."""
    target_events: list[KindName] = Field(default=["purchase"], min_length=1)
    """Kinds of event, or roles, that count as right in the test window."""
    grades: dict[KindName, Grade] = Field(default={"view": 1.0, "cart": 2.0, "purchase": 4.0})
    """Gain of each kind or role; an item counts by its strongest event."""
    min_events: NonNegativeInt = 1
    """Fewest events a user must have before the cutoff to be asked about."""
    cold_items: Literal["drop", "keep"] = "drop"
    """`drop`: an item unknown before the cutoff is no target; `keep`: it is one, and always missed."""
    label_cutoffs: NonNegativeInt = 4
    """How many label windows the ranker learns from."""
    label_step: str | None = None
    """Distance between label cutoffs; none: a quarter of the label horizon."""
    label_horizon: str | None = None
    """Length of a label window; none: that of the test window."""
    label_gap: str = "0d"
    """Empty span between the end of the last label window and the test cutoff."""
    label_target: Target = "window"
    """As `target`, for the label windows."""
    label_events: list[KindName] = Field(default=["cart", "purchase"], min_length=1)
    """Kinds of event, or roles, that the ranker learns from, graded by `grades`."""

    @field_validator("cutoff", mode="before")
    @classmethod
    def _a_time_or_a_share(cls, value: object) -> float | str:
        text = str(value)
        try:
            share = float(text)
        except ValueError:
            pass
        else:
            if not 0 < share < 1:
                raise ValueError(f"a quantile of event time lies between 0 and 1, found {text}")
            return share
        try:
            pd.Timestamp(text)
        except ValueError:
            raise ValueError(f"wanted a time such as 2015-08-18T04:23:20 or a share such as 0.8, found {text!r}") from None
        return text

    @field_validator("horizon", "label_step", "label_horizon", "label_gap", "test_step", check_fields=False)
    @classmethod
    def _a_span(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            length = _milliseconds(value)
        except ValueError:
            raise ValueError(f"wanted a span such as 28d or 12h, found {value!r}") from None
        if length < 0:
            raise ValueError(f"a span can't be negative, found {value!r}")
        return value

    def folds(self, shop: Shop) -> tuple[Fold, ...]:
        """The folds on this shop's log, oldest first: here one."""
        return (self.fold(shop),)

    def fold(self, shop: Shop, back: int = 0) -> Fold:
        """The windows on this shop's log, all of them `back` milliseconds earlier than the config says."""
        log = shop.log
        first, last = int(log.time[0]), int(log.time[-1])
        newest_test = self._cutoff(log)
        length_of_test = last + 1 - newest_test if self.horizon is None else _milliseconds(self.horizon)
        cutoff = newest_test - back
        end = cutoff + length_of_test
        if not first < cutoff <= last:
            raise ConfigError(
                f"split.cutoff: wanted a time after the first event and not after the last ({_text(first)} … {_text(last)}),"
                f" found {_text(cutoff)}"
            )
        length = end - cutoff if self.label_horizon is None else _milliseconds(self.label_horizon)
        step = max(length // 4, 1) if self.label_step is None else _milliseconds(self.label_step)
        if step <= 0 or length <= 0 or end <= cutoff:
            raise ConfigError("split: wanted a horizon, label_horizon and label_step longer than nothing")
        newest = cutoff - _milliseconds(self.label_gap) - length
        cutoffs = [newest - i * step for i in reversed(range(self.label_cutoffs))]
        labels = tuple(Window(c, c + length) for c in cutoffs if c > first)
        if self.label_cutoffs and not labels:
            raise ConfigError(
                f"split.label_horizon: wanted a label window that begins after the first event ({_text(first)}) and ends by"
                f" the test cutoff ({_text(cutoff)}), found a length of {pd.Timedelta(length, unit='ms')}; give a shorter one"
            )
        return Fold(labels, Window(cutoff, end))

    def test_task(self, shop: Shop, window: Window) -> Task:
        """What the test window asks. Raises `ConfigError` when no query is left, with the counts that say why."""
        task = self._task(shop, window, self.target, self.target_events, self.min_events)
        if not len(task.queries):
            counts = ", ".join(f"{what}: {n}" for what, n in task.funnel.items())
            raise ConfigError(f"split: no query is left in the test window {window} ({counts})")
        return task

    def label_task(self, shop: Shop, window: Window) -> Task:
        """What a label window asks: every user with history, for the ranker to learn from."""
        return self._task(shop, window, self.label_target, self.label_events, 1)

    def _cutoff(self, log: EventLog) -> int:
        if isinstance(self.cutoff, float):
            return int(np.quantile(log.time, self.cutoff))
        time = pd.Timestamp(self.cutoff)
        return int((time.tz_convert("UTC").tz_localize(None) if time.tzinfo else time).as_unit("ms").asm8.astype(np.int64))

    def _task(self, shop: Shop, window: Window, target: Target, events: list[str], min_events: int) -> Task:
        history = shop.before(window.cutoff).log
        future = shop.log.between(window.cutoff, window.end)
        kinds = shop.log.kinds
        gain = np.where(kinds.among(events, "split"), kinds.weights(self.grades, "split.grades"), 0).astype(np.float32)
        for name, wanted, grade in zip(kinds.names, kinds.among(events, "split"), gain, strict=True):
            if wanted and not grade:
                raise ConfigError(f"split.grades: wanted a grade for {name!r}.{nearest(name, self.grades)}")
        future = future.where(gain[future.kind] > 0)
        funnel = {"users with a target event": len(np.unique(future.user))}

        future = future.where(future.user < history.n_users)
        funnel["without an event before the cutoff"] = funnel["users with a target event"] - len(np.unique(future.user))
        enough = np.bincount(history.user, minlength=history.n_users) >= max(min_events, 1)
        asked = len(np.unique(future.user))
        future = future.where(enough[future.user])
        funnel[f"with fewer than {max(min_events, 1)} events before it"] = asked - len(np.unique(future.user))
        if target == "next":
            first = np.full(history.n_users, np.iinfo(np.int64).max)
            np.minimum.at(first, future.user, future.time)
            future = future.where(future.time == first[future.user])
        cold = future.item >= history.n_items
        asked = len(np.unique(future.user))
        pairs = np.unique(pair_key(future.user, future.item))
        if self.cold_items == "drop":
            future = future.where(~cold)
            funnel["with cold target items only"] = asked - len(np.unique(future.user))
            kept = np.unique(pair_key(future.user, future.item))
            funnel["(cold target items dropped)"] = len(pairs) - len(kept)
            pairs = kept

        users, row = np.unique(pairs >> 32, return_inverse=True)
        strongest = np.zeros(len(pairs), dtype=np.float32)
        np.maximum.at(strongest, np.searchsorted(pairs, pair_key(future.user, future.item)), gain[future.kind])
        truth = Truth(ragged.from_sorted(row, len(users)), (pairs & 0xFFFFFFFF).astype(np.int32), strongest)
        funnel["queries"] = len(users)
        return Task(window, Queries.at(history, users.astype(np.int32), window.cutoff), truth, funnel)


@component
class Rolling(Split):
    """A backtest: the whole run at each of several test cutoffs. `cutoff` is the newest; all test windows are equally long.

    Each fold learns from label windows of its own past alone. Raises `ConfigError` where a cutoff reaches before the log.
    """

    test_cutoffs: PositiveInt = 4
    """How many test cutoffs."""
    test_step: str | None = None
    """Distance between them; none: the length of the test window, so that windows do not overlap."""

    def folds(self, shop: Shop) -> tuple[Fold, ...]:
        """The folds on this shop's log, oldest first."""
        newest = self.fold(shop)
        step = newest.test.end - newest.test.cutoff if self.test_step is None else _milliseconds(self.test_step)
        if step <= 0:
            raise ConfigError(f"split.test_step: wanted a span longer than nothing, found {self.test_step!r}")
        return tuple(self.fold(shop, back=i * step) for i in reversed(range(self.test_cutoffs)))


def _milliseconds(span: str) -> int:
    return int(pd.Timedelta(re.sub(r"(?<=[\d ])d\b|(?<=\d)d(?=\d)", "D", span)) / pd.Timedelta(1, "ms"))


def _text(time: int) -> str:
    return str(pd.Timestamp(time, unit="ms").floor("s"))
