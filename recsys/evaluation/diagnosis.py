"""Where the targets are lost. Every figure is a mean over queries, so that one bootstrap gives the interval of each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.evaluation import attribution, metrics
from recsys.evaluation.evidence import Evidence, Float64, Mask
from recsys.evaluation.statistics import Interval
from recsys.shop.pairs import pair_key
from recsys.shop.pools import Ranking
from recsys.shop.queries import Truth

FORMAT = 1
"""Version of the layout of `diagnosis.json`."""

STAGES = {
    "cold_item": "asks for new items only",
    "cold_user": "visitor without history",
    "not_retrieved": "found by no source",
    "cut": "found, cut by the budget",
    "ranked_below": "candidate, ranked below {k}",
    "hit": "hit",
}
"""The waterfall's stages in their order, with what they say of a query."""

CANDIDATE_RECALL = "candidate_recall"

CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Depths of the recall curve."""

HISTORY = {
    "no_event": (0, 0),
    "1_event": (1, 1),
    "2_to_4_events": (2, 4),
    "5_to_19_events": (5, 19),
    "20_or_more_events": (20, None),
}
"""Cohorts by length of history: fewest and most events."""

ASKING = (*(f"history/{name}" for name in HISTORY), "cart/with", "cart/without")
"""Cohorts of queries."""
ASKED = (
    *("target/revisit", "target/discovery"),
    *("popularity/head", "popularity/tail"),
    *("age/new", "age/older"),
)
"""Cohorts of targets."""

Intervals = Mapping[str, Interval]


def stage(evidence: Evidence, k: int) -> npt.NDArray[np.int8]:
    """How far the luckiest target of each query came, as a number into `STAGES`: `int8[q]`.

    A query is lost to cold items when all its targets are unknown before the cutoff, to a cold user when it has no history and
    nothing was found for it all the same.
    """
    number = {name: i for i, name in enumerate(STAGES)}
    reached = {
        "hit": metrics.grades(evidence.ranking.top(k), evidence.truth).any(axis=1),
        "ranked_below": evidence.any(evidence.pooled),
        "cut": evidence.any(evidence.place > 0),
        "cold_item": ~evidence.any(~evidence.cold),
        "cold_user": evidence.events == 0,
    }
    furthest = np.select(list(reached.values()), [number[name] for name in reached], number["not_retrieved"])
    return furthest.astype(np.int8)


def waterfall(evidence: Evidence, k: int) -> dict[str, Float64]:
    """Share of each query's right places that each stage loses, or fills: `float64[q]` a stage, adding up to 1.

    A query has min(k, targets) places to fill rightly: one for a single target, which is then lost or found as a whole. Each
    stage loses what a perfect rest could still have filled before it and not after it.
    """
    hit = _place_of_targets(evidence, k) > 0
    found = evidence.place > 0
    after = {  # what can still be right after each stage
        "cold_item": evidence.capped_recall(~evidence.cold, k),
        "not_retrieved": evidence.capped_recall(found | evidence.pooled, k),
        "cut": evidence.capped_recall(evidence.pooled, k),
        "ranked_below": evidence.capped_recall(hit, k),
    }
    lost: dict[str, Float64] = {}
    left = np.ones(len(evidence))
    for name, rest in after.items():
        lost[name], left = left - rest, rest
    newcomer = evidence.events == 0
    lost["cold_user"] = np.where(newcomer, lost["not_retrieved"], 0)
    lost["not_retrieved"] = np.where(newcomer, 0, lost["not_retrieved"])
    return {name: (lost | {"hit": left})[name] for name in STAGES}


def _place_of_targets(evidence: Evidence, k: int) -> npt.NDArray[np.int64]:
    """Place of each target among the first `k` of its list, 0 for none."""
    row, place = np.nonzero(evidence.ranking.item[:, :k] >= 0)
    key = pair_key(row, evidence.ranking.item[row, place])
    order = np.argsort(key)
    at = np.searchsorted(key, evidence.truth.key, sorter=order)
    found = order[np.minimum(at, max(len(key) - 1, 0))] if len(key) else np.zeros(len(at), dtype=np.int64)
    return np.where(key[found] == evidence.truth.key, place[found] + 1, 0) if len(key) else found


def oracle(truth: Truth, pooled: Mask, k: int) -> Ranking:
    """The best list of `k` that the candidates allow: pooled targets by grade."""
    best = metrics.split_truth(truth, pooled)
    row = np.repeat(np.arange(len(best)), best.count)
    return Ranking.from_rows(row, best.item, best.grade, len(best), k)


def names(k: int, of: Sequence[str], depth: int) -> list[str]:
    """The names of `values` and `efficiency`, less those of `attribution`; `depth` is that of the evidence."""
    at_k = [f"{name}_at_{k}" for name in of]
    return [
        *(f"waterfall/{name}" for name in STAGES),
        *(f"ceiling/{name}" for name in at_k),
        *(f"curve/recall_at_{d}" for d in CURVE if d <= depth),
        *(f"cohort/{name}/{what}" for name in (*ASKING, *ASKED) for what in (*at_k, CANDIDATE_RECALL, _ceiling(k))),
        *(f"efficiency/{name}" for name in at_k),
    ]


def reached(evidence: Evidence, k: int, of: Sequence[str]) -> dict[str, Float64]:
    """The metrics called `of` (some of `metrics.RELEVANCE`) of the final lists, under their names at `k`."""
    return _at(evidence.ranking, evidence.truth, k, of)


def values(evidence: Evidence, k: int, of: Sequence[str]) -> dict[str, Float64]:
    """All figures of the diagnosis as values a query, `float64[q]`, NaN where a query is not of the figure's cohort.

    `waterfall/<stage>`, `ceiling/<metric>`, `curve/recall_at_<k>`, `attribution/<source>/…`, `cohort/<group>/<name>/…`, where
    `of` names the metrics, some of `metrics.RELEVANCE`.
    """
    result = {f"waterfall/{name}": each for name, each in waterfall(evidence, k).items()}
    best = _at(oracle(evidence.truth, evidence.pooled, k), evidence.truth, k, of)
    result |= {f"ceiling/{name}": each for name, each in best.items()}
    for depth in (d for d in CURVE if d <= evidence.depth):
        result[f"curve/recall_at_{depth}"] = evidence.share((evidence.place > 0) & (evidence.place <= depth))
    return result | attribution.values(evidence) | _cohorts(evidence, k, of)


def efficiency(
    evidence: Evidence, figures: Mapping[str, Float64], k: int, of: Sequence[str]
) -> dict[str, tuple[Float64, Float64]]:
    """Share of the ceiling that the ranker got, under `efficiency/<metric>`: values a query and their weights."""
    result = {}
    for name, got in reached(evidence, k, of).items():
        ceiling = figures[f"ceiling/{name}"]
        ratio = np.divide(got, ceiling, out=np.full(len(ceiling), np.nan), where=ceiling > 0)
        result[f"efficiency/{name}"] = np.minimum(ratio, 1), ceiling
    return result


def _at(ranking: Ranking, truth: Truth, k: int, of: Sequence[str]) -> dict[str, Float64]:
    return metrics.per_query(ranking, truth, [k], {name: metrics.RELEVANCE[name] for name in of})


def _ceiling(k: int) -> str:
    return f"ceiling_hit_rate_at_{k}"


def _cohorts(evidence: Evidence, k: int, of: Sequence[str]) -> dict[str, Float64]:
    """Metrics among queries of a kind, and against targets of a kind."""
    everything = np.ones(len(evidence.row), dtype=bool)
    length = evidence.events
    by_length = [(length >= a) & (length <= (np.inf if b is None else b)) for a, b in HISTORY.values()]
    queries = dict(zip(ASKING, (*by_length, evidence.cart, ~evidence.cart), strict=True))
    kinds = (mask for each in (evidence.revisit, evidence.head, evidence.fresh) for mask in (each, ~each))
    targets = dict(zip(ASKED, kinds, strict=True))
    result: dict[str, Float64] = {}
    whole = _against(evidence, everything, k, of)
    for name, mask in queries.items():
        result |= {f"cohort/{name}/{what}": np.where(mask, each, np.nan) for what, each in whole.items() if mask.any()}
    for name, mask in targets.items():
        if mask.any():
            result |= {f"cohort/{name}/{what}": each for what, each in _against(evidence, mask, k, of).items()}
    return result


def _against(evidence: Evidence, targets: Mask, k: int, of: Sequence[str]) -> dict[str, Float64]:
    part = metrics.split_truth(evidence.truth, targets)
    asked = part.count > 0
    each = {
        **_at(evidence.ranking, part, k, of),
        CANDIDATE_RECALL: evidence.share(evidence.pooled, targets),
        _ceiling(k): evidence.any(evidence.pooled & targets).astype(np.float64),
    }
    return {name: np.where(asked, value, np.nan) for name, value in each.items()}


def document(evidence: Evidence, figures: Mapping[str, Float64], found: Intervals, k: int, of: Sequence[str]) -> dict[str, Any]:
    """The diagnosis as plain values for `diagnosis.json`; `found` holds the interval of every figure by its name."""
    furthest = np.bincount(stage(evidence, k), minlength=len(STAGES)).tolist()
    spent = attribution.milliseconds_per_marginal_hit(evidence)
    return {
        "format": FORMAT,
        "k": k,
        "metrics": list(of),
        "budget": evidence.budget,
        "depth": evidence.depth,
        "queries": len(evidence),
        "users": len(np.unique(evidence.user)),
        "folds": len(np.unique(evidence.fold)),
        "targets": len(evidence.row),
        "waterfall": [
            {
                "stage": name,
                "label": label.format(k=k),
                "queries": furthest[i],
                "share": plain(found[f"waterfall/{name}"]),
            }
            for i, (name, label) in enumerate(STAGES.items())
        ],
        "ceiling": {
            name: {
                "got": plain(found[f"two_stage/{name}"]),
                "ceiling": plain(found[f"ceiling/{name}"]),
                "efficiency": plain(found[f"efficiency/{name}"]),
            }
            for name in (f"{metric}_at_{k}" for metric in of)
        },
        "recall_curve": [{"k": d, "recall": plain(found[f"curve/recall_at_{d}"])} for d in CURVE if d <= evidence.depth],
        "attribution": {
            "sources": [
                {
                    "name": name,
                    **{what: plain(found[f"attribution/{name}/{what}"]) for what in attribution.NAMES},
                    "seconds": evidence.seconds.get(name),
                    "ms_per_marginal_hit": spent.get(name),
                }
                for name in evidence.sources
            ],
            "jaccard": attribution.jaccard(evidence.found_by).round(4).tolist(),
        },
        "cohorts": _cohort_rows(figures, found, k, of),
    }


def _cohort_rows(figures: Mapping[str, Float64], found: Intervals, k: int, of: Sequence[str]) -> list[dict[str, Any]]:
    columns = {name: f"{name}_at_{k}" for name in of} | {CANDIDATE_RECALL: CANDIDATE_RECALL, "ceiling": _ceiling(k)}
    cohorts = dict.fromkeys(name.rpartition("/")[0] for name in figures if name.startswith("cohort/"))
    rows = []
    for cohort in cohorts:
        _, group, name = cohort.split("/")
        count = int(np.isfinite(figures[f"{cohort}/{CANDIDATE_RECALL}"]).sum())
        figure = {short: plain(found[f"{cohort}/{metric}"]) for short, metric in columns.items()}
        rows.append({"group": group, "name": name.replace("_", " "), "queries": count, **figure})
    return rows


def plain(interval: Interval) -> dict[str, float] | None:
    """An interval for JSON; None for a mean over nothing."""
    return asdict(interval) if np.isfinite(interval.value) else None
