"""The audit of a run, of a config or of a data set: every check, tied to the run's own lists, written down as a certificate."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import recsys
from recsys.audit.certificate import Check, certificate
from recsys.audit.data import audit_data
from recsys.audit.leakage import audit
from recsys.component import construct
from recsys.datasets import Dataset, Loader
from recsys.digest import digest
from recsys.errors import ConfigError
from recsys.recommender import TwoStageRecommender
from recsys.report import page
from recsys.runs import RunFolder, config_hash, tracker_of
from recsys.shop.pools import Ranking
from recsys.shop.splits import Split, Task
from recsys.tracking import git_tags


def certify(config: Mapping[str, Any], run: RunFolder | None = None) -> dict[str, Any]:
    """Audit what `config` describes; with `run`, also that its lists are what the run kept. Gives the certificate.

    Raises `ConfigError` and `DataError` as a run does.
    """
    dataset, split = _dataset(config)

    def build() -> TwoStageRecommender:
        retriever, features, ranker = (construct(config[name], name) for name in ("retriever", "features", "ranker"))
        return TwoStageRecommender(retriever, features, ranker, config["candidates"])

    checks, lists, test = audit(dataset, split, build, seed=int(config["seed"]))
    if run:
        checks.insert(0, _same_as_run(run, dataset, lists, test))
    about = {
        "run": run.name if run else None,
        "config_hash": config_hash(config),
        **_about(dataset),
        "cutoff": str(test.window),
        "queries": len(test.queries),
    }
    return certificate(checks, about)


def certify_data(config: Mapping[str, Any]) -> dict[str, Any]:
    """Audit the data set of `config` alone. Gives the certificate; raises as `certify` does."""
    dataset, split = _dataset(config)
    settings = {name: config[name] for name in ("dataset", "split")}
    about = {"run": None, "config_hash": digest(settings), **_about(dataset)}
    return certificate(audit_data(dataset, split), about)


def _dataset(config: Mapping[str, Any]) -> tuple[Dataset, Split]:
    source, split = construct(config["dataset"], "dataset"), construct(config["split"], "split")
    if not isinstance(source, Loader) or not isinstance(split, Split):
        raise ConfigError("dataset, split: wanted a source and a split")
    return source.load(), split


def _about(dataset: Dataset) -> dict[str, Any]:
    return {
        "dataset": dataset.name,
        "data_fingerprint": dataset.log.fingerprint,
        "code": {"version": recsys.__version__, **git_tags(Path(__file__).parent)},
        "audited_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def keep(values: Mapping[str, Any], folder: Path, run: RunFolder | None = None) -> Path:
    """Write `certificate.json` into `folder`; for a run, also to its report and to its MLflow record where it has one."""
    path = folder / "certificate.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    if run:
        report = page.write(RunFolder(run.path))
        if run.about.get("id") and (tracker := tracker_of(run.config)):
            tracked = tracker.reopen(run.about["id"])
            tracked.artifact(path)
            tracked.artifact(report)
            tracked.tag("leakage", values["verdict"])
    return path


def _same_as_run(run: RunFolder, dataset: Dataset, lists: Ranking | None, test: Task) -> Check:
    """The audited lists are those that the run kept, item for item."""
    name = "the run's own lists"
    fingerprint = run.about.get("dataset", {}).get("fingerprint", dataset.log.fingerprint)
    if fingerprint != dataset.log.fingerprint:
        finding = "The data are not those of the run any more, so the certificate cannot be of that run."
        return Check(name, "fail", finding, {"run": fingerprint, "now": dataset.log.fingerprint})
    if lists is None:
        return Check(name, "skipped", "There are no lists to compare.")
    kept = run.table("recommendations")
    if "cutoff" in kept:
        kept = kept[kept["cutoff"] == test.window.cutoff]
    kept = kept[kept["rank"] <= lists.item.shape[1]]
    depth = int(kept["rank"].max()) if len(kept) else 0
    row, place = np.nonzero(lists.item[:, :depth] >= 0)
    audited = pd.DataFrame(
        {
            "user": dataset.log.users.ids[test.queries.user[row]],
            "rank": place + 1,
            "item": dataset.log.items.ids[lists.item[row, place]],
        }
    )
    both = audited.merge(kept[["user", "rank", "item"]], on=["user", "rank"], how="outer", suffixes=("", "_of_run"))
    same = int((both["item"] == both["item_of_run"]).sum())
    evidence = {"places": len(both), "with the same item": same}
    if same < len(both):
        finding = f"{len(both) - same:,} of {len(both):,} places hold another item than in the run: code or data have changed."
        return Check(name, "fail", finding, evidence)
    return Check(name, "pass", f"The audited recommender gives the run's own lists, all {same:,} places.", evidence)
