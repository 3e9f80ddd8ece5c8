"""How sure a figure is: intervals for means over queries, paired tests between two runs, what a test set can resolve at all.

Recommendation metrics are zero for most queries, so that a mean over a few hundred of them rests on a handful of hits. The
textbook bootstrap is too narrow there: it cannot imagine a hit better than those it saw. `bootstrap` therefore draws from the
Bayesian bootstrap (Rubin, Annals of Statistics 1981) with half an observation added at each bound of the metric, which for
values of 0 and 1 is Jeffreys' interval. Values of 0 and 1 alone get Wilson's interval (JASA 1927).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from threadpoolctl import threadpool_limits

Float64 = npt.NDArray[np.float64]
Bounds = tuple[float, float]

CONFIDENCE, POWER = 0.95, 0.8
RESAMPLES = 2000
COMPARED = 9999
"""Resamples of a comparison, whose p-value is then no smaller than 0.0002."""
UNIT: Bounds = (0.0, 1.0)
"""Least and greatest value of a metric of one query."""

_BLOCK = 1 << 22
"""Random numbers drawn at once."""


@dataclass(frozen=True)
class Interval:
    """A figure and the bounds that hold it with the confidence asked for."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.told()

    def told(self, unit: str = "") -> str:
        """As text: `0.013 HitRate@10 [0.000, 0.031]`."""
        return " ".join([f"{self.value:.3f}", *([unit] if unit else []), f"[{self.low:.3f}, {self.high:.3f}]"])

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside."""
        return not self.low <= value <= self.high


NOWHERE = Interval(float("nan"), float("nan"), float("nan"))
"""The mean over no query at all."""


@dataclass(frozen=True)
class Comparison:
    """Run b against run a on the same queries."""

    difference: Interval
    """Mean of b − a."""
    p_value: float
    """Two-sided, of no difference: at most 0.05 where the interval leaves out 0, since both come from the same draws."""
    improved: int
    """Queries on which b is better."""
    worse: int
    unchanged: int
    mde: float
    """Least true difference that a comparison such as this finds four times out of five."""


def wilson(hits: float, n: float, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval for a rate of `hits` out of `n`. Raises `ValueError` unless 0 ≤ hits ≤ n, n > 0."""
    if not 0 <= hits <= n or n <= 0:
        raise ValueError(f"wanted 0 ≤ hits ≤ n with n > 0, found {hits} of {n}")
    z2 = float(stats.norm.isf((1 - confidence) / 2)) ** 2
    rate = hits / n
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Interval(rate, min(max(0.0, float(centre - half)), rate), max(min(1.0, float(centre + half)), rate))


def bootstrap(
    values: npt.ArrayLike,
    cluster: npt.ArrayLike | None = None,
    *,
    bounds: Bounds | None = UNIT,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    weights: npt.ArrayLike | None = None,
) -> list[Interval]:
    """Interval of the mean of each column of `values` (`float[q]` or `float[q, m]`); NaN leaves a query out of that column.

    `cluster` (`[q]`) names the user of each query: all queries of a user are drawn together. `bounds` are those of one value,
    None for a figure without. `weights` (shaped as `values`) make it a weighted mean, such as a ratio of two sums.
    """
    draws, mean = _resampled(values, cluster, bounds, seed, resamples, weights)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    found = zip(mean.tolist(), np.fmin(low, mean).tolist(), np.fmax(high, mean).tolist(), strict=True)
    return [Interval(*each) if np.isfinite(each[0]) else NOWHERE for each in found]


def _resampled(
    values: npt.ArrayLike,
    cluster: npt.ArrayLike | None,
    bounds: Bounds | None,
    seed: int,
    resamples: int,
    weights: npt.ArrayLike | None = None,
) -> tuple[Float64, Float64]:
    """Draws of the mean of each column, `float64[resamples, m]`, and the means themselves."""
    table = np.asarray(values, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    counted = np.isfinite(table)
    mass = counted.astype(np.float64)
    if weights is not None:
        mass *= np.asarray(weights, dtype=np.float64).reshape(table.shape)
    parts = np.where(counted, table, 0) * mass
    if cluster is not None:
        _, user = np.unique(np.asarray(cluster), return_inverse=True)
        order = np.argsort(user, kind="stable")
        starts = np.flatnonzero(np.diff(user[order], prepend=-1))
        parts, mass = (np.add.reduceat(each[order], starts, axis=0) if len(starts) else each for each in (parts, mass))
    total = mass.sum(axis=0)
    mean = np.divide(parts.sum(axis=0), total, out=np.full(table.shape[1], np.nan), where=total > 0)
    users = (mass > 0).sum(axis=0)
    typical = np.divide(total, users, out=np.zeros(len(total)), where=users > 0)
    draws = _draws(parts, mass, typical, bounds, resamples, np.random.default_rng(seed))
    if bounds is None:
        draws = mean + (draws - mean) * _few(users)
    return draws, mean


def _few(users: npt.NDArray[np.integer]) -> Float64:
    """By how much draws are too close to their mean where nothing bounds the values and there are few users.

    Their variance lacks n + 1 in place of n − 1, and their tails are those of a normal distribution in place of Student's t.
    """
    n = np.maximum(users, 2)
    tail = (1 - CONFIDENCE) / 2
    return np.asarray(np.sqrt((n + 1) / (n - 1)) * stats.t.isf(tail, n - 1) / stats.norm.isf(tail))


def _draws(
    parts: Float64, mass: Float64, typical: Float64, bounds: Bounds | None, resamples: int, rng: np.random.Generator
) -> Float64:
    """Means under random weights of the users, with half a typical user at each bound: `float64[resamples, m]`."""
    draws = np.empty((resamples, parts.shape[1]))
    step = max(1, _BLOCK // max(1, len(parts)))
    number: dict[bytes, int] = {}  # most columns count the same queries
    of_column = [number.setdefault(column.tobytes(), len(number)) for column in np.ascontiguousarray(mass.T)]
    _, first = np.unique(of_column, return_index=True)
    both = np.concatenate([parts, mass[:, first]], axis=1).astype(np.float32)
    with threadpool_limits(1, user_api="blas"), np.errstate(invalid="ignore", divide="ignore"):
        for start in range(0, resamples, step):
            rows = min(step, resamples - start)
            sums = (rng.standard_exponential((rows, len(parts)), dtype=np.float32) @ both).astype(np.float64)
            above, below = sums[:, : parts.shape[1]], sums[:, parts.shape[1] :][:, of_column]
            if bounds is not None:
                for bound in bounds:
                    extra = rng.gamma(0.5, size=(rows, 1)) * typical
                    above, below = above + bound * extra, below + extra
            draws[start : start + rows] = above / below
    return draws


def mean_intervals(values: Float64, cluster: npt.ArrayLike | None = None, seed: int = 0) -> list[Interval]:
    """The interval that fits each column of `values` (`float64[q, m]`): Wilson for rates, else the bootstrap.

    A column is a rate when it holds 0 and 1 alone, NaN aside, and no user twice. Columns that leave [0, 1] have no bounds.
    """
    finite = np.isfinite(values)
    alone = cluster is None or len(np.unique(np.asarray(cluster))) == len(values)
    rate = ((values == 0) | (values == 1) | ~finite).all(axis=0) & finite.any(axis=0) & alone
    inside = ((values >= 0) & (values <= 1) | ~finite).all(axis=0)
    result = [NOWHERE] * values.shape[1]
    for j in np.flatnonzero(rate):
        result[j] = wilson(float(np.nansum(values[:, j])), int(finite[:, j].sum()))
    for columns, bounds in ((~rate & inside, UNIT), (~rate & ~inside, None)):
        chosen = np.flatnonzero(columns)
        if len(chosen):
            for j, interval in zip(chosen, bootstrap(values[:, chosen], cluster, bounds=bounds, seed=seed), strict=True):
                result[j] = interval
    return result


def paired(a: npt.ArrayLike, b: npt.ArrayLike, cluster: npt.ArrayLike | None = None, *, seed: int = 0) -> Comparison:
    """Compare values of the same queries (`float[q]` each) under two runs; `cluster` names the user of each query.

    The interval comes from `bootstrap`, with bounds unless a value leaves [0, 1]. The p-value is twice the share of its draws
    on the other side of 0, so that both say the same of users with several queries and of differences that lean to one side.
    Raises `ValueError` for runs of different length or of no query, and for a value that is no number.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"wanted two runs over the same queries, found shapes {first.shape} and {second.shape}")
    change = second - first
    if not np.isfinite(change).all():
        raise ValueError(f"wanted a number for every query, found {change[~np.isfinite(change)][0]}")
    inside = min(first.min(), second.min()) >= 0 and max(first.max(), second.max()) <= 1
    draws, mean = _resampled(change, cluster, (-1.0, 1.0) if inside else None, seed, COMPARED)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, tail, method="lower"), np.quantile(draws, 1 - tail, method="higher")
    interval = Interval(float(mean[0]), float(min(low, mean[0])), float(max(high, mean[0])))
    beyond = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    p_value = min(2 * (beyond + 1) / (COMPARED + 1), 1.0) if mean[0] else 1.0
    better, worse = int((change > 0).sum()), int((change < 0).sum())
    unchanged = len(change) - better - worse
    return Comparison(interval, p_value, better, worse, unchanged, minimum_detectable_effect(interval))


def mcnemar(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Exact two-sided p-value (McNemar, 1947) that two runs hit equally often; `a`, `b`: whether each hit, `bool[q]`."""
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being several (Holm, 1979), in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return [float(each) for each in adjusted]


def minimum_detectable_effect(interval: Interval, power: float = POWER, confidence: float = CONFIDENCE) -> float:
    """Least true change that a test at this confidence finds with this power, from the interval's half width.

    From the interval of a paired difference it is that of the comparison. From the interval of one run's mean it is that
    against a fixed figure, or against another run whose values correlate with this one's by one half.
    """
    z = float(stats.norm.isf((1 - confidence) / 2))
    return (interval.high - interval.low) / 2 * (z + float(stats.norm.isf(1 - power))) / z
