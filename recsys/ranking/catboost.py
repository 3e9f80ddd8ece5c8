"""Gradient-boosted oblivious trees by CatBoost, an optional library."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from recsys.component import component
from recsys.features import FeatureMatrix
from recsys.ranking.base import Examples
from recsys.ranking.boosting import Boosted, Enough, Judge, optional
from recsys.ranking.learning import Table
from recsys.shop.pools import Float32


@component
class CatBoost(Boosted):
    """YetiRank (Gulin, Kuralenok and Pavlov, 2011) or another of CatBoost's ranking losses.

    All trees are grown before their number is chosen; `early_stopping` counts trees after the best one that need not be judged.
    """

    loss: Literal["YetiRank", "PairLogit", "QuerySoftMax", "QueryRMSE"] = "YetiRank"
    depth: Annotated[int, Field(ge=1, le=16)] = 6

    follows: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._library = optional("catboost", "CatBoost")

    def data(self, table: Table) -> Any:
        """See `Boosted`; none where no column has two values, which CatBoost refuses to learn from."""
        values = table.values
        if _all_alike(values):
            return None
        group = np.repeat(np.arange(len(table.groups)), table.groups)
        return self._library.Pool(values, table.grade / table.grade.max(), group_id=group)

    def seen(self, latest: Examples, data: Any) -> Float32:
        """See `Boosted`."""
        return latest.features.values

    def grow(self, data: Any, trees: int, threads: int, judge: Judge | None = None, enough: Enough | None = None) -> Any:
        """See `Boosted`."""
        if data is None:
            if judge:
                judge.hear(np.zeros(len(judge.seen)))
            return None
        bounds = {"monotone_constraints": self.directions()} if self.monotone else {}
        model = self._library.CatBoost(
            {
                "loss_function": self.loss,
                "iterations": trees,
                "learning_rate": self.learning_rate,
                "depth": self.depth,
                "l2_leaf_reg": self.l2,
                "rsm": self.feature_fraction,
                "random_seed": self.seed,
                "thread_count": threads,
                "allow_writing_files": False,
                "verbose": False,
            }
            | bounds
        )
        model.fit(data)
        if judge:
            for score in model.staged_predict(judge.seen, prediction_type="RawFormulaVal"):
                judge.hear(score)
                if judge.enough(len(judge.curve)):
                    break
        return model

    def cut(self, model: Any, trees: int) -> Any:
        """See `Boosted`."""
        if model is not None:
            model.shrink(trees)
        return model

    def score(self, features: FeatureMatrix) -> Float32:
        """The sum over the trees."""
        self.check(features)
        if self.model is None or not len(features.values):
            return np.zeros(len(features.values), dtype=np.float32)
        score = self.model.predict(
            features.values, prediction_type="RawFormulaVal", thread_count=self.workers(features.values.size)
        )
        return np.asarray(score, dtype=np.float32)

    def contributions(self, features: FeatureMatrix) -> npt.NDArray[np.float64]:
        """SHAP values of the trees: `float64[n, f]`, without the constant term."""
        self.check(features)
        if self.model is None or not len(features.values):
            return np.zeros(features.values.shape)
        pool = self._library.Pool(features.values)
        return np.asarray(self.model.get_feature_importance(pool, type="ShapValues"), dtype=np.float64)[:, :-1]

    def importance(self) -> dict[str, float]:
        """By how much predictions change with a feature, largest first."""
        return self.named(self.model.get_feature_importance(type="PredictionValuesChange")) if self.model else {}

    def write_files(self, folder: Path) -> None:
        """The trees as CatBoost's own binary format, which holds no code."""
        if self.model is not None:
            self.model.save_model(str(folder / "trees.cbm"))

    def read_files(self, folder: Path) -> None:
        """Read the trees."""
        if (folder / "trees.cbm").exists():
            self.model = self._library.CatBoost().load_model(str(folder / "trees.cbm"))


def _all_alike(values: Float32) -> bool:
    """Whether no column has two values."""
    return all(np.array_equal(column, np.full_like(column, column[0]), equal_nan=True) for column in values.T)
