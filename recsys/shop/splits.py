"""Honest folds on the global timeline.

    ──────────── history ────────────┤c₁── label window ──┤
                  ───── history ─────────┤c₂── label window ──┤        label windows end before the test cutoff t
                            ──────────── history ─────────────────┤t────── test window ──────┤

At each cutoff all that may be used is `shop.before(cutoff)`; what is asked for happens in the window that begins there.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from recsys.component import Component, component
from recsys.errors import ConfigError, nearest
from recsys.shop import ragged, windows
from recsys.shop.events import EventLog
from recsys.shop.kinds import KindName
from recsys.shop.pairs import pair_key
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop
from recsys.shop.windows import Window, milliseconds, moment, span

Grade = Annotated[float, Field(gt=0)]
Target = Literal["next", "window"]


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
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was taken instead of the usual windows and why, a line each; empty where nothing was."""


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
    label_cutoffs: NonNegativeInt | None = None
    """How many label windows the ranker learns from; none: 4, or as many as the log before the cutoff has room for."""
    label_step: str | None = None
    """Distance between label cutoffs; none: a quarter of the label horizon."""
    label_horizon: str | None = None
    """Length of a label window; none: that of the test window, or one that fits before the cutoff and asks somebody."""
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
            length = milliseconds(value)
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
        length_of_test = last + 1 - newest_test if self.horizon is None else milliseconds(self.horizon)
        cutoff = newest_test - back
        end = cutoff + length_of_test
        if not first < cutoff <= last:
            raise ConfigError(
                f"split.cutoff: wanted a time after the first event and not after the last ({moment(first)} … {moment(last)}),"
                f" found {moment(cutoff)}"
            )
        length, step = (None if each is None else milliseconds(each) for each in (self.label_horizon, self.label_step))
        if end <= cutoff or length == 0 or step == 0:
            raise ConfigError("split: wanted a horizon, label_horizon and label_step longer than nothing")
        newest = cutoff - milliseconds(self.label_gap)

        def asks(window: Window) -> bool:
            return len(self.label_task(shop, window).queries) > 0

        labels = windows.label_windows(first, newest, end - cutoff, length, step, self.label_cutoffs, asks)
        if self.label_cutoffs != 0 and not labels.windows:
            raise ConfigError(self._no_room(first, newest, end - cutoff))
        return Fold(labels.windows, Window(cutoff, end), (labels.why,) if labels.why else ())

    def lead(self, length: int) -> int:
        """What the label windows need between the first event and a test window of `length`, in milliseconds: those that are
        asked for, else one.
        """
        count = 1 if self.label_cutoffs is None else self.label_cutoffs
        own = length if self.label_horizon is None else milliseconds(self.label_horizon)
        step = max(own // 4, 1) if self.label_step is None else milliseconds(self.label_step)
        return milliseconds(self.label_gap) + own + (count - 1) * step if count else 0

    def asks(self, shop: Shop, fold: Fold) -> bool:
        """Whether the fold can be judged: its test window asks somebody, and so does a label window where it has any."""
        if fold.test.cutoff > shop.log.time[-1] or not len(self._test(shop, fold.test).queries):
            return False
        return not fold.labels or any(len(self.label_task(shop, each).queries) for each in fold.labels)

    def _no_room(self, first: int, newest: int, usual: int) -> str:
        """Why there is no label window, in one line."""
        between = f"between the first event ({moment(first)}) and the test cutoff ({moment(newest)})"
        length = usual if self.label_horizon is None else milliseconds(self.label_horizon)
        step = max(length // 4, 1) if self.label_step is None else milliseconds(self.label_step)
        fitting, _ = windows.spread(newest - first - length - 1, length, None, self.label_cutoffs or 1, step)
        if self.label_cutoffs and fitting:
            count = windows.plural(self.label_cutoffs, "window")
            return f"split.label_cutoffs: {count} of {span(length)} do not fit {between}: there is room for {fitting}"
        if self.label_horizon is not None:
            return f"split.label_horizon: wanted a length that fits {between}, found {self.label_horizon}"
        return f"split: no label window fits {between}: the log has {span(newest - first)} there; give a later split.cutoff"

    def test_task(self, shop: Shop, window: Window) -> Task:
        """What the test window asks. Raises `ConfigError` when no query is left, with the counts that say why."""
        task = self._test(shop, window)
        if not len(task.queries):
            counts = ", ".join(f"{what}: {n}" for what, n in task.funnel.items())
            raise ConfigError(f"split: no query is left in the test window {window} ({counts})")
        return task

    def label_task(self, shop: Shop, window: Window) -> Task:
        """What a label window asks: every user with history, for the ranker to learn from."""
        return self._task(shop, window, self.label_target, self.label_events, 1)

    def _test(self, shop: Shop, window: Window) -> Task:
        return self._task(shop, window, self.target, self.target_events, self.min_events)

    def _cutoff(self, log: EventLog) -> int:
        if isinstance(self.cutoff, float):
            return int(np.quantile(log.time, self.cutoff))
        time = pd.Timestamp(self.cutoff)
        return int((time.tz_convert("UTC").tz_localize(None) if time.tzinfo else time).as_unit("ms").asm8.astype(np.int64))

    def _task(self, shop: Shop, window: Window, target: Target, events: list[str], min_events: int) -> Task:
        history = shop.before(window.cutoff).log
        future = shop.log.between(window.cutoff, window.end)
        kinds = shop.log.kinds
        counts = kinds.among(events, "split")
        gain = np.where(counts, kinds.weights(self.grades, "split.grades"), 0).astype(np.float32)
        for name, counted, grade in zip(kinds.names, counts, gain, strict=True):
            if counted and not grade:
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

    test_cutoffs: PositiveInt | None = None
    """How many test cutoffs; none: 4, or as many as the log before the newest has room for and as ask somebody."""
    test_step: str | None = None
    """Distance between them; none: the length of the test window, so that windows do not overlap, or less where it must be."""

    def folds(self, shop: Shop) -> tuple[Fold, ...]:
        """The folds on this shop's log, oldest first."""
        newest = self.fold(shop)
        length, given = newest.test.length, None if self.test_step is None else milliseconds(self.test_step)
        if given == 0:
            raise ConfigError(f"split.test_step: wanted a span longer than nothing, found {self.test_step!r}")
        before, first = newest.test.cutoff, int(shop.log.time[0])
        room = before - first - self.lead(newest.labels[-1].length if newest.labels else 0) - 1
        count, step = windows.spread(room, length, self.test_cutoffs, windows.TEST_CUTOFFS, given)
        if self.test_cutoffs and count < self.test_cutoffs:
            raise ConfigError(
                f"split.test_cutoffs: {windows.plural(self.test_cutoffs, 'test window')} of {span(length)} do not fit: the log"
                f" before the newest cutoff has {span(before - first)}, room for {count}"
            )
        folds = [self.fold(shop, back=i * step) for i in reversed(range(count))]
        reason = f"the log before the newest cutoff has {span(before - first)}"
        if self.test_cutoffs is None and (kept := [fold for fold in folds[:-1] if self.asks(shop, fold)]) != folds[:-1]:
            folds, reason = [*kept, newest], "the others ask nobody"
        wanted = self.test_cutoffs or windows.TEST_CUTOFFS
        overlap = step if given is None and step < length and len(folds) > 1 else None
        if len(folds) != wanted or overlap:
            why = windows.taken("test window", length, len(folds), length, wanted, reason, overlap)
            folds[-1] = replace(newest, notes=(why, *newest.notes))
        return tuple(folds)
