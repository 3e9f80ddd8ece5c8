"""What the split asks: that its answers happened, and how large and how easy a part of the window they are."""

from dataclasses import fields
from typing import Any

import numpy as np

from recsys.audit.certificate import Check
from recsys.audit.invariance import user_items
from recsys.evaluation import metrics
from recsys.shop.pairs import pair_key
from recsys.shop.shop import Shop
from recsys.shop.splits import Split, Task

SMALL = 0.5
"""Asking fewer than this share of the users that a plain split asks is a small part."""
EASIER = 0.1
"""Difference in the share of revisits, or of popular items, among the targets that makes a part an easy one."""
LEFT_OUT = 0.01
"""Share of the answers that a split of one's own may leave out, against its settings."""
POPULAR = 20
"""The items that sold best before the cutoff: a list of them finds such a target without knowing the user."""


def answers(world: Shop, test: Task, split: Split) -> Check:
    """Every answer is an event of the test window, of a kind that the split names, after the history that it is asked with."""
    window = test.window
    happened = world.log.between(window.cutoff, window.end)
    happened = happened.where(happened.kinds.among(split.target_events)[happened.kind])
    pairs = user_items(test)
    unfounded = int((~np.isin(pairs, pair_key(happened.user, happened.item))).sum())
    evidence = {"answers": len(pairs), "without an event of the window": unfounded}
    if unfounded:
        finding = f"{unfounded:,} of {len(pairs):,} answers are no event of the test window: they were put there."
        return Check("test answers", "fail", finding, evidence)
    return Check("test answers", "pass", "Every answer of the test is an event of its window.", evidence)


def share(world: Shop, test: Task, split: Split) -> Check:
    """How many of the users with a target event are asked, and how easy they are, against a plain split of the same window."""
    plain = Split(target_events=split.target_events, grades=split.grades).test_task(world, test.window)  # type: ignore[call-arg]
    popular = _popular(world, test.window.cutoff, split)
    asked, others = _figures(test, popular), _figures(plain, popular)
    users = plain.funnel["users with a target event"]
    left_out = _left_out(world, test, split)
    evidence: dict[str, Any] = {
        "users with a target event": users,
        "asked": asked,
        "a plain split asks": others,
        "share of answers that its settings ask for and it does not": round(left_out, 4),
    }
    part = asked["users"] / max(others["users"], 1)
    targets = asked["targets"] / max(others["targets"], 1)
    text = (
        f"{asked['users'] / max(users, 1):.0%} of the users with a target event are asked"
        f" ({others['users'] / max(users, 1):.0%} by a plain split); {asked['revisits']:.0%} of their targets are revisits"
        f" ({others['revisits']:.0%}), {asked['popular']:.0%} among the {POPULAR} best sellers ({others['popular']:.0%})"
    )
    easy = [what for what in ("revisits", "popular") if asked[what] > others[what] + EASIER]
    if part < SMALL or (easy and min(part, targets) < 0.9):
        how = "a small part" if part < SMALL else "a part"
        return Check("what is asked", "warn", f"{text}: {how}{', and an easy one' if easy else ''}.", evidence)
    if left_out > LEFT_OUT:
        finding = f"{text}; {left_out:.0%} of the answers that the split's own settings ask for are left out."
        return Check("what is asked", "warn", finding, evidence)
    return Check("what is asked", "pass", f"{text}.", evidence)


def _left_out(world: Shop, test: Task, split: Split) -> float:
    """Share of the answers that the package's own split, set like this one, asks for and this one does not."""
    settings = {field.name: getattr(split, field.name) for field in fields(Split)}  # type: ignore[arg-type]
    wanted = user_items(Split(**settings).test_task(world, test.window))
    return float((~np.isin(wanted, user_items(test))).mean())


def _popular(world: Shop, cutoff: int, split: Split) -> "np.typing.NDArray[np.integer]":
    past = world.before(cutoff).log
    wanted = past.where(past.kinds.among(split.target_events)[past.kind])
    count = np.bincount(wanted.item, minlength=past.n_items)
    return np.argsort(-count, kind="stable")[:POPULAR]


def _figures(task: Task, popular: "np.typing.NDArray[np.integer]") -> dict[str, float]:
    """Users, targets, the share of them that is in the history, and among popular items."""
    targets = max(len(task.truth.item), 1)
    return {
        "users": len(task.queries),
        "targets": len(task.truth.item),
        "revisits": round(float(metrics.revisit(task.queries, task.truth).sum()) / targets, 4),
        "popular": round(float(np.isin(task.truth.item, popular).sum()) / targets, 4),
    }
