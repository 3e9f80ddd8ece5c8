"""What each source of candidates is worth: alone, beyond the others, and its fair share of what all of them find."""

import numpy as np
import numpy.typing as npt

from recsys.evaluation.evidence import Evidence, Float64

NAMES = ("solo", "exclusive", "leave_one_out", "shapley")
"""What `values` gives for each source."""


def values(evidence: Evidence) -> dict[str, Float64]:
    """Recall within the budget that each source stands for, a value a query, under `attribution/<source>/…`.

    - `solo`: what it finds alone, its first candidates filling the budget.
    - `exclusive`: pooled targets that no other source proposed.
    - `leave_one_out`: what the pool loses without it, filled up to the budget from the others (0 or less for a source that
      only takes places).
    - `shapley`: its fair share of what all of them find, to which these values add up; see `coalitions.Found`.

    All but `exclusive` are NaN where the retriever's pools are not in the order that its `ordering` says.
    """
    alone = evidence.found_by & (evidence.found_by.sum(axis=0) == 1)
    lost = evidence.pooled.astype(np.float64) - evidence.found.without
    result: dict[str, Float64] = {}
    for s, name in enumerate(evidence.sources):
        found = (evidence.found.alone[s], alone[s], lost[s], evidence.found.shapley[s])
        for what, target in zip(NAMES, found, strict=True):
            result[f"attribution/{name}/{what}"] = evidence.share(target)
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
