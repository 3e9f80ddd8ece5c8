"""Items of past sessions that are like the query's own."""

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from recsys.component import State, component
from recsys.retrieval._recent import RecentItems, rank_by_time
from recsys.retrieval.base import Retriever
from recsys.retrieval.item_to_item import banned
from recsys.retrieval.sparse import SparseRows, over_rows
from recsys.shop import ragged
from recsys.shop.events import MILLISECONDS_PER_DAY, Int64
from recsys.shop.identity import Int32
from recsys.shop.kinds import SIGNAL_WEIGHTS, KindWeights
from recsys.shop.pairs import pair_key
from recsys.shop.pools import Float32, Ranking
from recsys.shop.queries import Queries
from recsys.shop.reasons import TASTE, Codes
from recsys.shop.shop import Shop

Decay = Literal["same", "div", "linear", "log", "quadratic", "exp"]
MILLISECONDS_PER_MINUTE = 60_000
MOST_PLACES = 1024
"""Farther apart than this in a session counts as so far."""


@component
class SessionKNN(Retriever):
    """Nearest sessions of the past; V-SKNN and VSTAN are two settings of it.

    The query s is its newest session, extended backwards to `extend` distinct items. Of every item of s the `sample_size`
    newest sessions that hold it are looked at (VMIS-kNN: Kersbergen et al., SIGMOD 2022), and of these the `k` likest are kept:

        sim(s, n) = Σ over shared items of position(place in s) / norm(s, n) · e^(−age of n / age_scale) · (1 + boost if own)
        score(i)  = Σ over n of sim(s, n) · match(place of the newest shared item in s) · e^(−distance / distance_scale)
                    · (1 + idf_weight · idf(i)) · weight(kind of i in n)

    Places count distinct instants from the newest, 0; distance is that in n between i and the newest item of s that n shares;
    idf(i) is log(sessions / sessions with i), sessions of a single item left out. At last each item of the query's
    `reminder_sessions` newest sessions gains reminders · best score / (1 + sessions ago).

    V-SKNN: Ludewig and Jannach, UMUAI 2018. STAN: Garg et al., SIGIR 2019. VSTAN: Ludewig et al., UMUAI 2021. Extend, boost and
    reminders: Latifi, Mauro and Jannach, Information Sciences 2021 (their reminders decay otherwise).
    """

    name: ClassVar[str] = "session_knn"
    speaks_for: ClassVar[Codes] = TASTE
    session_minutes: PositiveFloat = 30.0
    """A longer pause begins a new session."""
    k: PositiveInt = 300
    """How many neighbours vote."""
    sample_size: PositiveInt = 1000
    """How many of the newest sessions with an item are looked at."""
    extend: NonNegativeInt = 50
    """The query's session is filled up to so many items from the sessions before it; 0: never."""
    session_items: PositiveInt = 100
    """Only so many of the newest items of the query count."""
    position: Decay = "exp"
    """Weight of an item by its place in the query: `same` 1, `div` 1 − place/length, `linear` 1 − 0.1 · place,
    `log` 1/log10(place + 1.7), `quadratic` the square of `div`, `exp` e^(−place / position_scale)."""
    position_scale: PositiveFloat = 7.24
    """For `exp`."""
    norm: Literal["query", "cosine"] = "cosine"
    """`query`: the number of items of s; `cosine`: the root of that times the number of items of n."""
    age_scale_days: PositiveFloat | None = 30.0
    """How fast old sessions lose likeness; none: age does not matter."""
    match: Decay = "exp"
    """As `position`, for the newest shared item."""
    match_scale: PositiveFloat = 3.62
    """For `exp`."""
    distance_scale: PositiveFloat | None = 3.62
    """How fast items far from the shared one lose score; none: distance does not matter."""
    idf_weight: NonNegativeFloat = 1.0
    """How much rare items gain."""
    weights: KindWeights = Field(default=SIGNAL_WEIGHTS)
    """Weight of an item by its strongest event in the neighbour; an event of weight 0 is ignored."""
    boost: NonNegativeFloat = 0.1
    """How much likeness the query's own past sessions gain."""
    reminders: NonNegativeFloat = 1.0
    """How much the query's own items gain, against the best score of a neighbour's."""
    reminder_sessions: PositiveInt = 50
    """Sessions that reminders go back."""

    def __post_init__(self) -> None:
        self.sessions, self.held = SparseRows.empty(), SparseRows.empty()
        self.place, self.held_place = np.empty((2, 0), dtype=np.int32)
        self.user, self.scale = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)
        self.gain = np.empty(0, dtype=np.float32)
        self.n_items = 0

    def fit(self, past: Shop) -> None:
        """Number the sessions of two items and more, newest first, and note which hold each item."""
        log = past.log
        log = log.where(log.weigh(self.weights) > 0)
        weight = log.weigh(self.weights)
        user_indptr, order = log.by_user
        user, time, item = log.user[order], log.time[order], log.item[order]
        session = np.cumsum(self._opens(ragged.row_numbers(user_indptr), time)) - 1
        n_sessions = int(session[-1]) + 1 if len(session) else 0
        by_item = ragged.descending(ragged.from_sorted(session, n_sessions), -item)
        keys = pair_key(session, item[by_item])
        opens = np.flatnonzero(np.diff(keys, prepend=-1))
        row, item = session[opens], item[by_item[opens]]
        strongest, last = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        if len(opens):
            strongest = np.maximum.reduceat(weight[order][by_item], opens)
            last = np.maximum.reduceat(time[by_item], opens)

        length = np.bincount(row, minlength=n_sessions)
        end, owner = np.zeros(n_sessions, np.int64), np.zeros(n_sessions, np.int32)
        end[session], owner[session] = time, user
        worth = np.flatnonzero(length > 1)
        worth = worth[np.argsort(-end[worth], kind="stable")]
        _, place = rank_by_time(row, last, n_sessions)
        indptr, entry = ragged.take(ragged.from_counts(length), worth)
        self.sessions = SparseRows(indptr, item[entry], strongest[entry])
        self.place = place[entry].astype(np.int32)
        self.user = owner[worth]
        age = (end[worth].max(initial=0) - end[worth]) / MILLISECONDS_PER_DAY
        scale = np.ones(len(worth)) if self.age_scale_days is None else np.exp(-age / self.age_scale_days)
        if self.norm == "cosine":
            scale /= np.sqrt(length[worth])
        self.scale = scale.astype(np.float32)
        self.n_items = log.n_items
        self._hold()

    def _hold(self) -> None:
        """The sessions that hold each item, newest first, and what its rarity is worth."""
        by_item = np.argsort(self.sessions.item, kind="stable")
        held_by, place = ragged.row_numbers(self.sessions.indptr)[by_item], self.place[by_item]
        self.held = SparseRows.from_sorted(self.sessions.item[by_item], held_by, np.empty(0, np.float32), self.n_items)
        self.held_place = place
        idf = np.log(max(len(self.sessions), 1) / np.maximum(np.diff(self.held.indptr), 1))
        self.gain = (1 + self.idf_weight * idf).astype(np.float32)

    def retrieve(self, queries: Queries, k: int) -> Ranking:
        """The items of the nearest sessions, and reminders."""
        from recsys.retrieval import _kernels

        query, match, own = self._session(queries)
        gone = banned(self, queries) or SparseRows.empty(len(queries))
        rate = 0.0 if self.distance_scale is None else 1 / self.distance_scale
        distance_weight = np.exp(-rate * np.arange(MOST_PLACES)).astype(np.float32)
        items = np.full((len(queries), k), -1, dtype=np.int32)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)

        def work(first: int, stop: int) -> None:
            _kernels.sessions_top(
                first, stop, query.indptr, query.item, query.weight, match, queries.user, own.indptr, own.item, own.weight,
                self.sessions.indptr, self.sessions.item, self.place, self.sessions.weight, self.scale, self.user,
                self.held.indptr, self.held.item, self.held_place, self.sample_size, self.k, self.boost,
                distance_weight, self.gain, gone.indptr, gone.item, items, scores,
            )  # fmt: skip

        over_rows(work, len(queries))
        return Ranking(items, scores)

    def _session(self, queries: Queries) -> tuple[SparseRows, Float32, SparseRows]:
        """The query's items newest first with their weight in the likeness, their weight as a match, and the reminders."""
        opens = self._opens(queries.row, queries.event_time)
        number = np.cumsum(opens)
        counts = np.diff(queries.indptr)
        ago: Int64 = np.repeat(number[queries.indptr[1:][counts > 0] - 1], counts[counts > 0]) - number
        recent = RecentItems.of(queries)
        sessions_ago = np.full(len(recent.item), np.iinfo(np.int64).max)
        np.minimum.at(sessions_ago, recent.of_event, ago)

        reminded = (sessions_ago < self.reminder_sessions) & (recent.item < self.n_items) & (self.reminders > 0)
        own = SparseRows.from_sorted(
            recent.row[reminded], recent.item[reminded], self.reminders / (1 + sessions_ago[reminded]), len(queries)
        )
        used = ((sessions_ago == 0) | (recent.rank < self.extend)) & (recent.rank < self.session_items)
        row, place = recent.row[used], recent.place[used]
        length = np.zeros(len(queries), dtype=np.int64)
        np.maximum.at(length, row, place + 1)
        size = np.bincount(row, minlength=len(queries))[row]
        weight = decay(self.position, place, length[row], self.position_scale)
        weight /= np.sqrt(size) if self.norm == "cosine" else size
        order = np.lexsort((recent.rank[used], row))
        query = SparseRows.from_sorted(row, recent.item[used][order], weight[order], len(queries))
        return query, decay(self.match, place, length[row], self.match_scale)[order].astype(np.float32), own

    def _opens(self, row: Int32, time: Int64) -> npt.NDArray[np.bool_]:
        """Which of the events, ascending by row and time, open a session."""
        pause = np.diff(time, prepend=0) > self.session_minutes * MILLISECONDS_PER_MINUTE
        return pause | (np.diff(row, prepend=-1) != 0)

    def state(self) -> State:
        """The sessions."""
        return {
            **self.sessions.state(),
            "place": self.place,
            "user": self.user,
            "scale": self.scale,
            "n_items": np.array(self.n_items),
        }

    def restore(self, state: State) -> None:
        """Take back `state`."""
        self.sessions = SparseRows(state["indptr"], state["item"], state["weight"])
        self.place, self.user, self.scale = state["place"], state["user"], state["scale"]
        self.n_items = int(state["n_items"])
        self._hold()


def decay(kind: Decay, place: Int64, length: Int64, scale: float) -> npt.NDArray[np.float64]:
    """Weight of the `place`-th newest (from 0) of `length` instants, as `SessionKNN.position` says."""
    if kind == "exp":
        return np.exp(-place / scale)
    if kind == "linear":
        return np.maximum(1 - 0.1 * place, 0.0)
    if kind == "log":
        return 1 / np.log10(place + 1.7)
    power = {"same": 0, "div": 1, "quadratic": 2}[kind]
    return ((length - place) / length) ** power
