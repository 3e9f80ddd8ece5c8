"""What one fit shows by itself: files that it opened, labels that it learned from, candidates put in by hand, ties."""

from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from recsys.audit._chance import LEAST_EDGE
from recsys.audit.certificate import Check
from recsys.audit.trace import Trace, counts
from recsys.evaluation import metrics
from recsys.evaluation import ties as tied
from recsys.shop.queries import Truth
from recsys.shop.splits import Task

TIES_MATTER = 0.005


def files(*traces: Trace) -> Check:
    """Every file that a fit opens is one that a component declares; and those that are declared are told with their hashes."""
    declared = list(dict.fromkeys(path for each in traces for path in each.declared))
    known = [Path(path).expanduser().resolve() for path in declared if path is not None]
    opened = sorted({path for each in traces for path in each.opened})
    undeclared = [path for path in opened if not any(Path(path) == each or each in Path(path).parents for each in known)]
    about = [_about(path) for path in known]
    evidence = {"opened": opened, "not declared": undeclared, "declared": about}
    if undeclared and None not in declared:
        finding = f"A component opens {undeclared[0]}, which none declares (Component.files): it may know more than the past."
        return Check("files", "fail", finding, evidence)
    if None in declared:
        finding = "A component cannot name the files that it reads: whether they were made before the cutoff is not shown."
        return Check("files", "warn", finding, evidence)
    if about:
        finding = f"Components read {', '.join(path.name for path in known)}. Made before the cutoff? That is not shown."
        return Check("files", "warn", finding, evidence)
    return Check("files", "pass", "No component opens a file.", evidence)


def _about(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"path": str(path), "hash": None, "made before the cutoff": None}
    with path.open("rb") as file:
        total = blake2b(digest_size=16)
        while chunk := file.read(1 << 20):
            total.update(chunk)
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    return {"path": str(path), "hash": total.hexdigest(), "changed": changed, "made before the cutoff": None}


def shuffled_labels(base: Trace, shuffles: int) -> Check:
    """A ranker that learns from shuffled labels has to lose what it had learned."""
    name = "shuffled labels"
    if not base.learns:
        return Check(name, "skipped", "The ranker does not learn from labels.")
    true, *kept = base.shuffled
    if true <= 0.5 + LEAST_EDGE:
        return Check(name, "skipped", "The ranker is no better than chance on the test, so it has nothing to lose.")
    evidence = {"auc with true labels": round(true, 4), "auc with shuffled labels": [round(auc, 4) for auc in kept]}
    if not base.heeds:
        finding = "From half of its queries the ranker learns the same to the last bit: it does not learn from its labels."
        return Check(name, "fail", finding, evidence)
    if len(kept) == shuffles and kept[-1] >= 0.5 + (true - 0.5) / 2:
        finding = (
            f"With shuffled labels the ranker is as good (AUC {min(kept):.2f} of {true:.2f}): it learned from something else."
        )
        return Check(name, "fail", finding, evidence)
    finding = f"With shuffled labels the ranker loses what it had learned (AUC {kept[-1]:.2f}, with true labels {true:.2f})."
    return Check(name, "pass", finding, evidence)


def injected(base: Trace, test: Task) -> Check:
    """Every candidate was proposed by a source, once, and is an item of the past."""
    assert base.pool is not None
    pools = {"test": counts(base.pool, test.truth)}
    pools |= {f"label window {i}": window for i, window in enumerate(base.windows, start=1)}
    orphans, twice = (sum(each[what] for each in pools.values()) for what in ("proposed by no source", "twice"))
    figures = {
        name: {
            "candidates": each["candidates"],
            "positive rate": round(each["relevant"] / each["candidates"], 6) if each["candidates"] else None,
            "share of the truth that is a candidate": round(each["relevant"] / max(each["truth"], 1), 4),
        }
        for name, each in pools.items()
    }
    if orphans or twice:
        finding = (
            f"{orphans:,} candidates were proposed by no source and {twice:,} are there twice: positives were put in by hand."
        )
        return Check("injected candidates", "fail", finding, figures)
    shares = [values["share of the truth that is a candidate"] for values in figures.values()]
    if len(shares) > 1 and min(shares[1:]) > 0.999 and shares[0] < 0.9:
        finding = f"The label windows' pools hold all of their truth, the test's {shares[0]:.0%}: are positives put in?"
        return Check("injected candidates", "warn", finding, figures)
    return Check(
        "injected candidates", "pass", "Every candidate was proposed by a source, in the test and in training.", figures
    )


def ties(base: Trace, truth: Truth, k: int) -> Check:
    """The metrics if all ties went for the truth, and if all went against it."""
    pool, scores = base.pool, base.score
    assert pool is not None
    assert scores is not None
    of = {name: metrics.RELEVANCE[name] for name in ("hit_rate", "ndcg")}
    values = metrics.mean(tied.values(pool, scores, pool.order(scores, k + 1), truth, k, of))
    cases = {case: {name: round(values[f"{name}_at_{k}_{case}"], 6) for name in of} for case in tied.CASES}
    spread = max(cases["best"][metric] - cases["worst"][metric] for metric in ("hit_rate", "ndcg"))
    lowest, highest = cases["worst"]["ndcg"], cases["best"]["ndcg"]
    finding = f"NDCG@{k} is {lowest:.4f} with all ties against the truth and {highest:.4f} with all for it"
    if spread > TIES_MATTER:
        return Check("ties", "warn", f"{finding}: the result depends on how ties are broken.", cases)
    return Check("ties", "pass", f"{finding}.", cases)
