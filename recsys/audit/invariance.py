"""What has to be the same to the last bit, whatever comes after the cutoff and whatever things are called."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.audit.certificate import Check
from recsys.audit.fresh import FitError
from recsys.audit.trace import Trace
from recsys.errors import UserError
from recsys.shop import ragged
from recsys.shop.pairs import pair_key
from recsys.shop.shop import Shop
from recsys.shop.splits import Fold, Task

WHOLE_FITS_ONLY = ("the training labels", "the fitted retriever", "the fitted features", "the fitted ranker")
"""Parts of whole fits: of all label windows, or with names and dates in them."""


def past(world: Shop, test: Task) -> Check:
    """`shop.before(t)` shows nothing of the future."""
    cutoff = test.window.cutoff
    known = world.before(cutoff)
    log, catalogue, customers = known.log, known.catalogue, known.customers
    named = catalogue.texts.ids[np.unique(catalogue.value[catalogue.rows_of(catalogue.category_property)])]
    broken = {
        "an event": bool((log.time >= cutoff).any()),
        "a user": bool((log.user_born >= cutoff).any() or log.n_users != len(log.user_born)),
        "an item": bool((log.item_born >= cutoff).any() or log.n_items != len(log.item_born)),
        "a property": bool((catalogue.time >= cutoff).any()),
        "a catalogue item": bool(catalogue.n_items != log.n_items or (catalogue.owner >= catalogue.n_items).any()),
        "a category": len(catalogue.tree.only(named)) < len(catalogue.tree),
        "a customer": bool(customers.n_users != log.n_users or (customers.owner >= customers.n_users).any()),
        "an attribute of a customer": bool((customers.time >= cutoff).any()),
        "a history": bool((test.queries.event_time >= cutoff).any()),
    }
    found = [what for what, is_broken in broken.items() if is_broken]
    counts = {"events": len(log), "users": log.n_users, "items": log.n_items, "property changes": len(catalogue)}
    counts |= {"categories": len(catalogue.tree), "changes of customers": len(customers)}
    if found:
        return Check("past", "fail", f"The past of the cutoff shows {' and '.join(found)} of the future.", counts)
    finding = "The past of the cutoff holds no event, user, item, attribute or category of the future."
    return Check("past", "pass", finding, counts)


def labels_before_test(world: Shop, fold: Fold, labels: Sequence[Task], test: Task) -> Check:
    """Training labels are events of their own window, and every window ends by the test cutoff."""
    late = [str(window) for window in fold.labels if window.end > fold.test.cutoff]
    asked = user_items(test)
    unfounded = shared = total = 0
    for task in labels:
        happened = world.log.between(task.window.cutoff, min(task.window.end, fold.test.cutoff))
        pairs = user_items(task)
        unfounded += int((~np.isin(pairs, pair_key(happened.user, happened.item))).sum())
        shared += int(np.isin(pairs, asked).sum())
        total += len(pairs)
    evidence = {
        "label windows": len(fold.labels),
        "windows that reach past the test cutoff": late,
        "training labels": total,
        "without an event in their window before the test cutoff": unfounded,
        "with a (user, item) that the test asks for too, by an earlier event": shared,
    }
    if late or unfounded:
        finding = f"{unfounded:,} of {total:,} training labels do not come from events of their window before the test cutoff."
        return Check("training labels", "fail", finding, evidence)
    return Check("training labels", "pass", "Every training label is an event of its window, before the test cutoff.", evidence)


class Compare:
    """Compares fits with one fit, part by part, and tells a difference from a draw without a seed."""

    def __init__(self, base: Trace, again: Callable[[], Trace]) -> None:
        self.base, self._again = base, again
        self.random = False
        """Whether two equal fits differ, so that nothing can be shown."""
        self._repeated = False

    def whole(self, how: str, other: Trace) -> list[Check]:
        """The fit on the data as they are, all parts of it."""
        why = "something there reads the future"
        return self._checks(f"future {how}", f"the future {how}", other.parts, self.base.parts, why)

    def same(self, name: str, how: str, make: Callable[[], Trace], why: str) -> list[Check]:
        """A fit in another world, those parts that it shares with the first one."""
        if self.random:
            return []
        try:
            parts = make().parts
        except (FitError, UserError) as error:
            return [stops(name, how, error)]
        shared = [part for part in parts if part in self.base.parts and part not in WHOLE_FITS_ONLY]
        return self._checks(name, how, {p: self.base.parts[p] for p in shared}, {p: parts[p] for p in shared}, why)

    def _checks(self, name: str, how: str, base: dict[str, str], other: dict[str, str], why: str) -> list[Check]:
        differ = [part for part, mark in base.items() if other.get(part) != mark]
        if not differ:
            finding = f"With {how}, all {len(base)} stages are the same to the last bit."
            return [Check(name, "pass", finding, {"hashes": base})]
        evidence: dict[str, Any] = {"hashes": base, f"hashes with {how}": other}
        if not self._repeated:
            self._repeated, self.random = True, self._again().parts != self.base.parts
        if self.random:
            finding = "Two fits on the same data differ: without a seed for every random draw nothing can be shown."
            return [Check("same seed, same result", "fail", finding, evidence)]
        finding = f"With {how}, {differ[0]} {'are' if _is_plural(differ[0]) else 'is'} not the same" + (
            f": {why}." if why else "."
        )
        return [Check(name, "fail", finding, {**evidence, "differ": differ})]


def in_memory(base: Trace, here: dict[str, str]) -> Check:
    """The parts of a fit in a fresh process against those of one in the process that loaded the data."""
    name = "fresh process"
    shared = {part: mark for part, mark in here.items() if part in base.parts and part not in WHOLE_FITS_ONLY}
    differ = [part for part, mark in shared.items() if base.parts[part] != mark]
    if differ:
        verb = "are" if _is_plural(differ[0]) else "is"
        finding = f"In the process that loaded the data {differ[0]} {verb} not those of a fresh one: memory kept something."
        return Check(name, "fail", finding, {"differ": differ, "hashes": base.parts, "hashes in this process": here})
    return Check(name, "pass", "A fresh process gives the same as the one that loaded the data.", {"hashes": shared})


def stops(name: str, how: str, error: Exception) -> Check:
    """A fit that stops in another world."""
    return Check(name, "fail", f"With {how} it stops: {error}")


def user_items(task: Task) -> npt.NDArray[np.int64]:
    """The (user, item) pairs of a task's truth."""
    return pair_key(task.queries.user[ragged.row_numbers(task.truth.indptr)], task.truth.item)


def _is_plural(part: str) -> bool:
    return part.partition(" of ")[0].endswith("s")
