"""Contracts that every ranker of conf/ranker keeps, and what each one is for."""

import builtins
import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from recsys.component import component, construct
from recsys.errors import ConfigError, DataError, NotFittedError
from recsys.evaluation import metrics
from recsys.features import FeatureMatrix
from recsys.ranking import Blend, Examples, LambdaRank, Logistic, Ranker, RetrievalOrder, Rule
from recsys.ranking.boosting import Judge
from recsys.ranking.learning import Learned, divide
from recsys.ranking.rule import percentile
from recsys.ranking.validation import ValidationNdcg
from recsys.shop import ragged
from recsys.shop.events import days
from recsys.shop.pools import CandidatePool, Float32
from recsys.shop.queries import Truth
from recsys.shop.splits import Window

CONF = Path(__file__).parents[2] / "conf"
NAMES = ("f__good", "f__gaps", "f__noise", "f__constant", "f__never")
QUERIES, WIDTH = 60, 12
OPTIONAL = {"catboost": "CatBoost", "xgboost": "XGBoost"}


def installed(name: str) -> bool:
    return name not in OPTIONAL or importlib.util.find_spec(name) is not None


def configs() -> list[str]:
    return sorted(path.stem for path in (CONF / "ranker").glob("*.yaml"))


def ranker(name: str, **options: object) -> Ranker:
    """As the command line would compose it, but small."""
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = OmegaConf.to_container(compose("config", [f"ranker={name}"]).ranker, resolve=False)
    settings = small(settings) | options
    if name == "rule":
        settings["weights"] = {"f__good": 2.0, "f__gaps": 1.0}
    return construct(settings, "ranker")


def small(settings: dict) -> dict:
    settings = {key: small(value) if isinstance(value, dict) else value for key, value in settings.items()}
    few = {"trees": 30, "early_stopping": 10, "min_data_in_leaf": 5, "seed": 0, "threads": 1}
    return settings | {key: value for key, value in few.items() if key in settings}


def window(seed: int, n: int = QUERIES, cutoff: float = 0, horizon: float = 1, signal: float = 1.5) -> Examples:
    """Queries whose relevant candidates have a high `good` and, where it is known, a high `gaps`; the last query has none."""
    rng = np.random.default_rng(seed)
    rows = n * WIDTH
    values = np.full((rows, len(NAMES)), np.nan, dtype=np.float32, order="F")
    values[:, :3] = rng.normal(size=(rows, 3))
    values[:, 3] = 4
    chance = signal * (values[:, 0] + values[:, 1]) + rng.gumbel(size=rows)
    values[rng.random(rows) < 0.3, 1] = np.nan
    best = chance.reshape(n, WIDTH).argsort(axis=1)[:, -2:]
    best[-1] = 10_000
    item = np.tile(np.arange(WIDTH, dtype=np.int32) * 3, n)
    evidence = rng.random((1, rows)).astype(np.float32)
    pool = CandidatePool(np.arange(n + 1) * WIDTH, item, ("one",), np.ones((1, rows), np.int16), evidence, evidence[0].copy())
    relevant = np.sort(best * 3, axis=1).astype(np.int32)
    grade = np.where(relevant % 2 == 0, 4.0, 2.0).astype(np.float32).ravel()
    truth = Truth(np.arange(n + 1) * 2, relevant.ravel(), grade)
    span = Window(days(cutoff), days(cutoff + horizon))
    return Examples(FeatureMatrix(values, NAMES, ("f",) * len(NAMES), pool), truth, span, np.arange(n, dtype=np.int32))


WINDOWS = [window(seed, cutoff=seed) for seed in range(3)]
NEW = window(99)


def reordered(features: FeatureMatrix, order: np.ndarray) -> FeatureMatrix:
    """The same queries in another order."""
    rows = ragged.take(features.pool.indptr, order)[1]
    return replace(features, values=np.asfortranarray(features.values[rows]), pool=features.pool.take(order))


@pytest.mark.parametrize("name", configs())
def test_contract(name: str, tmp_path: Path) -> None:
    """One finite score a candidate; the same twice, in any order of queries, after save and open, and with no candidate."""
    one, two = ranker(name), ranker(name)
    one.fit(WINDOWS)
    two.fit(WINDOWS)
    score = one.score(NEW.features)
    assert score.dtype == np.float32
    assert score.shape == (len(NEW.features.pool),)
    assert np.isfinite(score).all()
    np.testing.assert_array_equal(two.score(NEW.features), score)

    order = np.random.default_rng(0).permutation(QUERIES)
    rows = ragged.take(NEW.features.pool.indptr, order)[1]
    np.testing.assert_array_equal(one.score(reordered(NEW.features, order)), score[rows])

    one.save(tmp_path / "ranker")
    opened = Ranker.open(tmp_path / "ranker")
    np.testing.assert_array_equal(opened.score(NEW.features), score)
    assert opened.importance() == one.importance()

    nothing = NEW.features.where(np.zeros(len(score), dtype=bool))
    assert one.score(nothing).shape == (0,)


@pytest.mark.parametrize("name", [name for name in configs() if name not in ("none", "rule")])
def test_learners_learn(name: str) -> None:
    """Better than chance by far on new queries; noise, a constant column and one without a value do no harm."""
    learned = ranker(name)
    learned.fit(WINDOWS)
    ndcg = ValidationNdcg(NEW)
    chance = np.mean([ndcg(np.random.default_rng(i).random(len(NEW.features.pool))) for i in range(20)])
    ideal = ndcg(NEW.grade)
    assert ndcg(learned.score(NEW.features)) > chance + 0.4 * (ideal - chance)
    importance = learned.importance()
    assert set(importance) == set(NAMES)
    assert list(importance.values()) == sorted(importance.values(), reverse=True)
    assert set(list(importance)[:2]) == {"f__good", "f__gaps"}
    assert importance["f__constant"] == importance["f__never"] == 0
    with pytest.raises(DataError, match="learned 5 features, was given 4; differing: f__never"):
        learned.score(replace(NEW.features, values=NEW.features.values[:, :4], names=NAMES[:4]))
    with pytest.raises((NotFittedError, DataError)):
        ranker(name).score(NEW.features)


@pytest.mark.parametrize("name", [name for name in configs() if name not in ("none", "blend")])
def test_contributions_add_up(name: str) -> None:
    """But for one constant, the contributions of a candidate sum to its score."""
    fitted = ranker(name)
    fitted.fit(WINDOWS)
    added = fitted.contributions(NEW.features)
    assert added is not None
    assert added.shape == NEW.features.values.shape
    rest = fitted.score(NEW.features) - added.sum(axis=1)
    assert np.ptp(rest) < 1e-4
    assert np.abs(added[:, 0]).mean() > np.abs(added[:, 2]).mean()


@pytest.mark.parametrize("name", configs())
def test_adding_useless_columns_to_what_is_scored_never_fails(name: str) -> None:
    """Columns all constant, and columns all unknown: any order is right, an error is not."""
    for value in (0.0, np.nan):
        flat = [replace(w, features=replace(w.features, values=np.full_like(w.features.values, value))) for w in WINDOWS]
        fitted = ranker(name)
        fitted.fit(flat)
        assert np.isfinite(fitted.score(flat[0].features)).all()


@pytest.mark.parametrize("name", [name for name in configs() if name not in ("none", "rule")])
def test_nothing_relevant_is_told(name: str) -> None:
    barren = replace(NEW, truth=Truth(np.zeros(QUERIES + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32)))
    with pytest.raises(DataError, match="no candidate of any label window is relevant"):
        ranker(name).fit([barren])


@pytest.mark.parametrize(("library", "class_name"), OPTIONAL.items())
def test_a_missing_library_says_how_to_install_it(library: str, class_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def absent(name: str, package: str | None = None) -> object:
        if name == library:
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ConfigError, match=rf"{class_name} needs {library}.*pip install {library}"):
        construct({"_target_": f"recsys.ranking.{class_name}"}, "ranker")


def test_no_optional_library_is_imported_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        assert name.split(".")[0] not in OPTIONAL
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for module in OPTIONAL:
        importlib.reload(importlib.import_module(f"recsys.ranking.{module}"))


def test_windows_that_share_labels_with_the_latest_are_purged() -> None:
    windows = [window(i, cutoff=7 * i, horizon=28) for i in range(9)]
    teaches, latest = divide(windows)
    assert latest.window == windows[8].window
    score = np.random.default_rng(0).random(QUERIES * WIDTH)
    assert ValidationNdcg(latest)(score[:-WIDTH]) == ValidationNdcg(windows[8])(score)  # the last query has no relevant one
    assert teaches.tolist() == [True] * 5 * QUERIES + [False] * 4 * QUERIES
    assert windows[4].window.end == latest.window.cutoff


def test_where_all_windows_overlap_users_are_divided() -> None:
    windows = [window(i, cutoff=7 * i, horizon=28) for i in range(3)]
    teaches, latest = divide(windows)
    judging = set(latest.user[latest.features.pool.row].tolist())
    assert judging == set(range(0, QUERIES, 3))
    for of_window, own in zip(windows, np.split(teaches, 3), strict=True):
        assert set(of_window.user[own].tolist()) == set(range(QUERIES)) - judging


def test_a_single_window_is_divided_by_users() -> None:
    alone = replace(NEW, user=None, window=None)
    teaches, latest = divide([alone])
    table = LambdaRank(negatives=None).table([alone])
    part = table.where(teaches[table.query])
    taught = int(teaches[:-1].sum())  # the last group has no relevant one
    assert part.groups.tolist() == [WIDTH] * taught
    assert part.values.shape == (taught * WIDTH, len(NAMES))
    np.testing.assert_array_equal(part.grade, alone.grade[np.repeat(teaches, WIDTH)][: taught * WIDTH])
    assert taught + len(latest.truth) + int(teaches[-1]) == QUERIES
    assert not set(part.values[:, NAMES.index("f__good")].tolist()) & set(latest.features["f__good"].tolist())
    assert len(latest.truth) == QUERIES / 3


@given(st.integers(1, 8), st.sampled_from(["uniform", "hard"]), st.integers(0, 3))
def test_negatives(count: int, choice: str, seed: int) -> None:
    """All relevant ones, so many others of each group, the first in retrieval order where they shall be hard."""
    kept = LambdaRank(negatives=count, negatives_by=choice, seed=seed)
    table = kept.table([NEW, NEW])
    relevant = min(2, WIDTH)
    assert (table.grade > 0).sum() == 2 * relevant * (QUERIES - 1)
    assert table.groups.tolist() == [relevant + count] * (2 * (QUERIES - 1))
    if choice == "hard":
        others = np.flatnonzero(NEW.grade[:WIDTH] == 0)
        first = others[np.argsort(-NEW.features.pool.fusion[others])][: count // 2]
        assert np.isin(NEW.features.values[first, 0], table.values[: relevant + count, 0]).all()
    again = LambdaRank(negatives=count, negatives_by=choice, seed=seed).table([NEW, NEW])
    np.testing.assert_array_equal(again.values, table.values)
    assert not np.isin(NEW.features.values[-WIDTH:, 0], table.values[:, 0]).any()  # the group without a relevant one


@given(st.integers(1, 3 * QUERIES), st.integers(0, 3))
def test_groups(count: int, seed: int) -> None:
    """So many whole groups with a relevant candidate, drawn of all windows, the same ones twice."""
    kept = LambdaRank(groups=count, negatives=None, seed=seed)
    table = kept.table([NEW, NEW])
    assert table.groups.tolist() == [WIDTH] * min(count, 2 * (QUERIES - 1))
    assert (table.grade.reshape(-1, WIDTH) > 0).any(axis=1).all()
    np.testing.assert_array_equal(kept.table([NEW, NEW]).values, table.values)


def test_drawn_groups_differ_by_seed_and_are_of_all_windows() -> None:
    drawn = [LambdaRank(groups=QUERIES, seed=seed).table([NEW, NEW]) for seed in (0, 1)]
    assert not np.array_equal(drawn[0].values, drawn[1].values)
    assert all(0 < len(part) < len(NEW.features.pool) for table in drawn for part in table.parts)


def test_uniform_negatives_differ_by_seed() -> None:
    drawn = [LambdaRank(negatives=3, seed=seed).table([NEW]).values[:, 0] for seed in (0, 1)]
    assert not np.array_equal(*drawn)


def test_sampling_leaves_the_validation_whole() -> None:
    """The curve judges all candidates, however few are learned from; only the query that has no relevant one loses its own."""
    seen: list[int] = []

    class Spy(LambdaRank):
        def seen(self, latest, data):  # type: ignore[no-untyped-def]
            seen.append(len(latest.features.pool))
            return super().seen(latest, data)

    Spy(trees=3, negatives=1).fit(WINDOWS)
    assert seen == [len(WINDOWS[-1].features.pool) - WIDTH]


@pytest.mark.parametrize("name", ["lambdarank", "binary", "xendcg", "xgboost", "catboost"])
def test_boosting_stops_where_the_latest_window_is_best(name: str) -> None:
    kept = ranker(name, refit=False, min_data_in_leaf=2) if name not in OPTIONAL else ranker(name, refit=False)
    kept.fit(WINDOWS)
    assert kept.curve
    best = ValidationNdcg(WINDOWS[-1])(kept.score(WINDOWS[-1].features))
    assert best == pytest.approx(max(kept.curve), abs=2e-3)


@pytest.mark.parametrize(
    ("curve", "best", "wanted"),
    [([0.3, 0.4, 0.35], 2, 2), ([0.3, 0.4, 0.3995, 0.398], 2, 3), ([0.4, 0.3995, 0.3991, 0.38], 1, 3), ([], 0, 0)],
)
def test_as_many_trees_as_are_as_good_as_the_best(curve: list[float], best: int, wanted: int) -> None:
    judge = Judge(NEW, None, patience=2)
    judge.curve = curve
    assert (judge.best, judge.wanted) == (best, wanted)
    assert judge.enough(best + 2)
    assert not judge.enough(best + 1)


@pytest.mark.parametrize("name", ["lambdarank", "binary", "xendcg", "xgboost"])
def test_two_fits_side_by_side_give_what_one_after_the_other_gives(name: str) -> None:
    """One thread: the judged fit, then the one of all windows. Two: both at once, and trees that are too many cut off."""
    alone, beside = (ranker(name, threads=threads) for threads in (1, 2))
    for each in (alone, beside):
        each.fit(WINDOWS)
    assert alone.curve == beside.curve
    np.testing.assert_array_equal(alone.score(NEW.features), beside.score(NEW.features))
    assert alone.importance() == pytest.approx(beside.importance())


@pytest.mark.parametrize("name", ["lambdarank", "binary", "xgboost", "catboost"])
def test_the_part_that_is_judged_has_the_labels_of_its_groups(name: str) -> None:
    kept = ranker(name, negatives=4)
    table = kept.table(WINDOWS)
    groups = np.random.default_rng(0).random(len(table.groups)) < 0.5
    data, part = kept.data_and_part(table, groups)
    whole = np.asarray(data.get_label())
    np.testing.assert_array_equal(part.get_label(), whole[np.repeat(groups, table.groups)])
    assert set(table.grade[whole == whole.max()].tolist()) == ({2.0, 4.0} if name == "binary" else {4.0})


def test_the_fit_of_all_windows_ends_when_the_judged_one_fails() -> None:
    grown: list[int] = []

    class Broken(LambdaRank):
        def grow(self, data, trees, threads, judge=None, enough=None):  # type: ignore[no-untyped-def]
            if judge is not None:
                raise ValueError("broken")
            grown.append(super().grow(data, trees, threads, None, enough).current_iteration())

    with pytest.raises(ValueError, match="broken"):
        Broken(trees=100_000, threads=2).fit(WINDOWS)
    assert grown[0] < 100_000


@pytest.mark.parametrize("name", ["lambdarank", "xgboost", "catboost"])
def test_monotone(name: str) -> None:
    """With a constraint against the signal, more of the column never raises the score."""
    kept = ranker(name, monotone={"f__good": -1})
    kept.fit(WINDOWS)
    lines = NEW.features.values.copy(order="F")
    lines[:, 1:] = lines[0, 1:]
    lines[:, 0] = np.linspace(-3, 3, len(lines))
    score = kept.score(replace(NEW.features, values=lines))
    assert (np.diff(score) <= 1e-6).all()
    with pytest.raises(ConfigError, match=r"ranker.monotone: no feature is called 'f__goods'.*'f__good'"):
        ranker(name, monotone={"f__goods": 1}).fit(WINDOWS)


def test_categorical() -> None:
    """A column whose values 0, 2, 4 are good and 1, 3, 5 bad needs one split, not five."""
    rng = np.random.default_rng(0)
    code = rng.integers(0, 6, len(NEW.features.pool)).astype(np.float32)
    values = NEW.features.values.copy(order="F")
    values[:, 2] = code
    item = NEW.features.pool.item.reshape(QUERIES, WIDTH)
    indptr = ragged.from_counts((code.reshape(QUERIES, WIDTH) % 2 == 0).sum(axis=1))
    good = item[code.reshape(QUERIES, WIDTH) % 2 == 0]
    examples = replace(
        NEW, features=replace(NEW.features, values=values), truth=Truth(indptr, good, np.ones(len(good), np.float32))
    )
    scores = []
    for categorical in ([], ["f__noise"]):
        stump = LambdaRank(
            trees=1, leaves=2, min_data_in_leaf=1, l2=0, feature_fraction=1, bagging_fraction=1, categorical=categorical, seed=1
        )
        stump.fit([examples])
        scores.append(ValidationNdcg(examples)(stump.score(examples.features)))
    assert scores[1] > scores[0]
    with pytest.raises(ConfigError, match=r"ranker.categorical: no feature is called 'x'"):
        LambdaRank(categorical=["x"]).fit(WINDOWS)


def test_rule_by_hand() -> None:
    values = np.array([[1, 8], [2, np.nan], [4, 2], [3, 0]], dtype=np.float32)
    empty = np.empty((0, 4))
    pool = CandidatePool(
        np.array([0, 3, 4]), np.arange(4, dtype=np.int32), (), empty.astype(np.int16), empty.astype(np.float32), values[:, 0]
    )
    features = FeatureMatrix(np.asfortranarray(values), ("a", "b"), ("", ""), pool)
    weights = {"a": 2.0, "b": -1.0}
    assert Rule(weights=weights, scale="max").score(features).tolist() == [0.5 - 1, 1.0, 2.0 - 0.25, 2.0]
    assert Rule(weights=weights, scale="none").score(features).tolist() == [-6, 4, 6, 6]
    ranks = Rule(weights={"a": 6.0}, scale="rank").score(features).tolist()
    assert ranks == pytest.approx([0, 3, 6, 3])
    with pytest.raises(ConfigError, match="no feature is called 'c'"):
        Rule(weights={"c": 1}).score(features)


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.5, -4.0]), max_size=6), min_size=1, max_size=4))
def test_percentile_by_hand(rows: list[list[float]]) -> None:
    value = np.array([v for row in rows for v in row])
    indptr = ragged.from_counts(np.array([len(row) for row in rows]))
    empty = np.empty((0, len(value)))
    item = ragged.within_row(indptr).astype(np.int32)
    pool = CandidatePool(indptr, item, (), empty.astype(np.int16), empty.astype(np.float32), value.astype(np.float32))
    lesser = [(sum(w < v for w in row) + (sum(w == v for w in row) - 1) / 2, len(row) - 1) for row in rows for v in row]
    assert percentile(value, pool).tolist() == pytest.approx([less / others if others else 0.5 for less, others in lesser])


@component
class Given(RetrievalOrder):
    """Scores that are given."""

    values: list[float]

    def score(self, features: FeatureMatrix) -> Float32:
        return np.array(self.values, np.float32)


def test_blend_by_hand_with_ties_and_lists_of_any_length() -> None:
    """Lists of four, two and one candidates: the best has 1 and the worst 0 in each, ties share their middle."""
    indptr = np.array([0, 4, 6, 7])
    nothing = np.zeros((1, 7))
    item = ragged.within_row(indptr).astype(np.int32)
    pool = CandidatePool(indptr, item, ("s",), nothing.astype(np.int16), nothing.astype(np.float32), nothing[0])
    features = FeatureMatrix(nothing.T.astype(np.float32), ("f__x",), ("f",), pool)
    members: dict[str, Ranker] = {"a": Given(values=[9, 5, 5, 1, 2, 3, 8]), "b": Given(values=[0, 0, 0, 0, 2, 3, 8])}
    assert Blend(rankers=members, weights={"b": 0}).score(features).tolist() == [1, 0.5, 0.5, 0, 0, 1, 0.5]
    assert Blend(rankers=members).score(features).tolist() == [0.75, 0.5, 0.5, 0.25, 0, 1, 0.5]


def test_blend_is_the_mean_rank_of_its_members() -> None:
    rules: dict[str, Ranker] = {name: Rule(weights={f"f__{name}": 1.0}) for name in ("good", "noise")}
    pool = NEW.features.pool
    good, noise = (percentile(NEW.features[f"f__{name}"], pool) for name in rules)
    np.testing.assert_allclose(Blend(rankers=rules).score(NEW.features), (good + noise) / 2, atol=1e-6)
    weighted = Blend(rankers=rules, weights={"good": 3.0})
    np.testing.assert_allclose(weighted.score(NEW.features), (3 * good + noise) / 4, atol=1e-6)
    with pytest.raises(ConfigError, match=r"the blend has no member 'goods'.*'good'"):
        Blend(rankers=rules, weights={"goods": 1.0})
    with pytest.raises(ConfigError, match="wanted a weight above 0"):
        Blend(rankers=rules, weights={"good": 0.0, "noise": 0.0})


def test_what_a_ranker_needs() -> None:
    assert (RetrievalOrder.learns, RetrievalOrder.reads) == (False, False)
    assert (Rule.learns, Rule.reads) == (False, True)
    assert (Logistic.learns, Logistic.reads) == (True, True)
    assert issubclass(Logistic, Learned)


def test_validation_ndcg_is_that_of_the_lists_where_scores_tie() -> None:
    """Early stopping judges the order that a request would get: equal scores keep retrieval order."""
    pool = NEW.features.pool
    for score in (np.zeros(len(pool), np.float32), np.round(NEW.grade + pool.fusion).astype(np.float32)):
        lists = pool.order(score, 10)
        expected = metrics.per_query(lists, NEW.truth, [10])["ndcg_at_10"].mean()
        assert ValidationNdcg(NEW)(score) == pytest.approx(expected)
