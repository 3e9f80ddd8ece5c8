"""Beyond accuracy: what the lists show, right or wrong."""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys.evaluation.evidence import Float64, Past
from recsys.shop import ragged
from recsys.shop.events import Int64
from recsys.shop.identity import Int32
from recsys.shop.pairs import is_member, pair_key
from recsys.shop.pools import Ranking
from recsys.shop.queries import Queries, Truth

PER_QUERY = (
    *("unseen", "repeat", "self_information", "long_tail", "serendipity", "popularity", "own_popularity"),
    *("diversity_category", "diversity_covisitation"),
)
"""Names of what `per_query` gives."""
LIFT = "popularity_lift"
"""Name of what `lift` gives."""
OF_ALL = ("coverage", "gini")
"""Names of what `of_all_lists` gives."""
SAMPLE = 500
"""Queries whose lists are compared by covisitation: pairs of popular items are dear."""


def per_query(
    ranking: Ranking, queries: Queries, truth: Truth, past: Past, expected: Ranking, seed: int = 0
) -> dict[str, Float64]:
    """Values a query of lists as they stand, `float64[q]`; NaN for an empty list and for what it leaves undefined.

    - `unseen`: share of items that the user never touched; `repeat`: share that it bought before.
    - `self_information`: mean of −log2(share of users that know the item), in bits (Zhou et al., PNAS 2010). An item that
      nobody knows counts as known to one user.
    - `long_tail`: share outside the head, see `evidence.HEAD` (Abdollahpouri, Burke and Mobasher, FLAIRS 2019: APLT).
    - `diversity_category`: share of pairs of unlike category, among pairs whose categories are known: intra-list diversity
      (Smyth and McClave, ICCBR 2001; Ziegler et al., WWW 2005) by a distance of 0 or 1.
    - `diversity_covisitation`: the same by 1 − cosine of the items' users, on a sample of the queries.
    - `serendipity`: share of items that are relevant and not among the `expected`, a list that needs no system, such as the
      most popular (Ge, Delgado-Battenfeld and Jannach, RecSys 2010); that they are new to the user is asked beyond that.
    - `popularity`: mean share of users that know the item; `own_popularity`: the same of the user's own items.
    """
    row, place = np.nonzero(ranking.item >= 0)
    item, n = ranking.item[row, place], len(ranking)
    key = pair_key(row, item)
    touched = np.unique(pair_key(queries.row, queries.item))
    bought = queries.has_role("purchase")
    bought_before = np.unique(pair_key(queries.row[bought], queries.item[bought]))
    seen = is_member(key, touched)
    known = past.users[item]
    relevant = truth.grade_of(row, item) > 0
    shown_row, shown_place = np.nonzero(expected.item >= 0)
    plain = np.sort(pair_key(shown_row, expected.item[shown_row, shown_place]))
    n_users = max(past.log.n_users, 1)
    result = {
        "unseen": _mean(row, ~seen, n),
        "repeat": _mean(row, is_member(key, bought_before), n),
        "self_information": _mean(row, np.log2(n_users / np.maximum(known, 1)), n),
        "long_tail": _mean(row, ~past.head[item], n),
        "serendipity": _mean(row, relevant & ~seen & ~is_member(key, plain), n),
        "popularity": _mean(row, known / n_users, n),
        "own_popularity": _mean(touched >> 32, past.users[touched & 0xFFFFFFFF] / n_users, n),
    }
    return result | _diversity(ranking, past, seed)


def lift(popularity: Float64, own: Float64) -> tuple[Float64, Float64]:
    """Popularity lift of a group of queries, as values a query and the weights of their mean: `float64[q]` each.

    (GAP of the lists − GAP of the profiles) / GAP of the profiles, where GAP is the mean popularity in a list or a profile,
    averaged over the users of the group (Abdollahpouri et al., RMSE 2019). That is the mean of each query's own ratio, weighted
    by the popularity of its profile: a few users of rare items do not drown the rest. Queries that lack either do not count.
    """
    counts = np.isfinite(popularity) & (own > 0)
    ratio = np.divide(popularity, own, out=np.full(len(own), np.nan), where=counts) - 1
    return ratio, np.where(counts, own, 0)


def of_all_lists(ranking: Ranking, past: Past) -> dict[str, float]:
    """Figures of all lists together.

    `coverage`: share of the items with an event that at least one list shows (catalogue coverage: Ge, Delgado-Battenfeld and
    Jannach, RecSys 2010). `gini`: how unevenly the lists share their places among those items, from 0 (each as often) to
    almost 1 (one takes all) (Fleder and Hosanagar, Management Science 2009).
    """
    shown = np.bincount(ranking.item[ranking.item >= 0], minlength=len(past.users))[past.users > 0]
    return {"coverage": float((shown > 0).mean()) if len(shown) else float("nan"), "gini": gini(shown)}


def gini(counts: npt.NDArray[np.integer]) -> float:
    """Gini coefficient of counts, NaN where all are 0."""
    if not counts.sum():
        return float("nan")
    ordered, n = np.sort(counts), len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def _mean(row: npt.NDArray[np.integer], value: npt.NDArray[np.generic], n: int) -> Float64:
    count = np.bincount(row, minlength=n)
    total = np.bincount(row, weights=value.astype(np.float64), minlength=n)
    return np.divide(total, count, out=np.full(n, np.nan), where=count > 0)


def _diversity(ranking: Ranking, past: Past, seed: int) -> dict[str, Float64]:
    first, second = np.triu_indices(ranking.item.shape[1], 1)
    a, b = ranking.item[:, first], ranking.item[:, second]
    row, pair = np.nonzero((a >= 0) & (b >= 0))
    a, b = a[row, pair], b[row, pair]
    of_a, of_b = past.category[a], past.category[b]
    placed = (of_a >= 0) & (of_b >= 0)
    n = len(ranking)
    drawn = np.zeros(n, dtype=bool)
    drawn[np.random.default_rng(seed).permutation(n)[:SAMPLE]] = True
    sampled = drawn[row]
    return {
        "diversity_category": _mean(row[placed], (of_a != of_b)[placed], n),
        "diversity_covisitation": _mean(row[sampled], 1 - _cosine(a[sampled], b[sampled], past), n),
    }


def _cosine(a: Int32, b: Int32, past: Past) -> Float64:
    """Cosine of the user sets of each pair of items."""
    pairs, of_pair = np.unique(pair_key(np.minimum(a, b), np.maximum(a, b)), return_inverse=True)
    items, columns = np.unique(np.concatenate([pairs >> 32, pairs & 0xFFFFFFFF]), return_inverse=True)
    users = _users_of(items, past)
    left, right = users[columns[: len(pairs)]], users[columns[len(pairs) :]]
    size = np.sqrt(past.users[pairs >> 32].astype(np.float64) * past.users[pairs & 0xFFFFFFFF])
    both = np.asarray(left.multiply(right).sum(axis=1)).ravel()
    return np.divide(both, size, out=np.zeros(len(pairs)), where=size > 0)[of_pair]


def _users_of(items: Int64, past: Past) -> sparse.csr_matrix:
    """Users of each of the items, as rows of ones."""
    number = np.full(len(past.users), -1)
    number[items] = np.arange(len(items))
    row = number[past.log.item]
    keys = np.unique(pair_key(row[row >= 0], past.log.user[row >= 0]))
    indptr = ragged.from_sorted(keys >> 32, len(items))
    ones = np.ones(len(keys), dtype=np.float32)
    return sparse.csr_matrix((ones, keys & 0xFFFFFFFF, indptr), shape=(len(items), past.log.n_users))
