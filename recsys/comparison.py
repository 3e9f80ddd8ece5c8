"""Whether one run is better than another on the same queries, on which of them, and which stage made the change."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.errors import ConfigError, DataError, nearest
from recsys.evaluation.measured import FINAL, FIRST
from recsys.evaluation.statistics import CONFIDENCE, Comparison, holm, mcnemar, paired
from recsys.runs import RunFolder
from recsys.tracking import flatten

SHOWN = 10
_KEYS = ["fold", "user", "item"]


def compare(first: RunFolder, others: Sequence[RunFolder], metrics: Sequence[str] = ()) -> dict[str, Any]:
    """Every other run against the first: plain values that JSON can hold.

    `metrics` are columns of `per_query.parquet`, the leading one first: what the verdict speaks of and what the queries are
    sorted by. By default they are what the first run shows of both stages, as far as the other one measured it too; where it
    measured none of it, what the other one shows. Holm's correction goes over all metrics and runs together.

    Raises `DataError` when runs are not of the same data and queries, and says what differs, or share no metric, and
    `ConfigError` for a metric that one of the runs lacks. A query without a number is a `DataError` too.
    """
    queries, targets = _queries(first), first.table("targets")
    names = [run.name for run in (first, *others)]
    name_of = {run.path: run.name if names.count(run.name) == 1 else f"{run.name} {run.path.name}" for run in (first, *others)}
    results, p_values = [], []
    for other in others:
        _same_question(first, other, queries, targets)
        theirs = _queries(other)
        shared = _named(metrics, first, queries, other, theirs) if metrics else _shared(first, queries, other, theirs)
        for metric in shared:
            for run, table in ((first, queries), (other, theirs)):
                _check_numbers(run, table, metric)
        rows = {metric: _paired(queries, theirs, metric) for metric in shared}
        p_values += [p for _, p in rows.values()]
        results.append((other, theirs, rows))
    adjusted = iter(holm(p_values) if p_values else [])
    compared = []
    for other, theirs, rows in results:
        table = [_row(metric, queries, theirs, found, p, next(adjusted)) for metric, (found, p) in rows.items()]
        leading, *_ = rows
        k = int(leading.rpartition("_at_")[2])
        changes = changed_targets(targets, other.table("targets"), k)
        compared.append(
            {
                "name": name_of[other.path],
                "folder": str(other.path),
                "leading": leading,
                "k": k,
                "verdict": verdict(name_of[other.path], name_of[first.path], table),
                "metrics": table,
                "causes": causes(changes),
                "changed": changed_queries(queries, theirs, changes, leading),
                "settings": _differing(first.config, other.config),
            }
        )
    about = {"name": name_of[first.path], "folder": str(first.path), "queries": len(queries)}
    return {"format": 2, "confidence": CONFIDENCE, "first": about, "others": compared}


def _shared(first: RunFolder, a: pd.DataFrame, other: RunFolder, b: pd.DataFrame) -> list[str]:
    """What one of two runs shows and both measured: of the lists, then the leading metric before ranking."""
    for shown in (first.measured.shown, other.measured.shown):
        both = [name for name in shown if f"{FINAL}/{name}" in a and f"{FINAL}/{name}" in b]
        if both:
            before = f"{FIRST}/{both[0]}"
            return [*(f"{FINAL}/{name}" for name in both), *([before] if before in a and before in b else [])]
    measured = [f"{run.name} ({run.path.name}) has {', '.join(run.measured.shown)}" for run in (first, other)]
    raise DataError(f"the runs share no metric that either shows: {'; '.join(measured)}; name those to compare by --metrics")


def _named(metrics: Sequence[str], first: RunFolder, a: pd.DataFrame, other: RunFolder, b: pd.DataFrame) -> list[str]:
    """The metrics called so, by full names; `ndcg_at_10` is that of the two stages."""
    found = []
    for name in metrics:
        for run, table in ((first, a), (other, b)):
            known = [column for column in table if "/" in column and "_at_" in column]
            full = name if "/" in name else f"{FINAL}/{name}"
            if full not in known:
                has = f"{run.name} ({run.path.name}) keeps no {name!r} of each query"
                raise ConfigError(f"--metrics: {has}.{nearest(full, known)}")
        found.append(full)
    return found


def _check_numbers(run: RunFolder, table: pd.DataFrame, metric: str) -> None:
    wrong = np.flatnonzero(~np.isfinite(table[metric].to_numpy()))
    if len(wrong):
        user = _plain(table["user"].iloc[wrong[0]])
        found = f"{len(wrong):,} of {len(table):,} queries have none, first that of user {user!r}"
        raise DataError(f"{run.name} ({run.path.name}), per_query.parquet: wanted a number for every {metric}; {found}")


def _queries(run: RunFolder) -> pd.DataFrame:
    table = run.table("per_query")
    keys = [key for key in ("fold", "cutoff", "user") if key in table]
    return table.sort_values(keys, kind="stable", ignore_index=True)


def _same_question(first: RunFolder, other: RunFolder, queries: pd.DataFrame, targets: pd.DataFrame) -> None:
    """Raise `DataError` unless both runs were asked the same queries of the same data with the same right answers."""
    both = f"{first.name} ({first.path.name}) and {other.name} ({other.path.name}) cannot be compared"
    data = [run.about.get("dataset", {}) for run in (first, other)]
    if data[0].get("fingerprint") != data[1].get("fingerprint"):
        names = " and ".join(f"{d.get('name')} ({str(d.get('fingerprint'))[:8]})" for d in data)
        raise DataError(f"{both}: they are of different data, {names}")
    differ = [key for key in _differing(first.config, other.config) if key.startswith("split.") and ".label" not in key]
    because = f"; {', '.join(differ)} differ" if differ else ""
    windows = [[window["text"] for window in run.about.get("windows", [])] for run in (first, other)]
    if windows[0] != windows[1]:
        raise DataError(f"{both}: the test windows are {windows[0]} and {windows[1]}{because}")
    theirs = _queries(other)
    keys = [key for key in ("fold", "user") if key in queries and key in theirs]
    merged = queries[keys].merge(theirs[keys], how="outer", indicator=True)
    only = {side: int((merged["_merge"] == side).sum()) for side in ("left_only", "right_only")}
    if any(only.values()):
        counts = f"{only['left_only']:,} only in the first, {only['right_only']:,} only in the second"
        raise DataError(f"{both}: they are of different queries, {counts}{because}")
    answers = [table[[*_KEYS, "grade"]].sort_values(_KEYS, ignore_index=True) for table in (targets, other.table("targets"))]
    if not answers[0].equals(answers[1]):
        raise DataError(f"{both}: other items are right or their grades differ{because}")


def _paired(a: pd.DataFrame, b: pd.DataFrame, metric: str) -> tuple[Comparison, float]:
    """The comparison, and the p-value that fits: McNemar's for hits of users with one query each; else that of the interval."""
    first, second = a[metric].to_numpy(), b[metric].to_numpy()
    user = a["user"].to_numpy()
    alone = len(np.unique(user)) == len(user)
    found = paired(first, second, None if alone else user)
    is_hit = "/hit_rate_at_" in metric
    return found, mcnemar(first > 0, second > 0) if is_hit and alone else found.p_value


def _row(metric: str, a: pd.DataFrame, b: pd.DataFrame, found: Comparison, p: float, adjusted: float) -> dict[str, Any]:
    return {
        "metric": metric,
        "first": float(a[metric].mean()),
        "second": float(b[metric].mean()),
        "difference": {"value": found.difference.value, "low": found.difference.low, "high": found.difference.high},
        "p": p,
        "p_holm": adjusted,
        "improved": found.improved,
        "worse": found.worse,
        "unchanged": found.unchanged,
        "mde": found.mde,
    }


def verdict(name: str, first: str, table: Sequence[Mapping[str, Any]]) -> str:
    """One line: what was shown, or what could have been, of the leading metric, which is the first of `table`."""
    leading = table[0]
    shown = [row for row in table if row["p_holm"] < 1 - CONFIDENCE]
    row = leading if leading in shown or not shown else shown[0]
    metric = row["metric"].split("/")[-1].replace("_at_", "@")
    difference = "{value:+.4f} [{low:+.4f}, {high:+.4f}]".format(**row["difference"])
    if not shown:
        resolution = f"less than {row['mde']:.4f} cannot be seen on these queries"
        return f"no difference shown: {metric} {difference}, p = {row['p_holm']:.2f}; {resolution}"
    better = "better" if row["difference"]["value"] > 0 else "worse"
    where = " before ranking" if row["metric"].startswith("retrieval/") else ""
    chance = f"p = {row['p_holm']:.4f}" if row["p_holm"] >= 0.0001 else "p < 0.0001"
    return f"{name} is {better} than {first}{where}: {metric} {difference}, {chance} after Holm"


def changed_targets(a: pd.DataFrame, b: pd.DataFrame, k: int) -> pd.DataFrame:
    """The targets that are among the first `k` of one run only (`targets.parquet` of both given).

    Columns beside the keys: `gained`; `first` and `second`, the places in both runs (0: no candidate); `stage` that made the
    change, retrieval or ranking; `by`, the source that brought it (or brings it no more), or the feature family whose margin
    over the rival differs most; empty where that is not known.
    """
    sides = [
        table.rename(columns={c: f"{side}|{c}" for c in table if c not in _KEYS})
        for side, table in (("first", a), ("second", b))
    ]
    both = sides[0].merge(sides[1], on=_KEYS)
    hit = {side: both[f"{side}|two_stage"].between(1, k) for side in ("first", "second")}
    both = both[hit["first"] != hit["second"]].reset_index(drop=True)
    gained = both["second|two_stage"].between(1, k).to_numpy()
    retrieved = (both["first|in_pool"] != both["second|in_pool"]).to_numpy()
    source = np.where(gained, _nearest_source(both, "second"), _nearest_source(both, "first"))
    return pd.DataFrame(
        {
            **{key: both[key] for key in _KEYS},
            "gained": gained,
            "first": both["first|two_stage"],
            "second": both["second|two_stage"],
            "stage": np.where(retrieved, "retrieval", "ranking"),
            "by": np.where(retrieved, source, _family(both, gained)),
        }
    )


def _nearest_source(both: pd.DataFrame, side: str) -> np.ndarray[Any, np.dtype[np.object_]]:
    """The source of one run that ranks each target best."""
    prefix = f"{side}|source/"
    columns = [column for column in both if column.startswith(prefix)]
    rank = both[columns].to_numpy(dtype=np.float64)
    names = np.array([*(column.removeprefix(prefix) for column in columns), ""], dtype=object)
    rank = np.column_stack([np.where(rank > 0, rank, np.inf), np.full(len(both), 1e9)])
    return np.asarray(names[rank.argmin(axis=1)])


def _family(both: pd.DataFrame, gained: npt.NDArray[np.bool_]) -> np.ndarray[Any, np.dtype[np.object_]]:
    """The feature family that does more for the target, against its rival, in the run that hits it than in the other."""
    families = list(dict.fromkeys(column.partition("|margin/")[2] for column in both if "|margin/" in column))
    if not families:
        return np.full(len(both), "", dtype=object)
    nothing = pd.Series(np.nan, index=both.index)
    first, second = (
        np.column_stack([both.get(f"{side}|margin/{name}", nothing).to_numpy() for name in families])
        for side in ("first", "second")
    )
    with_it, without = (np.where(gained[:, None], *sides) for sides in ((second, first), (first, second)))
    known = np.isfinite(with_it).any(axis=1)
    change = with_it - np.nan_to_num(without)
    best = np.where(np.isfinite(change), change, -np.inf).argmax(axis=1)
    return np.where(known, np.array(families, dtype=object)[best], "")


def causes(changes: pd.DataFrame) -> list[dict[str, Any]]:
    """How many targets were gained and lost by each stage and source or family, most first."""
    counts = Counter(zip(changes["gained"].tolist(), changes["stage"], changes["by"], strict=True))
    ordered = sorted(counts.items(), key=lambda pair: (not pair[0][0], -pair[1], pair[0][1:]))
    return [{"gained": gained, "stage": stage, "by": by, "targets": n} for (gained, stage, by), n in ordered]


def changed_queries(
    a: pd.DataFrame, b: pd.DataFrame, changes: pd.DataFrame, metric: str, most: int = SHOWN
) -> list[dict[str, Any]]:
    """The queries that gained most and lost most of `metric`, half each, with the targets that made the difference."""
    change = (b[metric] - a[metric]).to_numpy()
    order = np.argsort(-change, kind="stable")
    chosen = [*(i for i in order[:most] if change[i] > 0), *(i for i in order[-most:] if change[i] < 0)]
    groups = dict(iter(changes.groupby(["fold", "user"], sort=False))) if len(changes) else {}
    found = []
    for i in chosen:
        fold, user = (int(a["fold"].iloc[i]) if "fold" in a else 0), a["user"].iloc[i]
        rows = groups.get((fold, user), changes.iloc[:0])
        moved = [
            {"item": _plain(r.item), "first": int(r.first), "second": int(r.second), "stage": r.stage, "by": r.by}
            for r in rows.itertuples()
        ]
        values = {"first": float(a[metric].iloc[i]), "second": float(b[metric].iloc[i])}
        found.append({"user": _plain(user), "fold": fold, **values, "targets": moved})
    return found


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[str]]:
    """Settings that differ, by dotted key, as text; where a run writes to is none of them."""
    flat = [{k: v for k, v in flatten(c).items() if not k.startswith(("output", "tracking", "hydra"))} for c in (a, b)]
    keys = sorted(set(flat[0]) | set(flat[1]))
    return {key: [f.get(key, "–") for f in flat] for key in keys if flat[0].get(key) != flat[1].get(key)}


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
