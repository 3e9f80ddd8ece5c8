"""The audit: honest recommenders pass, and every cheat that we could think of is caught."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cheats
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cheats import SPLIT, WORLD, honest

from recsys.audit import certify
from recsys.audit.certificate import Check, certificate, verdict
from recsys.audit.fresh import FitError, Fresh
from recsys.audit.leakage import audit
from recsys.component import component
from recsys.errors import ConfigError
from recsys.features import FeatureFamily
from recsys.ranking import LambdaRank, Ranker, RetrievalOrder
from recsys.recommender import TwoStageRecommender
from recsys.retrieval import ALS, History, Popularity, Retriever
from recsys.shop.splits import Split

TREES = {"trees": 20, "early_stopping": 10, "threads": 1, "min_data_in_leaf": 10, "leaves": 7}
Build = Callable[[], TwoStageRecommender]


@pytest.fixture(scope="module")
def processes() -> Iterator[Fresh]:
    with Fresh() as fresh:
        yield fresh


@pytest.fixture
def findings(processes: Fresh) -> Callable[..., dict[str, Check]]:
    """Every check of a recommender that does not pass."""

    def of(build: Build, split: Split = SPLIT) -> dict[str, Check]:
        checks, _, _ = audit(WORLD, split, build, processes=processes)
        return {check.name: check for check in checks if check.outcome in ("warn", "fail")}

    return of


def failed(found: dict[str, Check]) -> set[str]:
    return {name for name, check in found.items() if check.outcome == "fail"}


def like_split(kind: type[Split]) -> Split:
    return kind(**{name: value for name, value in SPLIT.settings().items() if name != "_target_"})


@pytest.mark.parametrize(
    "build",
    [
        lambda: honest(ALS(factors=8, iterations=3, threads=1)),
        lambda: honest(ranker=LambdaRank(**TREES)),
        lambda: honest(History(), RetrievalOrder()),
        lambda: honest(Popularity(window_days=None, seen="drop_touched"), RetrievalOrder()),
    ],
)
def test_honest_recommenders_pass(processes: Fresh, build: Build) -> None:
    checks, lists, task = audit(WORLD, SPLIT, build, processes=processes)
    assert [check for check in checks if check.outcome == "fail"] == []
    assert lists is not None
    assert len(lists) == len(task.queries)
    assert "no leak found" in verdict(checks)


@pytest.mark.parametrize(
    ("cheat", "caught_by"),
    [
        (cheats.GlobalLog, "lists from an uninformative past"),
        (cheats.GlobalPopularity, "lists in disguise"),
        (cheats.BehindTheView, "future deleted"),
        (cheats.WholeVocabulary, "future deleted"),
        (cheats.InjectedTruth, "injected candidates"),
        (cheats.Dice, "same seed, same result"),
        (cheats.TableById, "own ids renamed"),
        (cheats.GuardedTableById, "own ids renamed"),
        (cheats.TableByNumber, "lists from an uninformative past"),
        (cheats.GuardedTableByNumber, "lists in disguise"),
        (cheats.HonestWhereBirthsAreUnnatural, "lists from an uninformative past"),
        (cheats.TableByDate, "times shifted"),
        (cheats.MemoByHistory, "lists in disguise"),
        (cheats.TableByName, "own ids renamed"),
        (cheats.MemoOfTheClass, "future deleted"),
    ],
)
def test_retrievers_that_cheat_are_caught(findings, cheat: type[Retriever], caught_by: str) -> None:
    assert caught_by in failed(findings(lambda: honest(cheat(), RetrievalOrder())))


@pytest.mark.parametrize(
    ("cheat", "caught_by"),
    [
        (cheats.FuturePopularity, {"future deleted", "future scrambled"}),
        (cheats.GlobalFuturePopularity, {"features from an uninformative past"}),
        (cheats.CentredWindow, {"future deleted"}),
        (cheats.CentredInTraining, {"label window scrambled"}),
        (cheats.FuturePrice, {"future deleted"}),
        (cheats.FuturePlan, {"future deleted"}),
        (cheats.TruthItself, {"features from an uninformative past"}),
        (cheats.GuardedFuturePopularity, {"features in disguise"}),
    ],
)
def test_features_that_cheat_are_caught(findings, cheat: type[FeatureFamily], caught_by: set[str]) -> None:
    found = findings(lambda: honest(cheat=cheat()))
    assert caught_by <= failed(found)
    assert all("cheat__" in found[name].finding or "feature" in found[name].finding for name in caught_by)


@pytest.mark.parametrize(
    ("cheat", "caught_by"),
    [
        (cheats.LearntTheTest, "shuffled labels"),
        (cheats.LearntTheTestUnlessShuffled, "shuffled labels"),
        (cheats.KnowsTheAnswer, "features from an uninformative past"),
        (cheats.GuardedAnswers, "shuffled labels"),
    ],
)
def test_rankers_that_cheat_are_caught(findings, cheat: type[Ranker], caught_by: str) -> None:
    assert caught_by in failed(findings(lambda: honest(ranker=cheat())))


@pytest.mark.parametrize(
    ("split", "caught_by"),
    [
        (cheats.LabelsOfTheTest, "training labels"),
        (cheats.LateLabels, "training labels"),
        (cheats.InventedAnswers, "test answers"),
    ],
)
def test_splits_that_cheat_are_caught(findings, split: type[Split], caught_by: str) -> None:
    assert caught_by in failed(findings(lambda: honest(ranker=RetrievalOrder()), like_split(split)))


@pytest.mark.parametrize("split", [cheats.EasyQueries, cheats.BestSellersOnly])
def test_a_split_that_asks_easy_queries_is_told(findings, split: type[Split]) -> None:
    told = findings(lambda: honest(ranker=RetrievalOrder()), like_split(split))["what is asked"]
    assert told.outcome == "warn"
    assert told.evidence["asked"]["users"] < told.evidence["a plain split asks"]["users"]
    assert "an easy one" in told.finding


def test_a_split_that_leaves_out_what_its_settings_ask_is_told(findings) -> None:
    told = findings(lambda: honest(ranker=RetrievalOrder()), like_split(cheats.LuckyQueries))["what is asked"]
    assert told.outcome == "warn"
    assert "own settings" in told.finding


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """One number an item in two files."""
    values = np.random.default_rng(1).random(cheats.ITEMS).astype(np.float32)
    np.save(tmp_path / "vectors.npy", values)
    pq.write_table(pa.table({"value": values}), tmp_path / "vectors.parquet")
    return tmp_path


@pytest.mark.parametrize(("cheat", "file"), [(cheats.Vectors, "vectors.npy"), (cheats.ParquetVectors, "vectors.parquet")])
def test_a_file_that_is_not_declared_is_caught(findings, vectors: Path, cheat: type[Retriever], file: str) -> None:
    found = findings(lambda: honest(cheat(path=str(vectors / file)), RetrievalOrder()))
    assert "files" in failed(found)
    assert file in found["files"].finding


def test_a_declared_file_is_told_with_its_hash(findings, vectors: Path) -> None:
    build = lambda: honest(cheats.DeclaredVectors(path=str(vectors / "vectors.npy")), RetrievalOrder())  # noqa: E731
    told = findings(build)["files"]
    assert told.outcome == "warn"
    assert [len(file["hash"]) for file in told.evidence["declared"]] == [32]
    assert told.evidence["declared"][0]["made before the cutoff"] is None


def test_a_memo_that_was_filled_before_the_audit_is_caught(findings, monkeypatch: pytest.MonkeyPatch) -> None:
    log, later = WORLD.before(cheats.CUTOFF).log, cheats.bought_later()
    future = np.bincount(later["item"], minlength=log.n_items)[: log.n_items]
    monkeypatch.setattr(cheats.Memo, "told", {cheats.content(log): future})
    assert "fresh process" in failed(findings(lambda: honest(cheats.Memo(), RetrievalOrder())))


def test_a_component_that_no_other_process_can_import_is_refused(processes: Fresh) -> None:
    @component
    class Local(Popularity):
        pass

    with pytest.raises(ConfigError, match="Local"):
        audit(WORLD, SPLIT, lambda: honest(Local()), processes=processes)


def test_what_stops_the_fit_on_the_data_as_they_are_is_raised(processes: Fresh) -> None:
    with pytest.raises(FitError, match="KeyError: 'vectors of last week'"):
        audit(WORLD, SPLIT, lambda: honest(cheats.Broken()), processes=processes)


def test_a_result_that_rests_on_ties_is_told(findings) -> None:
    found = findings(lambda: honest(ranker=cheats.Constant()))
    ties = found["ties"]
    assert ties.outcome == "warn"
    assert ties.evidence["best"]["hit_rate"] > ties.evidence["worst"]["hit_rate"] == 0
    assert "look at: ties" in verdict([ties])


def test_a_certificate_says_what_failed() -> None:
    checks = [Check("past", "pass", "fine"), Check("future deleted", "fail", "the lists are not the same")]
    values = certificate(checks, {"config_hash": "abc"})
    assert values["clean"] is False
    assert values["verdict"] == "LEAKS: the lists are not the same"
    assert values["config_hash"] == "abc"
    assert [check["outcome"] for check in values["checks"]] == ["pass", "fail"]


@pytest.mark.slow
@pytest.mark.parametrize("ranker", ["lambdarank", "none", "rule"])
def test_no_part_of_the_package_is_accused(composed: Callable[..., dict[str, Any]], ranker: str) -> None:
    config = composed("dataset.scale=0.005", "features=full", "split.label_cutoffs=1", f"ranker={ranker}")
    retriever, features = config["retriever"], config["features"]
    retriever["sources"], features["families"] = list(retriever["definitions"]), list(features["definitions"])
    certificate = certify.certify(config)
    assert [check for check in certificate["checks"] if check["outcome"] == "fail"] == []
