"""The choice of windows: answers worked out by hand, and every default on logs of any length."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.shop import windows
from recsys.shop.events import EventLog
from recsys.shop.kinds import RETAIL
from recsys.shop.shop import Shop
from recsys.shop.splits import Fold, Rolling, Split
from recsys.tuning.validation import validation_folds

DAY = 86_400_000


@pytest.mark.parametrize(
    ("room", "count", "step", "found"),
    [
        (56, None, None, (3, 28)),  # room for all
        (55, None, None, (2, 28)),  # for two without overlap
        (27, None, None, (3, 10)),  # for one: overlapping, as far apart as leaves a quarter of a length free
        (13, None, None, (2, 7)),  # a quarter apart at least
        (6, None, None, (1, 7)),
        (0, None, None, (1, 7)),
        (-1, None, None, (0, 28)),
        (55, 3, None, (3, 24)),  # asked for by number: overlapping rather than fewer
        (55, 9, None, (8, 7)),  # and those that fit at the closest
        (27, 1, None, (1, 28)),
        (55, None, 9, (3, 9)),  # a given distance is kept
        (55, 9, 9, (7, 9)),
    ],
)
def test_windows_of_28_days_in_the_room_that_there_is(room, count, step, found):
    assert windows.spread(room, 28, count, 3, step) == found


@pytest.mark.parametrize(
    ("length", "text"),
    [(28 * DAY, "28 days"), (28.2 * DAY, "28.2 days"), (DAY, "24 hours"), (3650 * DAY, "3,650 days"), (1, "1 millisecond")],
)
def test_a_length_is_written_for_people(length, text):
    assert windows.span(int(length)) == text


def test_one_line_says_what_was_taken_and_why():
    reason = "the log before the cutoff has 107 days"
    assert windows.taken("window", 28 * DAY, 2, 28 * DAY, 3, reason) == f"2 windows of 28 days instead of 3: {reason}"
    assert windows.taken("window", 9 * DAY, 1, 28 * DAY, 3) == "1 window of 9 days instead of 3 of 28 days"
    assert (
        windows.taken("window", 9 * DAY, 3, 9 * DAY, 3, overlap=4 * DAY)
        == "3 windows of 9 days, 4 days apart so that they overlap"
    )


@st.composite
def shops(draw: st.DrawFn) -> Shop:
    """From a day to eleven years, from 50 to 50,000 events; early, late or in bursts, to the millisecond or to the day."""
    n, days = draw(st.integers(50, 50_000)), draw(st.integers(1, 4000))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    place = rng.random(n) ** draw(st.sampled_from([0.1, 0.5, 1.0, 3.0, 20.0]))
    if draw(st.booleans()):
        bursts = rng.random(draw(st.integers(1, 5)))
        place = np.where(rng.random(n) < 0.95, rng.choice(bursts, n), place)
    time = (place * days * DAY).astype(np.int64)
    if draw(st.booleans()):
        time -= time % DAY
    users, items = draw(st.integers(1, n)), draw(st.integers(1, n))
    kind = rng.choice(RETAIL.names, n, p=draw(st.sampled_from([(0.9, 0.07, 0.03), (0, 0, 1), (1, 0, 0), (0.5, 0.5, 0)])))
    log = EventLog.build(rng.integers(users, size=n), rng.integers(items, size=n), kind, 1_400_000_000_000 + time)
    return Shop.of(log)


def told(make: Callable[[], object]) -> object:
    """What is made, or None where one line says what is too little."""
    try:
        return make()
    except ConfigError as error:
        text = str(error)
        assert "\n" not in text
        says = (
            "no query is left in the test window",
            "no validation window fits",
            "no label window fits",
            "wanted a time after",
        )
        assert any(each in text for each in says), text
        return None


def check(shop: Shop, folds: list[Fold], end: int) -> None:
    for fold in folds:
        assert fold.test.cutoff < fold.test.end
        assert shop.log.time[0] < fold.test.cutoff
        assert 1 <= len(fold.labels) <= windows.LABEL_WINDOWS
        for label in fold.labels:
            assert shop.log.time[0] < label.cutoff < label.end <= fold.test.cutoff
        assert all("\n" not in note for note in fold.notes)
    assert max(fold.test.cutoff for fold in folds) <= end


@settings(max_examples=60)
@given(shops())
def test_every_default_works_on_any_log_or_one_line_says_what_is_too_little(shop: Shop):
    split = Split()
    fold = told(lambda: split.fold(shop))
    if fold is None:
        assert len(np.unique(shop.log.time)) < 3 or np.quantile(shop.log.time, 0.8) - shop.log.time[0] < 3, (
            "there is room for windows"
        )
        return
    assert isinstance(fold, Fold)
    check(shop, [fold], fold.test.cutoff)
    told(lambda: split.test_task(shop, fold.test))
    rolling = Rolling().folds(shop)
    check(shop, list(rolling), fold.test.cutoff)
    assert rolling[-1] == fold
    assert all(Rolling().test_task(shop, each.test) for each in rolling[:-1])
    found = told(lambda: validation_folds(split, shop, labels=1))
    if found is None:
        return
    past, folds, line = found
    assert 1 <= len(folds) <= windows.VALIDATION_WINDOWS
    assert past.log.time[-1] < fold.test.cutoff
    check(past, folds, fold.test.cutoff)
    for each in folds:
        assert each.test.end <= fold.test.cutoff
        assert len(split.test_task(past, each.test).queries)
        assert any(len(split.label_task(past, label).queries) for label in each.labels)
    assert line.startswith(f"{len(folds)} validation window")
