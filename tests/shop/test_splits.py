import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import BUY, CART, VIEW, kinds_of, log_of
from pydantic import ValidationError

from recsys.errors import ConfigError
from recsys.shop.shop import Shop
from recsys.shop.splits import Rolling, Split, Window

DAY = 86_400_000


SHOP = Shop.of(
    log_of(
        [
            ("ann", "a", VIEW, 1),
            ("ann", "b", VIEW, 2),
            ("bob", "a", VIEW, 2),
            ("cat", "c", VIEW, 3),
            ("ann", "b", BUY, 11),
            ("ann", "a", BUY, 11),
            ("ann", "c", BUY, 12),
            ("bob", "new", BUY, 12),
            ("cat", "c", CART, 13),
            ("dan", "a", BUY, 13),
            ("ann", "a", BUY, 25),
        ],
        DAY,
    )
)


def asked(split: Split, shop: Shop = SHOP) -> dict[str, dict[str, float]]:
    """Truth of the test task under own ids."""
    task = split.test_task(shop, split.fold(shop).test)
    truth = task.truth
    return {
        str(shop.log.users.ids[user]): {
            str(shop.log.items.ids[i]): float(g) for i, g in zip(truth.item[s:e], truth.grade[s:e], strict=True)
        }
        for user, s, e in zip(task.queries.user, truth.indptr[:-1], truth.indptr[1:], strict=True)
    }


def at_day(day: int) -> str:
    return str(pd.Timestamp(day * DAY, unit="ms"))


def test_window_target_holds_all_bought_items_known_before_the_cutoff():
    split = Split(cutoff=at_day(10), horizon="10d", label_cutoffs=0)
    assert asked(split) == {"ann": {"a": 4, "b": 4, "c": 4}}


def test_next_target_is_everything_bought_at_the_first_instant():
    split = Split(cutoff=at_day(10), horizon="10d", target="next", label_cutoffs=0)
    assert asked(split) == {"ann": {"a": 4, "b": 4}}


def test_cold_items_can_be_kept_as_certain_misses():
    split = Split(cutoff=at_day(10), horizon="10d", cold_items="keep", label_cutoffs=0)
    truth = asked(split)
    assert truth["bob"] == {"new": 4}
    task = split.test_task(SHOP, split.fold(SHOP).test)
    assert task.truth.item.max() >= SHOP.before(10 * DAY).log.n_items


def test_grade_is_that_of_the_strongest_event():
    log = log_of([("u", "i", VIEW, 1), ("u", "i", CART, 5), ("u", "i", BUY, 6), ("u", "i", VIEW, 7)], DAY)
    split = Split(cutoff=at_day(4), target_events=["addtocart", "transaction"], label_cutoffs=0)
    assert asked(split, Shop.of(log)) == {"u": {"i": 4}}


def test_every_exclusion_is_counted():
    split = Split(cutoff=at_day(10), horizon="10d", min_events=2, label_cutoffs=0)
    task = split.test_task(SHOP, split.fold(SHOP).test)
    assert task.funnel == {
        "users with a target event": 3,
        "without an event before the cutoff": 1,
        "with fewer than 2 events before it": 1,
        "with cold target items only": 0,
        "(cold target items dropped)": 0,
        "queries": 1,
    }


def test_horizon_ends_the_window_just_before():
    shop = Shop.of(log_of([("u", "i", VIEW, 1), ("u", "i", BUY, 5), ("v", "i", VIEW, 1), ("v", "i", BUY, 8)], DAY))
    assert asked(Split(cutoff=at_day(4), horizon="4d", label_cutoffs=0), shop) == {"u": {"i": 4}}
    assert set(asked(Split(cutoff=at_day(4), horizon="4d1ms", label_cutoffs=0), shop)) == {"u", "v"}


def test_an_event_at_the_cutoff_belongs_to_the_window():
    log = log_of([("u", "i", VIEW, 1), ("u", "i", BUY, 4)], DAY)
    split = Split(cutoff=at_day(4), label_cutoffs=0)
    task = split.test_task(Shop.of(log), split.fold(Shop.of(log)).test)
    assert kinds_of(task.queries) == [VIEW]
    assert asked(split, Shop.of(log)) == {"u": {"i": 4}}


def test_quantile_cutoff_is_the_quantile_of_event_time():
    assert Split(cutoff=0.5, label_cutoffs=0).fold(SHOP).test.cutoff == int(np.quantile(SHOP.log.time, 0.5))


def test_time_zones_are_read():
    split = Split(cutoff="1970-01-11T02:00:00+02:00", horizon="1d", label_cutoffs=0)
    assert split.fold(SHOP).test == Window(10 * DAY, 11 * DAY)


def test_label_windows_end_by_the_test_cutoff_less_the_gap():
    split = Split(cutoff=at_day(20), horizon="4d", label_cutoffs=3, label_step="2d", label_horizon="5d", label_gap="1d")
    fold = split.fold(SHOP)
    assert [(w.cutoff // DAY, w.end // DAY) for w in fold.labels] == [(10, 15), (12, 17), (14, 19)]


def test_as_many_label_windows_are_taken_as_begin_after_the_first_event():
    fold = Split(cutoff=at_day(10), horizon="4d", label_step="4d").fold(SHOP)
    assert [w.cutoff // DAY for w in fold.labels] == [2, 6]
    assert fold.notes == ("2 label windows of 4 days instead of 4: the log before the cutoff has 9 days",)


def test_label_windows_are_shorter_where_not_one_as_long_as_the_test_window_fits():
    fold = Split(cutoff=at_day(10), horizon="15d").fold(SHOP)
    assert [(w.cutoff / DAY, w.end / DAY) for w in fold.labels][-1] == (5.5, 10)
    assert len(fold.labels) == 4
    assert fold.notes == ("4 label windows of 4.5 days instead of 4 of 15 days: the log before the cutoff has 9 days",)


def test_label_windows_are_longer_where_those_as_long_as_the_test_window_ask_nobody():
    days = ((1, VIEW), (5, BUY), (20, BUY))
    shop = Shop.of(log_of([(user, "i", kind, day) for day, kind in days for user in "ab"], DAY))
    fold = Split(cutoff=at_day(20)).fold(shop)
    assert fold.test.end - fold.test.cutoff == 1
    assert fold.labels[-1] == Window(10 * DAY + DAY // 2, 20 * DAY)
    assert fold.notes[0].endswith("nobody is asked anything in label windows of 1 millisecond")


@given(
    cutoff=st.floats(0.3, 0.95),
    horizon=st.integers(1, 9),
    step=st.integers(1, 9),
    gap=st.integers(0, 3),
    n=st.integers(1, 6),
)
def test_nothing_of_a_label_window_reaches_the_test_window(cutoff: float, horizon: int, step: int, gap: int, n: int):
    split = Split(cutoff=cutoff, horizon=f"{horizon}d", label_cutoffs=n, label_step=f"{step}d", label_gap=f"{gap}d")
    try:
        fold = split.fold(SHOP)
    except ConfigError:
        return
    for window in fold.labels:
        assert window.cutoff < window.end <= fold.test.cutoff - gap * DAY
        task = split.label_task(SHOP, window)
        assert (task.queries.event_time < window.cutoff).all()
    assert list(fold.labels) == sorted(fold.labels, key=lambda w: w.cutoff)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cutoff": "soon"}, "wanted a time such as"),
        ({"cutoff": 1.5}, "between 0 and 1"),
        ({"horizon": "a while"}, "wanted a span such as 28d"),
        ({"horizon": "-3d"}, "can't be negative"),
        ({"target": "nxt"}, "'next' or 'window'"),
        ({"target_events": []}, "at least 1"),
        ({"grades": {"view": 0}}, "greater than 0"),
    ],
)
def test_wrong_options_are_refused_when_made(options: dict, says: str):
    with pytest.raises(ValidationError, match=says):
        Split(**options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cutoff": "2015-01-01"}, "split.cutoff: wanted a time after the first event"),
        ({"cutoff": 0.5, "label_horizon": "90d"}, "split.label_horizon"),
        (
            {"cutoff": at_day(10), "horizon": "4d", "label_step": "4d", "label_cutoffs": 9},
            "split.label_cutoffs: 9 windows of 4 days .* room for 2",
        ),
        ({"cutoff": 0.5, "horizon": "0d"}, "longer than nothing"),
    ],
)
def test_windows_that_the_log_cannot_fill_are_refused(options: dict, says: str):
    with pytest.raises(ConfigError, match=says):
        Split(**options).fold(SHOP)


def test_no_query_left_is_an_error_that_tells_the_counts():
    split = Split(cutoff=at_day(10), horizon="10d", min_events=50, label_cutoffs=0)
    with pytest.raises(ConfigError, match="with fewer than 50 events before it: 2"):
        split.test_task(SHOP, split.fold(SHOP).test)


def test_a_target_kind_without_a_grade_is_refused():
    split = Split(cutoff=at_day(10), grades={"view": 1}, label_cutoffs=0)
    with pytest.raises(ConfigError, match="wanted a grade for 'transaction'"):
        split.test_task(SHOP, split.fold(SHOP).test)


def rolling(**settings: object) -> Rolling:
    return Rolling(**{"cutoff": at_day(13), "horizon": "2d", "label_cutoffs": 1, "label_horizon": "2d", **settings})


def test_a_backtest_moves_all_windows_back_by_equal_steps():
    folds = rolling(test_cutoffs=3, test_step="1d").folds(SHOP)
    assert [(fold.test.cutoff // DAY, fold.test.end // DAY) for fold in folds] == [(11, 13), (12, 14), (13, 15)]
    assert [fold.labels[0].end // DAY for fold in folds] == [11, 12, 13]


def test_test_windows_of_a_backtest_follow_one_another_where_no_step_is_given():
    folds = rolling(test_cutoffs=2).folds(SHOP)
    assert folds[0].test.end == folds[1].test.cutoff
    to_the_end = rolling(cutoff=at_day(20), horizon=None, test_cutoffs=2).folds(SHOP)
    assert to_the_end[1].test.end == SHOP.log.time[-1] + 1
    assert len({fold.test.end - fold.test.cutoff for fold in to_the_end}) == 1


def test_one_fold_of_a_backtest_is_that_of_a_plain_split():
    settings = {"cutoff": at_day(13), "horizon": "2d", "label_cutoffs": 1, "label_horizon": "2d"}
    assert rolling(test_cutoffs=1).folds(SHOP) == Split(**settings).folds(SHOP) == (Split(**settings).fold(SHOP),)


def test_a_backtest_takes_as_many_test_windows_as_fit_and_says_so():
    folds = rolling(cutoff=at_day(12), horizon="1d", label_cutoffs=0).folds(SHOP)
    assert [(fold.test.cutoff // DAY, fold.test.end // DAY) for fold in folds] == [(11, 12), (12, 13)]
    assert folds[-1].notes == ("2 test windows of 24 hours instead of 4: the others ask nobody",)


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"test_cutoffs": 40}, "split.test_cutoffs: 40 test windows of 2 days"), ({"test_step": "0d"}, "split.test_step")],
)
def test_a_backtest_that_does_not_fit_names_the_key(settings: dict[str, object], key: str):
    with pytest.raises(ConfigError, match=key):
        rolling(**settings).folds(SHOP)


def test_a_step_that_is_no_span_is_refused():
    with pytest.raises(ValidationError, match="wanted a span"):
        rolling(test_step="soon")
