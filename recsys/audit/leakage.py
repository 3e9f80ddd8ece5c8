"""A leakage certificate: what a recommender makes of the past, shown not to depend on what came after.

Two kinds of proof. *Invariance*: with the future deleted, then scrambled, everything has to be the same to the last bit: pools,
features, labels, the saved model, the lists. It finds what reaches the future through the data that was handed over. *Chance*:
from a past that tells nothing, pools, features, scores and lists have to be no better than chance on the true answers. It
finds what knows the answers from elsewhere, such as a global variable or a file.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.audit._chance import among_random, edge, hits_beyond_chance, percentile
from recsys.audit.certificate import Check
from recsys.audit.trace import Build, Trace, trace
from recsys.audit.worlds import scrambled_future, uninformative_past, without_future
from recsys.digest import digest
from recsys.evaluation import metrics, ties
from recsys.ranking import Examples
from recsys.shop import ragged
from recsys.shop.pairs import pair_key
from recsys.shop.pools import CandidatePool, Float32, Ranking
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop
from recsys.shop.splits import Fold, Split, Task

ALPHA = 0.002
"""Chance of a false alarm, each for lists and for features and scores, over all their tests together."""
LEAST_EDGE = 0.03
"""A smaller edge over one half is no finding, however certain."""
SHUFFLES = 4
TIES_MATTER = 0.005


def audit(world: Shop, split: Split, build: Build, seed: int = 0, k: int = 10) -> tuple[list[Check], Ranking | None, Task]:
    """Do every check; gives them with the lists of the world as it is (20 deep) and the task that they answer.

    Fits the recommender four times, its ranker a few times more. Label windows that reach past the test cutoff are not
    fitted at all: there are no lists then.
    """
    fold = split.fold(world)
    test = split.test_task(world, fold.test)
    labels = [split.label_task(world, window) for window in fold.labels]
    checks = [_promises(world, test), _labels_before_test(world, fold, labels, test)]
    if any(window.end > fold.test.cutoff for window in fold.labels):
        return checks, None, test
    base = trace(world, split, fold, test, build)
    checks += list(_invariance(world, split, fold, test, build, base, seed))
    if fold.labels and base.ranker.learns:
        checks.append(_label_features(world, labels[0], build, seed))
    checks += _chance(world, split, fold, test, build, seed, k)
    checks.append(_shuffled_labels(base, test.truth, seed))
    checks += [_injected(base, test), _ties(base, test.truth, k)]
    return checks, base.lists, test


def _promises(world: Shop, test: Task) -> Check:
    """`shop.before(t)` shows nothing of the future."""
    cutoff = test.window.cutoff
    past = world.before(cutoff)
    log, catalogue, customers = past.log, past.catalogue, past.customers
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


def _labels_before_test(world: Shop, fold: Fold, labels: Sequence[Task], test: Task) -> Check:
    """Training labels are events of their own window, and every window ends by the test cutoff."""
    late = [str(window) for window in fold.labels if window.end > fold.test.cutoff]
    asked = _user_items(test)
    unfounded = shared = total = 0
    for task in labels:
        happened = world.log.between(task.window.cutoff, min(task.window.end, fold.test.cutoff))
        pairs = _user_items(task)
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


def _invariance(world: Shop, split: Split, fold: Fold, test: Task, build: Build, base: Trace, seed: int) -> Iterator[Check]:
    worlds: dict[str, Callable[[], Shop]] = {
        "deleted": lambda: without_future(world, fold.test.cutoff),
        "scrambled": lambda: scrambled_future(world, fold.test.cutoff, seed),
    }
    for how, make in worlds.items():
        name = f"future {how}"
        try:
            other = trace(make(), split, fold, test, build).parts
        except Exception as error:
            finding = f"With the future {how} it stops: {type(error).__name__}: {error}"
            yield Check(name, "fail", finding)
            continue
        differ = [part for part, mark in base.parts.items() if other[part] != mark]
        evidence = {"hashes": base.parts, f"hashes with the future {how}": other}
        if not differ:
            finding = f"With the future {how}, all {len(other)} stages are the same to the last bit, from histories to lists."
            yield Check(name, "pass", finding, {"hashes": base.parts})
        elif trace(world, split, fold, test, build).parts != base.parts:
            finding = "Two fits on the same data differ: without a seed for every random draw nothing can be shown."
            yield Check("same seed, same result", "fail", finding, evidence)
            return
        else:
            finding = f"With the future {how}, {differ[0]} {_are(differ[0])} not the same: something there reads the future."
            yield Check(name, "fail", finding, {**evidence, "differ": differ})


def _label_features(world: Shop, task: Task, build: Build, seed: int) -> Check:
    """At the first label cutoff neither candidates nor features may depend on the labels' own window."""
    name, cutoff = "label window scrambled", task.window.cutoff

    def parts(of: Shop) -> dict[str, str]:
        recommender = build()
        past = of.before(cutoff)
        recommender.retriever.fit(past)
        recommender.features.fit(past)
        queries = Queries.at(past.log, task.queries.user, cutoff)
        pool = recommender.pool(queries)
        values = recommender.features.compute(pool, queries).values
        return {
            "the candidate pools": digest(pool.indptr, pool.item, pool.rank, pool.score),
            "the feature values": digest(values),
        }

    try:
        base, other = parts(world), parts(scrambled_future(world, cutoff, seed))
    except Exception as error:
        return Check(name, "fail", f"With the label window scrambled it stops: {type(error).__name__}: {error}")
    evidence = {"hashes": base, "hashes with the label window scrambled": other}
    if differ := [part for part in base if base[part] != other[part]]:
        finding = (
            f"With the first label window scrambled, {differ[0]} {_are(differ[0])} not the same: the labels leak into them."
        )
        return Check(name, "fail", finding, evidence)
    return Check(name, "pass", "Candidates and features of the first label window do not depend on its labels.", evidence)


def _chance(world: Shop, split: Split, fold: Fold, test: Task, build: Build, seed: int, k: int) -> list[Check]:
    """From a past that tells nothing, nothing may be better than chance on the true answers."""
    names = ("lists from an uninformative past", "features from an uninformative past")
    past = uninformative_past(world, fold.test.cutoff, seed)
    try:
        placebo = trace(past, split, fold, test, build)
    except Exception as error:
        return [Check(names[0], "skipped", f"It cannot be fitted on such a past: {type(error).__name__}: {error}")]
    n_items, pool = past.log.n_items, placebo.pool
    row, place = np.nonzero(placebo.lists.item[:, :k] >= 0)
    found = {
        f"the lists of {k}": np.sort(pair_key(row, placebo.lists.item[row, place])),
        "the candidate pools": pool.key,
        **{
            f"the first 20 of {name}": pool.key[(pool.rank[s] > 0) & (pool.rank[s] <= 20)]
            for s, name in enumerate(pool.sources)
        },
    }
    hits = {what: hits_beyond_chance(keys, test.truth, n_items, seed) for what, keys in found.items()}
    figures = {what: {"hits": hit, "by chance": round(mean, 3), "p": p} for what, (hit, mean, p) in hits.items()}
    known = [what for what, (_, _, p) in hits.items() if p < ALPHA / len(hits)]
    finding = "Fitted on a past that tells nothing, lists and pools hit no more than chance."
    if known:
        hit, mean, _ = hits[known[-1]]
        finding = (
            f"Fitted on a past that tells nothing, {known[-1]} still hit {hit:.0f} targets where chance gives {mean:.1f}:"
            " they know the answers from elsewhere."
        )
    checks = [Check(names[0], "fail" if known else "pass", finding, {"tests": figures})]
    if placebo.ranker.reads:
        checks.append(_columns(names[1], past, placebo, test, build, seed))
    return checks


def _columns(name: str, past: Shop, placebo: Trace, test: Task, build: Build, seed: int) -> Check:
    """Every feature, and the score, of true answers among random items."""
    row, item, chosen = among_random(test.truth, past.log.n_items, seed=seed)
    if len(chosen) < 10:
        return Check(name, "skipped", f"{len(chosen)} distinct targets are too few to tell.")
    cutoff = test.window.cutoff
    recommender = build()
    recommender.features.fit(past.before(cutoff))
    queries = Queries.at(past.log, test.queries.user, cutoff)
    draw = np.random.default_rng(seed)
    evidence = np.stack([draw.random(len(row), dtype=np.float32) for _ in placebo.pool.sources])
    rank = np.stack([_ranks(row, values) for values in evidence])
    indptr = ragged.from_sorted(row, len(queries))
    pool = CandidatePool(indptr, item, placebo.pool.sources, rank, evidence, evidence.sum(axis=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        features = recommender.features.compute(pool, queries)
    columns = {column: features.values[:, i] for i, column in enumerate(features.names)}
    columns["the ranker's score"] = placebo.ranker.score(features)
    edges = {column: edge(row, values, chosen) for column, values in columns.items()}
    enough = NormalDist().inv_cdf(1 - ALPHA / 2 / len(edges))
    known = [column for column, (auc, z) in edges.items() if abs(z) > enough and abs(auc - 0.5) > LEAST_EDGE]
    figures = {"targets": len(chosen), "auc": {column: round(auc, 4) for column, (auc, _) in edges.items()}}
    if known:
        worst = max(known, key=lambda column: abs(edges[column][0] - 0.5))
        finding = (
            f"Fitted on a past that tells nothing, {worst} still tells targets from random items"
            f" (AUC {edges[worst][0]:.2f}, chance 0.50): it knows the answers from elsewhere."
        )
        return Check(name, "fail", finding, {"know": known, **figures})
    finding = (
        f"Fitted on a past that tells nothing, none of {len(edges)} columns tells {len(chosen)} targets from random items."
    )
    return Check(name, "pass", finding, figures)


def _shuffled_labels(base: Trace, truth: Truth, seed: int) -> Check:
    """A ranker that learns from shuffled labels has to lose what it had learnt."""
    name = "shuffled labels"
    if not base.ranker.learns:
        return Check(name, "skipped", "The ranker does not learn from labels.")
    true = _auc(base.pool, base.score, truth)
    if true is None or true <= 0.5 + LEAST_EDGE:
        return Check(name, "skipped", "The ranker is no better than chance on the test, so it has nothing to lose.")
    draw = np.random.default_rng(seed)
    kept: list[float] = []
    for _ in range(SHUFFLES):
        base.ranker.fit([_shuffle(window, draw) for window in base.windows])
        kept.append(_auc(base.pool, base.ranker.score(base.features), truth) or 0.5)
        if kept[-1] < 0.5 + (true - 0.5) / 2:
            break
    evidence = {"auc with true labels": round(true, 4), "auc with shuffled labels": [round(auc, 4) for auc in kept]}
    if len(kept) == SHUFFLES and kept[-1] >= 0.5 + (true - 0.5) / 2:
        finding = (
            f"With shuffled labels the ranker is as good (AUC {min(kept):.2f} of {true:.2f}): it learnt from something else."
        )
        return Check(name, "fail", finding, evidence)
    finding = f"With shuffled labels the ranker loses what it had learnt (AUC {kept[-1]:.2f}, with true labels {true:.2f})."
    return Check(name, "pass", finding, evidence)


def _injected(base: Trace, test: Task) -> Check:
    """Every candidate was proposed by a source, once, and is an item of the past."""
    pools = {"test": (base.pool, test.truth)}
    pools |= {f"label window {i}": (w.features.pool, w.truth) for i, w in enumerate(base.windows, start=1)}
    figures: dict[str, Any] = {}
    orphans = twice = 0
    for name, (pool, truth) in pools.items():
        positive = truth.grade_of(pool.row, pool.item) > 0
        orphans += int((~(pool.rank > 0).any(axis=0)).sum())
        twice += int((np.diff(pool.key) <= 0).sum())
        figures[name] = {
            "candidates": len(pool),
            "positive rate": round(float(positive.mean()), 6) if len(pool) else None,
            "share of the truth that is a candidate": round(float(positive.sum() / max(len(truth.item), 1)), 4),
        }
    if orphans or twice:
        finding = (
            f"{orphans:,} candidates were proposed by no source and {twice:,} are there twice: positives were put in by hand."
        )
        return Check("injected candidates", "fail", finding, figures)
    shares = [values["share of the truth that is a candidate"] for values in figures.values()]
    if len(shares) > 1 and min(shares[1:]) > 0.999 and shares[0] < 0.9:
        finding = f"The label windows' pools hold all of their truth, the test's {shares[0]:.0%}: are positives put in?"
        return Check("injected candidates", "warn", finding, figures)
    return Check(
        "injected candidates", "pass", "Every candidate was proposed by a source, in the test and in training.", figures
    )


def _ties(base: Trace, truth: Truth, k: int) -> Check:
    """The figures if all ties went for the truth, and if all went against it."""
    of = {name: metrics.RELEVANCE[name] for name in ("hit_rate", "ndcg")}
    values = metrics.mean(ties.values(base.pool, base.score, base.pool.order(base.score, k + 1), truth, k, of))
    cases = {case: {name: round(values[f"{name}_at_{k}_{case}"], 6) for name in of} for case in ties.CASES}
    spread = max(cases["best"][metric] - cases["worst"][metric] for metric in ("hit_rate", "ndcg"))
    lowest, highest = cases["worst"]["ndcg"], cases["best"]["ndcg"]
    finding = f"NDCG@{k} is {lowest:.4f} with all ties against the truth and {highest:.4f} with all for it"
    if spread > TIES_MATTER:
        return Check("ties", "warn", f"{finding}: the result depends on how ties are broken.", cases)
    return Check("ties", "pass", f"{finding}.", cases)


def _auc(pool: CandidatePool, score: Float32, truth: Truth) -> float | None:
    """Mean percentile of the relevant candidates among their query's; None without any."""
    relevant = truth.grade_of(pool.row, pool.item) > 0
    return float(percentile(pool.row, score)[relevant].mean()) if relevant.any() else None


def _shuffle(window: Examples, draw: np.random.Generator) -> Examples:
    """The same grades, each at a random candidate of its query."""
    pool = window.features.pool
    grade = window.grade[np.lexsort((draw.random(len(pool)), pool.row))]
    kept = grade > 0
    indptr = ragged.from_sorted(pool.row[kept], pool.n_queries)
    return Examples(window.features, Truth(indptr, pool.item[kept], grade[kept]))


def _ranks(row: npt.NDArray[np.integer], values: Float32) -> npt.NDArray[np.int16]:
    rank = np.empty(len(row), dtype=np.int16)
    order = np.lexsort((-values, row))
    rank[order] = np.arange(len(row)) - np.searchsorted(row, row) + 1
    return rank


def _user_items(task: Task) -> npt.NDArray[np.int64]:
    return pair_key(task.queries.user[ragged.row_numbers(task.truth.indptr)], task.truth.item)


def _are(part: str) -> str:
    return "are" if part.endswith("s") else "is"
