"""One line that says what holds a run back, no stronger than its queries support."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from recsys.evaluation.evidence import Evidence, Float64
from recsys.evaluation.statistics import Interval, bootstrap, mean_intervals, minimum_detectable_effect

Bound = Literal["retrieval", "ranking", "cold", "balanced", "data", "none"]

COARSE = 0.1
"""Where the losses of two stages cannot be told apart, and the interval of their difference is wider, queries are too few."""
FEW = 0.2
"""Nothing is said of a run whose queries do not resolve as much."""

_NOUN = {"ranking": "ranking", "retrieval": "retrieval", "cold": "cold start"}


@dataclass(frozen=True)
class Lever:
    """One thing that could be otherwise, and what would be gained from it at most."""

    name: str
    gain: Interval


@dataclass(frozen=True)
class Verdict:
    """What holds the run back."""

    bound: Bound
    text: str
    levers: tuple[Lever, ...]
    """A perfect ranker, then each change of the candidates, the largest gain first."""
    resolution: float
    """Least change of HitRate or capped Recall that so many queries resolve."""

    def __str__(self) -> str:
        return self.text

    def document(self) -> dict[str, Any]:
        """Plain values for `diagnosis.json`."""
        levers = [{"name": lever.name, "gain": asdict(lever.gain)} for lever in self.levers]
        return {"bound": self.bound, "text": self.text, "levers": levers, "resolution": self.resolution}


def of(evidence: Evidence, figures: Mapping[str, Float64], k: int, seed: int = 0) -> Verdict:
    """The verdict on `figures`, those of `diagnosis.values`.

    Each stage is judged by the share of right places that it loses (`diagnosis.waterfall`): what would be gained were it and
    all later ones perfect, which for the ranker is what a perfect one would gain. The largest names the bound if the interval
    of its lead over the next lies above 0. A ranker that orders candidates as chance would is named even if retrieval loses
    more, as long as better retrieval would gain less than a better ranker.
    """
    hit, below = figures["waterfall/hit"], figures["waterfall/ranked_below"]
    lost = {
        "ranking": below,
        "retrieval": figures["waterfall/not_retrieved"] + figures["waterfall/cut"],
        "cold": figures["waterfall/cold_item"] + figures["waterfall/cold_user"],
    }
    best, second = sorted(lost, key=lambda name: -lost[name].mean())[:2]
    columns = np.stack([hit, *lost.values()], axis=1)
    hits, *shares = mean_intervals(columns, evidence.user, seed)
    share = dict(zip(lost, shares, strict=True))
    above_chance = hit - evidence.by_chance(k)
    both = np.stack([lost[best] - lost[second], above_chance], axis=1)
    lead, skill = bootstrap(both, evidence.user, bounds=(-1, 1), seed=seed)
    resolution = minimum_detectable_effect(hits)
    levers = (Lever("a perfect ranker", share["ranking"]), *_levers(evidence, k, seed))
    count = f"{len(evidence):,} queries"
    rate = f"HitRate@{k}" if evidence.truth.count.max() == 1 else f"capped Recall@{k}"

    def told(bound: Bound, text: str) -> Verdict:
        return Verdict(bound, f"{bound}-bound: {text}" if bound not in ("balanced", "none") else text, levers, resolution)

    if hits.value == 1:
        return told("none", f"nothing is lost: all of {count} are hits")
    if 1 - hits.value < resolution:
        return told(
            "data", f"what is left to gain, {1 - hits.value:.3f} {rate}, is less than the {resolution:.3f} {count} resolve"
        )
    perfect = f"a perfect ranker would gain {share['ranking'].told(rate)}"
    least = f"{count} resolve no change below {resolution:.3f}"
    at_random = skill.low <= 0 and skill.high < share["ranking"].low / 2
    if at_random and below.mean() > lost["retrieval"].mean() * evidence.by_chance(k).sum() / (hit + below).sum():
        return told("ranking", f"the ranker orders candidates no better than chance; {perfect}; {least}")
    if lead.low <= 0 or resolution > FEW:
        told_apart = f"{_NOUN[best]} loses {share[best].told(rate)}, {_NOUN[second]} {share[second]}"
        if lead.high - lead.low > COARSE:
            return told("data", f"{count} cannot resolve less than {resolution:.3f}: {told_apart}")
        return told("balanced", f"balanced: {told_apart}; {least}")
    clauses = {
        "ranking": [perfect, *_raises(levers)],
        "retrieval": [perfect, *_raises(levers)],
        "cold": [f"new items and visitors take {share['cold'].told(rate)} out of reach", perfect, *_raises(levers)],
    }[best]
    return told(best, "; ".join([*clauses, least]))  # type: ignore[arg-type]


def _levers(evidence: Evidence, k: int, seed: int) -> list[Lever]:
    """What each simulated change of the candidates adds to what a perfect ranker would get from them, the most first."""
    if not evidence.reached:
        return []
    now = evidence.capped_recall(evidence.pooled, k)
    more = np.stack([evidence.capped_recall(target, k) - now for target in evidence.reached.values()], axis=1)
    found = mean_intervals(more, evidence.user, seed)
    return sorted(map(Lever, evidence.reached, found), key=lambda lever: -lever.gain.value)


def _raises(levers: Sequence[Lever]) -> list[str]:
    """The two changes of the candidates that gain most, as text, of those that are sure to gain."""
    tried = levers[1:]
    sure = [lever for lever in tried if lever.gain.low > 0 and lever.gain.value > 0][:2]
    if not sure:
        return ["no change of the candidates that was tried is sure to gain"] if tried else []
    first, *rest = sure
    return [f"{first.name} would raise its ceiling by {first.gain}", *(f"{each.name} by {each.gain}" for each in rest)]
