"""What a run would take, estimated from counts before anything is fitted: events that sources learn from, candidates.

The counts do not depend on the machine. What each costs was measured on two idle cores; a sort that is timed here and now says
how much slower or busier this machine is. What is in the cache is not made again, so a run may well take less.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from recsys.ranking import Ranker
from recsys.retrieval import Hybrid, Retriever

FACTOR = 3
"""How far off an estimate may well be, either way."""

FITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "SLIT": (2.5, 4e-6),
        "EASE": (2.5, 1e-6),
        "ALS": (2.0, 2e-6),
        "BPR": (0.5, 2e-6),
        "Item2Vec": (0.3, 1.5e-5),
        **dict.fromkeys(("Popularity", "Trending", "History", "Random"), (0.0, 1e-7)),
    }
)
"""Seconds of fitting a source: for each fit on a log of `FULL` events or more, and for each event that it learns from."""
FIT = (0.05, 2e-6)
"""The same for every other source."""
FULL = 20_000
"""Events of a log from which on a fit costs its full part that does not grow with them."""
START = 8.0
"""Seconds of a run that do not depend on the data: imports, compiled code, files written, the store of runs."""
ASKING = 3e-4
"""Seconds for each query and source that it is asked of."""
DESCRIBING = 5e-8
"""Seconds for each value of a candidate."""
LEARNING = 4e-8
"""Seconds for each candidate that a ranker learns from and each of its trees, of which the last is seldom reached."""
JUDGING = 1e-5
"""Seconds for each candidate of a query that lists are judged for."""
FEATURES = 3e-6
"""Seconds of fitting features for each event."""
POSITIVES = 5
"""Relevant candidates of a query."""
SORT = 0.08
"""Seconds of the yardstick, a sort of a million numbers, where all this was measured."""
GIGABYTES = 0.8, 4e-7, 8e-9
"""Memory: of a run without data, for each event of the log, for each value of a candidate that a ranker learns from."""


@dataclass(frozen=True)
class Work:
    """What there is to do: the counts that it scales by, and seconds on the machine that was measured."""

    events: int = 0
    """Events that sources learn from, summed over fits and sources."""
    candidates: int = 0
    """Candidates found and described, summed over queries."""
    seconds: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.events + other.events, self.candidates + other.candidates, self.seconds + other.seconds)

    def times(self, n: int) -> "Work":
        """The same `n` times, one after the other."""
        return Work(n * self.events, n * self.candidates, n * self.seconds)


def slowness() -> float:
    """How many times as long as where the costs were measured a sort of a million numbers takes here and now."""
    numbers, best = np.random.default_rng(0).random(1_000_000), np.inf
    for _ in range(3):
        start = time.perf_counter()
        np.sort(numbers)
        best = min(best, time.perf_counter() - start)
    return float(best / SORT)


def sources(retriever: Retriever) -> list[Retriever]:
    """The sources that a retriever asks: itself where it is one."""
    return [retriever.definitions[name] for name in retriever.asked] if isinstance(retriever, Hybrid) else [retriever]


def first_stage(retriever: Retriever, columns: int, events: int, queries: int, candidates: int) -> Work:
    """Fit on that many events, find that many candidates for each query, describe them in that many columns."""
    asked = sources(retriever)
    fits = 2 if isinstance(retriever, Hybrid) and (retriever.budget == "learn" or retriever.fusion == "learned") else 1
    cost = [FITS.get(type(source).__name__, FIT) for source in asked]
    seconds = fits * sum(each * min(events / FULL, 1) + event * events for each, event in cost) + ASKING * queries * len(asked)
    if columns:
        seconds += FEATURES * events + DESCRIBING * queries * candidates * columns
    return Work(fits * events * len(asked), queries * candidates, seconds)


def second_stage(ranker: Ranker, queries: int, candidates: int) -> Work:
    """Learn from that many candidates of each query that has some, or from the fewer that the ranker draws."""
    settings = ranker.settings()
    drawn = min(candidates, (settings.get("negatives") or candidates) + POSITIVES)
    return Work(seconds=LEARNING * queries * drawn * (settings.get("trees") or 1))


def judgement(queries: int, candidates: int) -> Work:
    """Judge the lists of that many queries."""
    return Work(seconds=JUDGING * queries * candidates)


def gigabytes(events: int, candidates: int, columns: int) -> float:
    """Memory at the peak, with a log of that many events and that many candidates to learn from."""
    run, event, value = GIGABYTES
    return run + event * events + value * candidates * columns
