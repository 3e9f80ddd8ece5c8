"""What each source of candidates is worth: alone, beyond the others, and its fair share of what all of them find."""

import numpy as np
import numpy.typing as npt

from recsys.evaluation.evidence import Evidence, Float64

NAMES = ("solo", "exclusive", "leave_one_out", "shapley")
"""What `values` gives for each source."""


def shapley(found_by: npt.NDArray[np.bool_]) -> Float64:
    """Shapley value of each source for each target (`float64[s, m]`), found by a coalition if by any of its members.

    A target found by the sources T is worth 1 to every coalition that meets T: its members are interchangeable and the others
    add nothing, so each member gets 1 / |T| (Shapley, 1953, by symmetry, dummy and additivity). No coalition need be listed,
    and the values of all sources add up to what their union finds.
    """
    members = found_by.sum(axis=0)
    return np.divide(found_by, members, out=np.zeros(found_by.shape), where=members > 0)


def values(evidence: Evidence) -> dict[str, Float64]:
    """Recall that each source stands for, a value a query, under `attribution/<source>/…`; other targets count as lost.

    - `solo`: what it proposed among the pooled targets.
    - `exclusive`: what no other source proposed.
    - `leave_one_out`: what the pool loses without it, filled up to the budget from the others (0 or less for a source that
      only takes places).
    - `shapley`: its share of the union's recall, see `shapley`.
    """
    found, fair = evidence.found_by, shapley(evidence.found_by)
    alone = found & (found.sum(axis=0) == 1)
    result: dict[str, Float64] = {}
    for s, name in enumerate(evidence.sources):
        lost = evidence.pooled.astype(np.float64) - evidence.found_without[s]
        each = {"solo": found[s], "exclusive": alone[s], "leave_one_out": lost, "shapley": fair[s]}
        result |= {f"attribution/{name}/{what}": evidence.share(target) for what, target in each.items()}
    return result


def jaccard(found_by: npt.NDArray[np.bool_]) -> Float64:
    """Overlap of the targets that two sources find, |A ∩ B| / |A ∪ B|, 0 where neither finds any: `float64[s, s]`."""
    found = found_by.astype(np.float64)
    both = found @ found.T
    either = both.diagonal()[:, None] + both.diagonal()[None, :] - both
    return np.divide(both, either, out=np.zeros(both.shape), where=either > 0)


def milliseconds_per_marginal_hit(evidence: Evidence) -> dict[str, float]:
    """Milliseconds of a source for each target that only it finds; no entry where its time is unknown or it finds none."""
    alone = evidence.found_by & (evidence.found_by.sum(axis=0) == 1)
    hits = dict(zip(evidence.sources, alone.sum(axis=1).tolist(), strict=True))
    return {name: 1000 * spent / hits[name] for name, spent in evidence.seconds.items() if hits.get(name)}
