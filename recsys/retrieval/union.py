"""Any set of sources as one: who may propose how much, and in which order all that is proposed comes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from recsys.component import State, component
from recsys.errors import ConfigError, nearest
from recsys.retrieval.base import Retriever
from recsys.shop.events import days
from recsys.shop.fusion import Fusion, by_rank, following
from recsys.shop.kinds import KindName
from recsys.shop.pools import MAX_RANK, RRF_CONSTANT, CandidatePool, Ranking
from recsys.shop.queries import Queries
from recsys.shop.reasons import NOTHING, Codes
from recsys.shop.shop import Shop
from recsys.shop.splits import Split, Task, Window

BLOCK = 4096
"""Queries worked on at once."""
STEP = 10
"""Places that learning hands out at a time."""

Plan = list[tuple[str, int]]
"""Sources in the order in which they choose, with the number of items that each adds at its turn."""


@component
class Hybrid(Retriever):
    """The union of the chosen sources, deduplicated, in a total order that is cut at the number of candidates asked for.

    A candidate stands the earlier, the larger Σ over the sources of weight · 1 / (60 + rank) (reciprocal rank fusion: Cormack,
    Clarke and Büttcher, SIGIR 2009). With quotas, each source first adds as many items as its quota says, not counting those
    that are there already, so that sources that agree do not eat each other's budget; all of these stand before the rest.
    What sources propose below `depth`, where more is asked for, stands behind these, and what only a fallback proposes comes
    last. So the first `depth` places do not depend on the number asked for: `pool(queries, 500).top(200)` is
    `pool(queries, 200)`, evidence and all, where neither exceeds `depth`.

    `budget: learn` hands out the quotas, and `fusion: learned` sets the weights, by the last `learn_horizon_days` before the
    cutoff: the sources are fitted on what came before these days and asked for what happened in them, then fitted anew on
    everything. What comes of it depends on the log alone.
    """

    name: ClassVar[str] = "hybrid"
    sources: list[str] = Field(min_length=1)
    """Which of `definitions`, in the order in which quotas are filled."""
    definitions: dict[str, Retriever] = Field(repr=False)
    """Retrievers by name. A policy of `seen` other than `keep` is laid upon all of them."""
    weights: dict[str, NonNegativeFloat] = Field(default={})
    """Weight of a source in the fusion, 1 for one that is not named; with 0 it gives evidence, and no candidates."""
    quotas: dict[str, PositiveInt] | None = None
    """Candidates that a source adds before the rest is filled by fusion; one that is not named has none; none: no quotas."""
    depth: PositiveInt = Field(default=500, le=MAX_RANK)
    """Items that each source is asked for: more, where more candidates are wanted."""
    fallback: list[str] = Field(default=["popularity"])
    """Which of `definitions` fill the lists that are still short, in this order."""
    budget: Literal["fixed", "learn"] = "fixed"
    """`learn`: quotas by their gain in recall a candidate, greedily, in place of `quotas`."""
    fusion: Literal["reciprocal_rank", "learned"] = "reciprocal_rank"
    """`learned`: weights by logistic regression of relevance on the reciprocal ranks, in place of `weights`."""
    learn_candidates: PositiveInt = 200
    """Candidates a query that learnt quotas share."""
    learn_horizon_days: PositiveFloat = 28.0
    """Length of the stretch to learn from, at most a quarter of the log's."""
    learn_events: list[KindName] = Field(default=["cart", "purchase"], min_length=1)
    """Kinds of event, or roles, that count as right in it."""

    def __post_init__(self) -> None:
        for key, names in (("sources", self.sources), ("fallback", self.fallback)):
            self._check(key, names)
            if twice := {name for name in names if names.count(name) > 1}:
                raise ConfigError(f"retriever.{key}: named more than once: {', '.join(sorted(twice))}")
        self._check("weights", self.weights)
        self._check("quotas", self.quotas or {})
        self.asked = [*self.sources, *(name for name in self.fallback if name not in self.sources)]
        if self.seen != "keep":
            for name in self.asked:
                self.definitions[name].seen = self.seen
        self._as_configured()
        if not any(self.weight.values()):
            raise ConfigError("retriever.weights: wanted a source with a weight above 0")

    def _check(self, key: str, names: Sequence[str] | Mapping[str, object]) -> None:
        for name in names:
            if name not in self.definitions:
                raise ConfigError(f"retriever.{key}: no retriever is called {name!r}.{nearest(name, self.definitions)}")

    def _as_configured(self) -> None:
        quotas = self.quotas or {}
        self.weight = {name: self.weights.get(name, 1.0) for name in self.sources}
        self.plan: Plan = [(name, quotas[name]) for name in self.sources if name in quotas]

    @property
    def labels(self) -> tuple[str, ...]:
        """The sources, and those that only fill short lists."""
        return tuple(self.asked)

    def fit(self, past: Shop) -> None:
        """Fit every source; where something is to be learned, first on the past of the stretch to learn from."""
        self._as_configured()
        if self.budget == "learn" or self.fusion == "learned":
            self._learn(past)
        for name in self.asked:
            self.definitions[name].fit(past)

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        """The first `k` in the order of the union; the scores are those of the fusion."""
        return self.pool(queries, k).retrieved(k)

    def pool(self, queries: Queries, k: int) -> CandidatePool:
        """The first `k` in the order of the union, with the rank and the score that each source gave."""
        starts = range(0, max(len(queries), 1), BLOCK)
        rows = [np.arange(start, min(start + BLOCK, len(queries)), dtype=np.int64) for start in starts]
        return CandidatePool.concatenate([self.union(queries.take(block), k).top(k) for block in rows])

    def speakers(self) -> dict[str, Codes]:
        """What each of its sources speaks for."""
        return {name: NOTHING.union(*self.definitions[name].speakers().values()) for name in self.asked}

    @property
    def ordering(self) -> Fusion:
        """Weights, `depth`, turns and fallbacks, as configured or learned."""
        number = {name: s for s, name in enumerate(self.labels)}
        return Fusion(
            tuple(self.weight.get(name, 0.0) for name in self.labels),
            self.depth,
            tuple((number[name], places) for name, places in self.plan),
            tuple(number[name] for name in self.fallback),
        )

    def learned(self) -> dict[str, float]:
        """The weights of the fusion and the places of each source that are in use, by name."""
        places = {f"places/{name}": float(sum(n for source, n in self.plan if source == name)) for name, _ in self.plan}
        return {**{f"weight/{name}": weight for name, weight in self.weight.items()}, **places}

    def union(self, queries: Queries, k: int) -> CandidatePool:
        """All that the sources propose; `fusion` holds the order."""
        depth = max(k, self.depth)
        pool = CandidatePool.from_rankings({name: self.definitions[name].retrieve(queries, depth) for name in self.asked})
        order = self.ordering.order(pool)
        proposed = order != 0
        whole = replace(pool, fusion=order)
        return whole if proposed.all() else whole.where(proposed)

    def _learn(self, past: Shop) -> None:
        """Set `weight` and `plan` by the last days of the log; they stay as configured where these hold nothing to learn."""
        task = self._held_out(past)
        if task is None:
            return
        earlier = past.before(task.window.cutoff)
        for name in self.sources:
            self.definitions[name].fit(earlier)
        rankings = {name: self.definitions[name].retrieve(task.queries, self.depth) for name in self.sources}
        pool = CandidatePool.from_rankings(rankings)
        share = np.where(task.truth.grade_of(pool.row, pool.item) > 0, 1 / task.truth.count[pool.row], 0)
        if not share.any():
            return
        if self.fusion == "learned":
            self.weight = _learned_weights(pool, share > 0)
        if self.budget == "learn":
            self.plan = _greedy_plan(pool, share, [name for name in self.sources if self.weight[name]], self.learn_candidates)

    def _held_out(self, past: Shop) -> Task | None:
        log = past.log
        if not len(log):
            return None
        first, end = int(log.time[0]), int(log.time[-1]) + 1
        window = Window(end - min(days(self.learn_horizon_days), (end - first) // 4), end)
        if window.cutoff in (first, end):
            return None
        task = Split(label_events=self.learn_events).label_task(past, window)  # type: ignore[call-arg]
        return task if len(task.queries) else None

    def state(self) -> State:
        """Arrays of every source, prefixed by its name, and what was learned."""
        arrays = {f"{name}/{key}": array for name in self.asked for key, array in self.definitions[name].state().items()}
        return {
            **arrays,
            "weight": np.array([self.weight[name] for name in self.sources], dtype=np.float64),
            "plan_source": np.array([self.sources.index(name) for name, _ in self.plan], dtype=np.int64),
            "plan_places": np.array([places for _, places in self.plan], dtype=np.int64),
        }

    def restore(self, state: State) -> None:
        """Take back `state`."""
        for name in self.asked:
            own = {key.removeprefix(f"{name}/"): array for key, array in state.items() if key.startswith(f"{name}/")}
            self.definitions[name].restore(own)
        self.weight = dict(zip(self.sources, state["weight"].tolist(), strict=True))
        places = zip(state["plan_source"].tolist(), state["plan_places"].tolist(), strict=True)
        self.plan = [(self.sources[source], n) for source, n in places]


def _greedy_plan(pool: CandidatePool, share: npt.NDArray[np.float64], sources: Sequence[str], candidates: int) -> Plan:
    """Turns of `STEP` places, each for the source whose next items bring most recall a candidate, until the mean query has
    `candidates`. `share` (`float64[n]`) is what a candidate adds to its query's recall.

    Coverage is monotone and submodular, so greedy choice comes within 1 − 1/e of the best quotas (Nemhauser, Wolsey and Fisher,
    1978). Turns that follow one another for one source are joined.
    """
    chosen = np.zeros(len(pool), dtype=bool)
    order = {name: by_rank(pool, pool.sources.index(name)) for name in sources}
    plan: Plan = []
    while chosen.sum() < candidates * pool.n_queries:
        turns = {name: following(pool, order[name], chosen, STEP) for name in sources}
        gain = {name: share[added].sum() / len(added) for name, added in turns.items() if len(added)}
        if not gain:
            break
        best = max(gain, key=lambda name: gain[name])
        chosen[turns[best]] = True
        if plan and plan[-1][0] == best:
            plan[-1] = (best, plan[-1][1] + STEP)
        else:
            plan.append((best, STEP))
    return plan


def _learned_weights(pool: CandidatePool, relevant: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Weights of a logistic regression of relevance on the reciprocal ranks; a source that speaks against an item gets 0.

    They are scaled to a mean of 1, and stay 1 where no source speaks for anything.
    """
    from sklearn.linear_model import LogisticRegression

    columns = (RRF_CONSTANT + 1) * np.stack([pool.reciprocal_rank(name) for name in pool.sources], axis=1)
    model = LogisticRegression(solver="newton-cholesky", tol=1e-8).fit(columns, relevant)
    weight = np.maximum(model.coef_[0], 0)
    if not weight.any():
        weight[:] = 1
    return dict(zip(pool.sources, (weight / weight.mean()).tolist(), strict=True))
