"""What must not be known: the answers from a past that tells nothing, and who is who under other numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from recsys.audit._chance import LEAST_EDGE, MANY, Float64, among_random, edge, hits_beyond_chance, luck, percentile
from recsys.audit.certificate import Check
from recsys.audit.disguise import Disguised
from recsys.audit.fresh import FitError
from recsys.audit.invariance import stops
from recsys.audit.trace import Trace
from recsys.errors import UserError
from recsys.shop import ragged
from recsys.shop.events import Int64
from recsys.shop.identity import Int32
from recsys.shop.pairs import pair_key
from recsys.shop.queries import Truth
from recsys.shop.shop import Shop

ALPHA = 0.002
"""Chance of a false alarm, each for lists and for features and scores, over all their tests together."""
SURELY = 3.5
"""Standard errors by which a disguise has to cost something to be a finding."""
MUCH = 0.1
"""Share of the hits that it has to cost."""
LEAST_LOSS = 0.05
"""AUC that a column has to lose by a disguise to be a finding."""
FIRST = 20
"""Items of each source's list that are looked at."""
LISTS, FEATURES = "lists from an uninformative past", "features from an uninformative past"
DISGUISE_LISTS, DISGUISE_FEATURES = "lists in disguise", "features in disguise"


Pairs = tuple[Int64, Int32]
"""Rows and items, ascending: targets among other items of the same queries."""


@dataclass(eq=False)
class Placebo:
    """A fit on a past that tells nothing, and the answers there.

    `truths`: the answers by the own ids of the items, then by their numbers. Own ids have changed places, so that any other
    item stands for chance; numbers tell how old an item is, so that only its neighbours do. `pairs` and `chosen`: the made-up
    pools with the places of the targets.
    """

    n_items: int
    truths: dict[str, Truth]
    pairs: list[Pairs]
    chosen: list[Int64]
    trace: Trace | None = None

    @classmethod
    def of(cls, shop: Shop, number: Int32, truth: Truth, seed: int) -> "Placebo":
        """Of a shop where the own id of item `i` has the number `number[i]`."""
        n = shop.log.n_items
        truths = {"own id": renumbered(truth, number), "number": truth}
        made = [among_random(each, n, seed=seed, near=what == "number") for what, each in truths.items()]
        return cls(n, truths, [(row, item) for row, item, _ in made], [chosen for *_, chosen in made])


def uninformative(make: Callable[[], Placebo], seed: int, k: int) -> list[Check]:
    """From a past that tells nothing, nothing may be better than chance on the true answers."""
    try:
        placebo = make()
    except (FitError, UserError) as error:
        return [Check(LISTS, "skipped", f"It cannot be fitted on such a past: {error}")]
    assert placebo.trace is not None
    tests = {}
    for what, truth in placebo.truths.items():
        for name, keys in _lists(placebo.trace, k).items():
            tests[f"{name}, items by {what}"] = hits_beyond_chance(keys, truth, placebo.n_items, seed, near=what == "number")
    figures = {what: {"hits": hit, "by chance": round(mean, 3), "p": p} for what, (hit, mean, p) in tests.items()}
    known = [what for what, (_, _, p) in tests.items() if p < ALPHA / len(tests)]
    finding = "Fitted on a past that tells nothing, lists and pools hit no more than chance."
    if known:
        hit, mean, _ = tests[known[-1]]
        finding = (
            f"Fitted on a past that tells nothing, {known[-1]}, still hit {hit:.0f} targets where chance gives {mean:.1f}:"
            " they know the answers from elsewhere."
        )
    checks = [Check(LISTS, "fail" if known else "pass", finding, {"tests": figures})]
    return [*checks, _columns(placebo)] if placebo.trace.reads else checks


def _columns(placebo: Placebo) -> Check:
    """Every feature, and the score, of true answers among other items."""
    assert placebo.trace is not None
    targets = min(len(chosen) for chosen in placebo.chosen)
    if targets < 10:
        return Check(FEATURES, "skipped", f"{targets} distinct targets are too few to tell.")
    columns = {
        f"{column}, items by {what}": (row, values, chosen)
        for what, (row, _), chosen, of_pairs in zip(
            placebo.truths, placebo.pairs, placebo.chosen, placebo.trace.columns, strict=True
        )
        for column, values in of_pairs.items()
    }
    edges = {column: edge(*each) for column, each in columns.items()}
    enough = NormalDist().inv_cdf(1 - ALPHA / 2 / len(edges))
    known = [column for column, (auc, z) in edges.items() if abs(z) > enough and abs(auc - 0.5) > LEAST_EDGE]
    known = [column for column in known if luck(*columns[column]) < max(ALPHA / len(edges), 2 / MANY)]
    figures = {"targets": targets, "auc": {column: round(auc, 4) for column, (auc, _) in edges.items()}}
    if known:
        worst = max(known, key=lambda column: abs(edges[column][0] - 0.5))
        finding = (
            f"Fitted on a past that tells nothing, {worst}, still tells targets from other items"
            f" (AUC {edges[worst][0]:.2f}, chance 0.50): it knows the answers from elsewhere."
        )
        return Check(FEATURES, "fail", finding, {"know": known, **figures})
    finding = f"Fitted on a past that tells nothing, none of {len(edges)} columns tells {targets} targets from other items."
    return Check(FEATURES, "pass", finding, figures)


class InDisguise:
    """The answers that a disguise leaves, and targets among random items, under the numbers of both worlds."""

    def __init__(self, disguise: Disguised, users: Int32, truth: Truth, seed: int) -> None:
        self.disguise = disguise
        rows = ragged.row_numbers(truth.indptr)
        stays = truth.item < len(disguise.item)
        stays[stays] = disguise.item[truth.item[stays]] >= 0
        stays &= disguise.user[users[rows]] >= 0
        indptr = ragged.from_sorted(rows[stays], len(truth))
        self.truth = Truth(indptr, truth.item[stays], truth.grade[stays])
        left = np.flatnonzero(disguise.item >= 0)
        self.truth_there = Truth(indptr, disguise.item[self.truth.item], self.truth.grade)
        row, item, self.chosen = among_random(self.truth_there, len(left), seed=seed)
        self.pairs_there: Pairs = row, item
        self.pairs: Pairs = row, left[item].astype(np.int32)

    def checks(self, base: Trace, make: Callable[[], Trace], k: int) -> list[Check]:
        """Under other numbers nothing may be much worse."""
        try:
            there = make()
        except (FitError, UserError) as error:
            return [stops(DISGUISE_LISTS, "the past in disguise", error)]
        checks = [self._lists(base, there, k)]
        return [*checks, self._columns(base, there)] if base.reads else checks

    def _lists(self, base: Trace, there: Trace, k: int) -> Check:
        asked = self.truth.count > 0
        figures: dict[str, dict[str, float]] = {}
        for (name, keys), other in zip(_lists(base, k).items(), _lists(there, k).values(), strict=True):
            found, found_there = _recall(keys, self.truth)[asked], _recall(other, self.truth_there)[asked]
            lost, error = _mean(found - found_there)
            figures[name] = {
                "recall": round(float(found.mean()), 5),
                "in disguise": round(float(found_there.mean()), 5),
                "standard errors": round(lost / error, 2) if error else 0.0,
            }
        cost = {name: each["recall"] - each["in disguise"] for name, each in figures.items()}
        known = [n for n, each in figures.items() if each["standard errors"] > SURELY and cost[n] > MUCH * each["recall"]]
        if known:
            worst = figures[known[0]]
            finding = (
                f"Under other numbers, names and dates the recall of {known[0]} falls from {worst['recall']:.4f} to"
                f" {worst['in disguise']:.4f}: something there knows users or items from elsewhere, by number or by history."
            )
            return Check(DISGUISE_LISTS, "fail", finding, {"lists": figures})
        finding = "Under other numbers, names and dates lists and pools are as good as before."
        return Check(DISGUISE_LISTS, "pass", finding, {"lists": figures})

    def _columns(self, base: Trace, there: Trace) -> Check:
        if len(self.chosen) < 10:
            return Check(DISGUISE_FEATURES, "skipped", f"{len(self.chosen)} distinct targets are too few to tell.")
        row, figures, known = self.pairs[0], dict[str, Any](), list[str]()
        for name, values in base.columns[0].items():
            places, places_there = (percentile(row, each)[self.chosen] for each in (values, there.columns[0][name]))
            side = 1 if places.mean() >= 0.5 else -1
            lost, error = _mean(side * (places - places_there))
            figures[name] = [round(float(places.mean()), 4), round(float(places_there.mean()), 4)]
            had = abs(float(places.mean()) - 0.5)
            if lost > SURELY * error and had - abs(float(places_there.mean()) - 0.5) > max(LEAST_LOSS, had / 3):
                known.append(name)
        evidence = {"targets": len(self.chosen), "auc before and in disguise": figures}
        if known:
            worst = max(known, key=lambda name: abs(figures[name][0] - figures[name][1]))
            finding = (
                f"Under other numbers, names and dates {worst} tells targets from random items less well (AUC"
                f" {figures[worst][0]:.2f} before, {figures[worst][1]:.2f} then): it knows users or items from elsewhere."
            )
            return Check(DISGUISE_FEATURES, "fail", finding, {"know": known, **evidence})
        finding = f"Under other numbers, names and dates all {len(figures)} columns tell as much as before."
        return Check(DISGUISE_FEATURES, "pass", finding, evidence)


def renumbered(truth: Truth, number: Int32) -> Truth:
    """The truth with the items of `number` only, each called what `number` says."""
    rows = ragged.row_numbers(truth.indptr)
    known = truth.item < len(number)
    rows, item, grade = rows[known], number[truth.item[known]], truth.grade[known]
    order = np.lexsort((item, rows))
    return Truth(ragged.from_sorted(rows[order], len(truth)), item[order], grade[order])


def _lists(found: Trace, k: int) -> dict[str, Int64]:
    """Ascending keys of the (query, item) pairs of the lists, the pools, and the first of each source."""
    pool, lists = found.pool, found.lists
    assert pool is not None
    assert lists is not None
    row, place = np.nonzero(lists.item[:, :k] >= 0)
    return {
        f"the lists of {k}": np.sort(pair_key(row, lists.item[row, place])),
        "the candidate pools": pool.key,
        **{
            f"the first {FIRST} of {name}": pool.key[(pool.rank[s] > 0) & (pool.rank[s] <= FIRST)]
            for s, name in enumerate(pool.sources)
        },
    }


def _recall(keys: Int64, truth: Truth) -> Float64:
    hits = np.bincount(ragged.row_numbers(truth.indptr), np.isin(truth.key, keys), minlength=len(truth))
    return hits / np.maximum(truth.count, 1)


def _mean(values: Float64) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std() / np.sqrt(max(len(values), 1)))
