"""Where the targets are lost. Every figure is a mean over queries, so that one bootstrap gives the interval of each."""

from collections.abc import Mapping
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


def values(evidence: Evidence, k: int) -> dict[str, Float64]:
    """All figures of the diagnosis as values a query, `float64[q]`, NaN where a query is not of the figure's cohort.

    `waterfall/<stage>`, `ceiling/<metric>`, `curve/recall_at_<k>`, `attribution/<source>/…`, `cohort/<group>/<name>/…`.
    """
    result = {f"waterfall/{name}": each for name, each in waterfall(evidence, k).items()}
    best = metrics.per_query(oracle(evidence.truth, evidence.pooled, k), evidence.truth, [k])
    result |= {f"ceiling/{name}_at_{k}": best[f"{name}_at_{k}"] for name in ("hit_rate", "ndcg")}
    for depth in (d for d in CURVE if d <= evidence.depth):
        result[f"curve/recall_at_{depth}"] = evidence.share((evidence.place > 0) & (evidence.place <= depth))
    return result | attribution.values(evidence) | _cohorts(evidence, k)


def efficiency(evidence: Evidence, figures: Mapping[str, Float64], k: int) -> dict[str, tuple[Float64, Float64]]:
    """Share of the ceiling that the ranker got, under `efficiency/<metric>`: values a query and their weights."""
    got = metrics.per_query(evidence.ranking, evidence.truth, [k])
    result = {}
    for name in (f"hit_rate_at_{k}", f"ndcg_at_{k}"):
        ceiling = figures[f"ceiling/{name}"]
        ratio = np.divide(got[name], ceiling, out=np.full(len(ceiling), np.nan), where=ceiling > 0)
        result[f"efficiency/{name}"] = np.minimum(ratio, 1), ceiling
    return result


def _cohorts(evidence: Evidence, k: int) -> dict[str, Float64]:
    """Metrics among queries of a kind, and against targets of a kind."""
    everything = np.ones(len(evidence.row), dtype=bool)
    length = evidence.events
    queries = {f"history/{name}": (length >= a) & (length <= (np.inf if b is None else b)) for name, (a, b) in HISTORY.items()}
    queries |= {"cart/with": evidence.cart, "cart/without": ~evidence.cart}
    targets = {
        "target/revisit": evidence.revisit,
        "target/discovery": ~evidence.revisit,
        "popularity/head": evidence.head,
        "popularity/tail": ~evidence.head,
        "age/new": evidence.fresh,
        "age/older": ~evidence.fresh,
    }
    result: dict[str, Float64] = {}
    whole = _against(evidence, everything, k)
    for name, mask in queries.items():
        result |= {f"cohort/{name}/{what}": np.where(mask, each, np.nan) for what, each in whole.items() if mask.any()}
    for name, mask in targets.items():
        if mask.any():
            result |= {f"cohort/{name}/{what}": each for what, each in _against(evidence, mask, k).items()}
    return result


def _against(evidence: Evidence, targets: Mask, k: int) -> dict[str, Float64]:
    part = metrics.split_truth(evidence.truth, targets)
    got = metrics.per_query(evidence.ranking, part, [k])
    asked = part.count > 0
    each = {
        f"hit_rate_at_{k}": got[f"hit_rate_at_{k}"],
        f"ndcg_at_{k}": got[f"ndcg_at_{k}"],
        "candidate_recall": evidence.share(evidence.pooled, targets),
        f"ceiling_hit_rate_at_{k}": evidence.any(evidence.pooled & targets).astype(np.float64),
    }
    return {name: np.where(asked, value, np.nan) for name, value in each.items()}


def document(evidence: Evidence, figures: Mapping[str, Float64], found: Intervals, k: int) -> dict[str, Any]:
    """The diagnosis as plain values for `diagnosis.json`; `found` holds the interval of every figure by its name."""
    names = (f"hit_rate_at_{k}", f"ndcg_at_{k}")
    furthest = np.bincount(stage(evidence, k), minlength=len(STAGES)).tolist()
    spent = attribution.milliseconds_per_marginal_hit(evidence)
    return {
        "format": FORMAT,
        "k": k,
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
            for name in names
        },
        "recall_curve": [{"k": d, "recall": plain(found[f"curve/recall_at_{d}"])} for d in CURVE if d <= evidence.depth],
        "attribution": {
            "sources": [
                {
                    "name": name,
                    **{
                        what: plain(found[f"attribution/{name}/{what}"])
                        for what in ("solo", "exclusive", "leave_one_out", "shapley")
                    },
                    "seconds": evidence.seconds.get(name),
                    "ms_per_marginal_hit": spent.get(name),
                }
                for name in evidence.sources
            ],
            "jaccard": attribution.jaccard(evidence.found_by).round(4).tolist(),
        },
        "cohorts": _cohort_rows(figures, found, k),
    }


def _cohort_rows(figures: Mapping[str, Float64], found: Intervals, k: int) -> list[dict[str, Any]]:
    columns = {
        "hit_rate": f"hit_rate_at_{k}",
        "ndcg": f"ndcg_at_{k}",
        "recall": "candidate_recall",
        "ceiling": f"ceiling_hit_rate_at_{k}",
    }
    cohorts = dict.fromkeys(name.rpartition("/")[0] for name in figures if name.startswith("cohort/"))
    rows = []
    for cohort in cohorts:
        _, group, name = cohort.split("/")
        count = int(np.isfinite(figures[f"{cohort}/candidate_recall"]).sum())
        figure = {short: plain(found[f"{cohort}/{metric}"]) for short, metric in columns.items()}
        rows.append({"group": group, "name": name.replace("_", " "), "queries": count, **figure})
    return rows


def plain(interval: Interval) -> dict[str, float] | None:
    """An interval for JSON; None for a mean over nothing."""
    return asdict(interval) if np.isfinite(interval.value) else None
