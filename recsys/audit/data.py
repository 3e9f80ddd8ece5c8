"""Whether a data set gives answers away by itself: what is odd about its events, ids and times, before anything is fitted."""

import time
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from recsys.audit import asked
from recsys.audit.certificate import Check
from recsys.errors import ConfigError
from recsys.evaluation import metrics
from recsys.shop import ragged
from recsys.shop.events import MILLISECONDS_PER_DAY, EventLog, Int64
from recsys.shop.identity import Ids, texts_of
from recsys.shop.pairs import pair_key
from recsys.shop.shop import Shop
from recsys.shop.splits import Split, Task, Window

MILLISECONDS_PER_HOUR = 3_600_000
ANSWERED = 0.8
"""Where more of the targets stand in the history that they are asked with, repeating it is the answer."""
COPIED = 0.05
"""Share of the targets that may also be an event of the same user, item, kind and time of day before the cutoff."""
TWIN_ITEMS = 5
"""Distinct items from which on two users with the same items in the same order are one user under two ids."""
TWINS = 0.01
"""Share of the users with that many items who may be such twins."""
ONE_TIME = 0.05
"""Share of all events that may happen at one instant."""
MIDNIGHT = 0.5
"""Share of all events that may happen at midnight."""
IN_ORDER = 0.9
"""Rank correlation of own id and first appearance from which on ids tell the time."""
FEW_IDS = 20
"""Fewer ids say nothing of their order."""
ONE_USER = 0.1
"""Share of all events that one of many users may have."""
AN_HOUR, A_DAY = 600, 1440
"""Most instants of one hour and of one day at which a person acts."""
AWAKE = 20
"""Hours of one day in which a person may act."""
MORE = 0.25
"""Most by which the share of known targets may exceed that of the window before."""
EARLIEST = int(pd.Timestamp("1990-01-01").timestamp() * 1000)
"""No shop's log is older; a time in another unit looks as if it were."""


def audit_data(shop: Shop, split: Split) -> list[Check]:
    """Every check of a data set; the split says what is asked of it."""
    log = shop.log
    return [
        *_asked(shop, split),
        _twins(log),
        _times(log),
        _ids("user", log.users.ids, log.user_born),
        _ids("item", log.items.ids, log.item_born),
        _clock(shop),
        _inhuman(log),
    ]


def _asked(shop: Shop, split: Split) -> list[Check]:
    """Targets that the history holds already, and what the split asks at all."""
    name = "targets in the input"
    try:
        test = split.test_task(shop, split.fold(shop).test)
    except ConfigError as error:
        return [Check(name, "skipped", f"The split asks nothing of this data set: {error}")]
    length = test.window.end - test.window.cutoff
    known, before = _known(test), None
    with suppress(ConfigError):  # nobody to ask so early
        before = _known(split.test_task(shop, Window(test.window.cutoff - length, test.window.cutoff)))
    past = shop.before(test.window.cutoff).log
    future = shop.log.between(test.window.cutoff, test.window.end)
    wanted = future.kinds.among(split.target_events)[future.kind] & (future.user < past.n_users)
    future = future.where(wanted)
    daily = [
        pd.MultiIndex.from_arrays([log.user, log.item, log.kind, log.time % MILLISECONDS_PER_DAY]) for log in (past, future)
    ]
    timed = len(np.unique(shop.log.time % MILLISECONDS_PER_DAY)) > 1
    copied = float(daily[1].isin(daily[0]).mean()) if timed and len(future) else 0.0
    evidence = {
        "targets": len(test.truth.item),
        "share in the history": round(known, 4),
        "share in the window before": None if before is None else round(before, 4),
        "share copied": round(copied, 4),
    }
    finding = f"{known:.0%} of the targets stand in the history that they are asked with"
    checks = [Check(name, "pass", f"{finding}.", evidence)]
    if copied > COPIED:
        finding = f"{copied:.0%} of the target events also stand in the input, at the same time of another day: copied rows?"
        checks = [Check(name, "fail", finding, evidence)]
    elif before is not None and known > before + MORE:
        finding = f"{finding}, {before:.0%} in the window before: were targets put into the input?"
        checks = [Check(name, "warn", finding, evidence)]
    elif known > ANSWERED:
        checks = [Check(name, "warn", f"{finding}: repeating it is the answer.", evidence)]
    return [*checks, asked.share(shop, test, split)]


def _known(task: Task) -> float:
    """Share of the targets that stand in the history."""
    return float(metrics.revisit(task.queries, task.truth).sum() / max(len(task.truth.item), 1))


def _twins(log: EventLog) -> Check:
    """Users with the same history, at the same times or at others."""
    name = "duplicated users"
    indptr, order = log.by_user
    row, place = ragged.row_numbers(indptr), ragged.within_row(indptr).astype(np.uint64)
    event = pd.util.hash_array(pair_key(log.item[order], log.kind[order])) * (2 * place + 1)
    history = np.zeros(log.n_users, dtype=np.uint64)
    np.add.at(history, row, event)
    distinct = np.bincount(np.unique(pair_key(row, log.item[order])) >> 32, minlength=log.n_users)
    users = np.flatnonzero(distinct >= TWIN_ITEMS)
    _, first, count = np.unique(history[users], return_index=True, return_counts=True)
    twins = int(count[count > 1].sum())
    groups = [[str(own) for own in log.users.ids[users[history[users] == history[users[i]]]][:3]] for i in first[count > 1][:3]]
    evidence = {f"users with {TWIN_ITEMS} items": len(users), "of them with a twin": twins, "such as": groups}
    if not twins:
        return Check(name, "pass", f"No two users have the same history of {TWIN_ITEMS} items or more.", evidence)
    finding = f"{twins:,} of {len(users):,} users have the history of another, such as {' and '.join(groups[0])}"
    if twins > TWINS * len(users):
        finding = f"{finding}: what one of them does next may be known from the other."
        return Check(name, "fail", finding, evidence)
    return Check(name, "warn", f"{finding}.", evidence)


def _times(log: EventLog) -> Check:
    """Events at one instant, or on days without hours."""
    name = "times of one value"
    instant, count = np.unique(log.time, return_counts=True)
    most = int(count.max())
    midnight = float((log.time % MILLISECONDS_PER_DAY == 0).mean())
    evidence = {
        "instants": len(instant),
        "most events at one": most,
        "at": _text(int(instant[count.argmax()])),
        "share at midnight": round(midnight, 4),
    }
    if len(instant) == 1:
        return Check(name, "fail", f"All events happen at {evidence['at']}: there is no before and no after.", evidence)
    if most > max(ONE_TIME * len(log), 100):
        finding = f"{most / len(log):.0%} of all events happen at {evidence['at']}: a default, or the day of an import?"
        return Check(name, "warn", finding, evidence)
    if midnight > MIDNIGHT:
        finding = f"{midnight:.0%} of all events happen at midnight: within a day nothing tells what came first."
        return Check(name, "warn", finding, evidence)
    return Check(name, "pass", f"Events happen at {len(instant):,} instants, at most {most:,} at one.", evidence)


def _ids(what: str, ids: Ids, born: Int64) -> Check:
    """Own ids that ascend with first appearance."""
    name = f"{what} ids that sort by time"
    if len(np.unique(born)) < FEW_IDS:
        return Check(name, "skipped", f"{what.capitalize()}s appear at {len(np.unique(born))} instants: too few to tell.")
    values = pd.Series(ids)
    if values.dtype == object:
        whole = pd.to_numeric(values, errors="coerce")
        values = whole if whole.notna().all() else pd.Series(texts_of(ids).to_pandas())
    # Ids of one instant are numbered in their order by the log itself, so that they count as one.
    frame = pd.DataFrame({"rank": values.rank().to_numpy(), "born": born}).groupby("born")["rank"].mean()
    correlation = float(np.corrcoef(frame.to_numpy(), np.arange(len(frame)))[0, 1]) if frame.nunique() > 1 else 0.0
    evidence = {"ids": len(ids), "rank correlation with first appearance": round(correlation, 4)}
    if abs(correlation) > IN_ORDER:
        finding = f"{what.capitalize()} ids go by first appearance (rank correlation {correlation:.2f}): an id tells the time."
        return Check(name, "warn", finding, evidence)
    return Check(name, "pass", f"{what.capitalize()} ids do not go by first appearance ({correlation:.2f}).", evidence)


def _clock(shop: Shop) -> Check:
    """Times after now, or before there were shops with a log."""
    name = "times after now"
    now, log, changes = int(time.time() * 1000), shop.log, shop.catalogue.time
    late, late_changes = int((log.time > now).sum()), int((changes > now).sum())
    early = int((log.time < EARLIEST).sum())
    evidence = {"events after now": late, "property changes after now": late_changes, "events before 1990": early}
    if late or late_changes:
        finding = (
            f"{late:,} events and {late_changes:,} property changes lie after now, the last at {_text(int(log.time[-1]))}."
        )
        return Check(name, "fail", finding, evidence)
    if early:
        finding = f"{early:,} events lie before 1990, the first at {_text(int(log.time[0]))}: is the unit of time right?"
        return Check(name, "warn", finding, evidence)
    return Check(name, "pass", f"Times lie between {_text(int(log.time[0]))} and {_text(int(log.time[-1]))}.", evidence)


def _inhuman(log: EventLog) -> Check:
    """Users with more events than a person makes."""
    name = "inhuman users"
    count = np.bincount(log.user, minlength=log.n_users)
    acts = pd.DataFrame({"user": log.user, "time": log.time}).drop_duplicates()
    acts["hour"], acts["day"] = acts["time"] // MILLISECONDS_PER_HOUR, acts["time"] // MILLISECONDS_PER_DAY
    per_hour = acts.groupby(["user", "day", "hour"]).size()
    per_day, awake = (per_hour.groupby(["user", "day"]).agg(how) for how in ("sum", "size"))
    beyond = [per_hour[per_hour > AN_HOUR], per_day[per_day > A_DAY], awake[awake > AWAKE]]
    users = np.unique(np.concatenate([each.index.get_level_values("user").to_numpy() for each in beyond]))
    largest = int(count.argmax())
    part = float(count[largest] / max(len(log), 1))
    evidence: dict[str, Any] = {
        "most instants of a user's hour": int(per_hour.max()),
        "most instants of a user's day": int(per_day.max()),
        "most hours of a user's day": int(awake.max()),
        "users beyond": [str(own) for own in log.users.ids[users][:10]],
        "largest user's events": int(count[largest]),
        "share of all events": round(part, 4),
    }
    if len(users):
        finding = (
            f"{len(users):,} users act at more than {AN_HOUR:,} instants of an hour or {A_DAY:,} of a day, or in more than"
            f" {AWAKE} hours of one, such as {evidence['users beyond'][0]}: bots?"
        )
        return Check(name, "warn", finding, evidence)
    if part > ONE_USER and log.n_users >= 100:
        finding = f"User {log.users.ids[largest]} has {part:.0%} of all events: an id that stands for many, or a bot?"
        return Check(name, "warn", finding, evidence)
    return Check(name, "pass", f"No user acts at more than {int(per_day.max()):,} instants of a day.", evidence)


def _text(moment: int) -> str:
    return str(pd.Timestamp(moment, unit="ms").floor("s"))
