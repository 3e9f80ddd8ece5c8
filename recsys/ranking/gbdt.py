"""Gradient-boosted trees by LightGBM, with three objectives."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from recsys.component import component
from recsys.features import FeatureMatrix
from recsys.ranking.base import Examples
from recsys.ranking.boosting import Boosted, Enough, Judge, Share
from recsys.ranking.learning import Table
from recsys.shop.pools import Float32

BIN_SAMPLE = 50_000
"""Rows that LightGBM chooses the bounds of its 255 bins by; more take longer and gain nothing."""


@component
class LightGBM(Boosted):
    """What the objectives share."""

    learning_rate: PositiveFloat = 0.1
    early_stopping: PositiveInt = 30
    feature_fraction: Share = 0.3
    l2: NonNegativeFloat = 10.0
    negatives: PositiveInt | None = 50
    leaves: Annotated[int, Field(ge=2)] = 31
    min_data_in_leaf: PositiveInt = 100
    bagging_fraction: Share = 0.8
    """Part of the rows that each tree is grown on."""
    categorical: list[str] = Field(default_factory=list)
    """Columns of whole numbers whose order means nothing."""

    @abstractmethod
    def objective(self, table: Table) -> tuple[dict[str, Any], npt.NDArray[Any]]:
        """LightGBM's parameters of the objective, and the labels that it wants."""

    def data(self, table: Table) -> lgb.Dataset:
        """See `Boosted`. Its parameters are those of the objective as well, which a fit goes on with."""
        parameters, label = self.objective(table)
        return lgb.Dataset(
            [part for part in table.parts if len(part)],
            label,
            group=table.groups,
            feature_name=list(self.names),
            categorical_feature=[self.column(name, "categorical") for name in self.categorical],
            params=parameters
            | {
                "min_data_in_leaf": self.min_data_in_leaf,
                "bin_construct_sample_cnt": BIN_SAMPLE,
                "force_col_wise": True,
                "num_threads": self.workers(table.cells),
                "verbosity": -1,
            },
        )

    def data_and_part(self, table: Table, groups: npt.NDArray[np.bool_]) -> tuple[lgb.Dataset, lgb.Dataset]:
        """See `Boosted`. Values are put into bins once for both."""
        data = self.data(table).construct()
        return data, data.subset(np.flatnonzero(np.repeat(groups, table.groups)).tolist()).construct()

    def seen(self, latest: Examples, data: lgb.Dataset) -> lgb.Dataset:
        """See `Boosted`."""
        return lgb.Dataset(
            latest.features.values,
            latest.grade > 0,
            reference=data.construct(),
            feature_name=data.feature_name,
            categorical_feature=data.categorical_feature,
            params=data.params,
        ).construct()

    def grow(
        self, data: lgb.Dataset, trees: int, threads: int, judge: Judge | None = None, enough: Enough | None = None
    ) -> lgb.Booster:
        """See `Boosted`."""
        parameters = data.params | {
            "metric": "None",
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.bagging_fraction,
            "bagging_freq": 1,
            "lambda_l2": self.l2,
            "monotone_constraints": self.directions() if self.monotone else None,
            "seed": self.seed,
            "deterministic": True,
            "num_threads": threads,
        }
        judged: dict[str, Any] = {}
        if judge:
            judged = {"valid_sets": [judge.seen], "feval": lambda score, _: ("ndcg_at_10", judge.hear(score), True)}
            enough = judge.enough
        return lgb.train(parameters, data, trees, callbacks=[_stop(enough)] if enough else None, **judged)

    def cut(self, model: lgb.Booster, trees: int) -> lgb.Booster:
        """See `Boosted`."""
        return lgb.Booster(model_str=model.model_to_string(num_iteration=trees))

    def _predict(self, features: FeatureMatrix, **how: Any) -> npt.NDArray[np.float64]:
        self.check(features)
        workers = self.workers(features.values.size)
        return np.asarray(self.model.predict(features.values, num_threads=workers, raw_score=True, **how))

    def score(self, features: FeatureMatrix) -> Float32:
        """The sum over the trees."""
        return self._predict(features).astype(np.float32) if len(features.values) else np.empty(0, dtype=np.float32)

    def contributions(self, features: FeatureMatrix) -> npt.NDArray[np.float64]:
        """SHAP values of the trees (Lundberg et al., 2020): `float64[n, f]`, without the constant term."""
        if not len(features.values):
            return np.zeros(features.values.shape)
        return self._predict(features, pred_contrib=True)[:, :-1]

    def importance(self) -> dict[str, float]:
        """Total gain a feature, largest first."""
        return self.named(self.model.feature_importance("gain")) if self.model is not None else {}

    def write_files(self, folder: Path) -> None:
        """The trees as LightGBM's own text."""
        if self.model is not None:
            (folder / "trees.txt").write_text(self.model.model_to_string())

    def read_files(self, folder: Path) -> None:
        """Read the trees."""
        trees = folder / "trees.txt"
        self.model = lgb.Booster(model_str=trees.read_text()) if trees.exists() else None


def _stop(enough: Enough) -> Callable[[lgb.callback.CallbackEnv], None]:
    """LightGBM's way to stop after a tree."""

    def after(now: lgb.callback.CallbackEnv) -> None:
        if enough(now.iteration + 1):
            raise lgb.callback.EarlyStopException(now.iteration, [])

    return after


@component
class LambdaRank(LightGBM):
    """LambdaMART (Burges, MSR-TR-2010-82): swaps of two candidates, weighted by what they change in NDCG; gains = grades."""

    feature_fraction: Share = 0.2
    negatives: PositiveInt | None = 25
    truncation_level: PositiveInt = 30
    """Pairs are formed with the best so many of each group."""

    def objective(self, table: Table) -> tuple[dict[str, Any], npt.NDArray[Any]]:
        """Labels number the distinct grades."""
        gains, label = np.unique(table.grade, return_inverse=True)
        return {
            "objective": "lambdarank",
            "label_gain": gains.tolist(),
            "lambdarank_truncation_level": self.truncation_level,
        }, label


@component
class XeNDCG(LightGBM):
    """A listwise cross-entropy that bounds NDCG (Bruch, WWW 2021); gain 2^n − 1 for the n-th distinct grade."""

    def objective(self, table: Table) -> tuple[dict[str, Any], npt.NDArray[Any]]:
        """Labels number the distinct grades."""
        label = np.unique(table.grade, return_inverse=True)[1]
        return {"objective": "rank_xendcg", "objective_seed": self.seed}, label


@component
class Binary(LightGBM):
    """The chance that a candidate is relevant, each judged alone; won RetailHero and a share of OTTO."""

    def objective(self, table: Table) -> tuple[dict[str, Any], npt.NDArray[Any]]:
        """Relevant or not."""
        return {"objective": "binary"}, table.grade > 0
