"""Gradient-boosted trees that learn an order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from recsys.component import component
from recsys.errors import DataError, NotFittedError
from recsys.features import FeatureMatrix
from recsys.pools import Float32
from recsys.ranking.base import Examples, Ranker
from recsys.ranking.validation import ValidationNdcg

Share = Annotated[float, Field(gt=0, le=1)]


@component
class LambdaRank(Ranker):
    """LambdaMART (Burges, MSR-TR-2010-82) by LightGBM, one group a query, gains equal to the grades.

    The number of trees is chosen by NDCG@10 on the latest label window, then, with `refit`, the model is fitted anew with that
    many trees on all windows. With one label window its queries are divided in two for that choice.
    """

    trees: PositiveInt = 500
    """Most trees to grow."""
    learning_rate: PositiveFloat = 0.05
    leaves: Annotated[int, Field(ge=2)] = 31
    min_data_in_leaf: PositiveInt = 50
    feature_fraction: Share = 0.8
    bagging_fraction: Share = 0.8
    l2: NonNegativeFloat = 5.0
    truncation_level: PositiveInt = 30
    """Pairs are formed with the best so many of each group."""
    early_stopping: PositiveInt = 50
    """Stop after so many trees without a better validation NDCG."""
    refit: bool = True
    threads: NonNegativeInt = 0
    """0: all cores. The result does not depend on it."""
    seed: int = 0

    def __post_init__(self) -> None:
        self.booster: lgb.Booster | None = None
        self.curve: tuple[float, ...] = ()

    def fit(self, windows: Sequence[Examples]) -> None:
        """Learn from label windows. Raises `DataError` when no candidate of any window is relevant."""
        if not any((window.grade > 0).any() for window in windows):
            raise DataError(
                "ranker: no candidate of any label window is relevant, so there is nothing to learn from;"
                " widen split.label_horizon, raise candidates, or choose another retriever"
            )
        learn, validate = _divide(windows)
        curve: list[float] = []
        trees = self.trees
        if learn and (validate.grade > 0).any():
            model = self._train(learn, trees, validate, curve)
            trees = model.best_iteration or self.trees
            if self.refit:
                model = self._train(list(windows), trees)
        else:
            model = self._train(list(windows), min(trees, 100))
        self.curve = tuple(curve)
        self.booster = lgb.Booster(model_str=model.model_to_string(num_iteration=min(trees, model.num_trees())))

    def _train(
        self,
        windows: Sequence[Examples],
        trees: int,
        validate: Examples | None = None,
        curve: list[float] | None = None,
    ) -> lgb.Booster:
        windows = [window.with_positives() for window in windows]
        gains, label = np.unique(np.concatenate([window.grade for window in windows]), return_inverse=True)
        data = lgb.Dataset(
            np.asfortranarray(np.concatenate([window.features.values for window in windows])),
            label=label,
            group=np.concatenate([np.diff(window.features.pool.indptr) for window in windows]),
            feature_name=list(windows[0].features.names),
            free_raw_data=True,
        )
        parameters: dict[str, Any] = {
            "objective": "lambdarank",
            "label_gain": gains.tolist(),
            "metric": "None",
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.min_data_in_leaf,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.bagging_fraction,
            "bagging_freq": 1,
            "lambda_l2": self.l2,
            "lambdarank_truncation_level": self.truncation_level,
            "seed": self.seed,
            "deterministic": True,
            "force_col_wise": True,
            "num_threads": self.threads,
            "verbosity": -1,
        }
        if validate is None:
            return lgb.train(parameters, data, num_boost_round=trees)
        ndcg = ValidationNdcg(validate)
        seen = lgb.Dataset(validate.features.values, label=validate.grade > 0, reference=data)

        def evaluate(score: npt.NDArray[np.float64], _: lgb.Dataset) -> tuple[str, float, bool]:
            value = ndcg(score)
            if curve is not None:
                curve.append(value)
            return "ndcg_at_10", value, True

        return lgb.train(
            parameters,
            data,
            num_boost_round=trees,
            valid_sets=[seen],
            feval=evaluate,
            callbacks=[lgb.early_stopping(self.early_stopping, verbose=False)],
        )

    def score(self, features: FeatureMatrix) -> Float32:
        """The sum over the trees."""
        booster = self._fitted(features)
        if not len(features.values):
            return np.empty(0, dtype=np.float32)
        return np.asarray(booster.predict(features.values, num_threads=self.threads), dtype=np.float32)

    def contributions(self, features: FeatureMatrix) -> npt.NDArray[np.float64]:
        """SHAP values of the trees (Lundberg et al., 2020): `float64[n, f]`, without the constant term."""
        booster = self._fitted(features)
        values = booster.predict(features.values, pred_contrib=True, num_threads=self.threads)
        return np.asarray(values, dtype=np.float64)[:, :-1]

    def importance(self) -> dict[str, float]:
        """Total gain a feature, largest first."""
        if self.booster is None:
            return {}
        gain = self.booster.feature_importance("gain")
        pairs = zip(self.booster.feature_name(), gain.tolist(), strict=True)
        return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))

    def _fitted(self, features: FeatureMatrix) -> lgb.Booster:
        if self.booster is None:
            raise NotFittedError("LambdaRank: fit or load before scoring")
        learned = tuple(self.booster.feature_name())
        if learned != features.names:
            differ = sorted(set(learned) ^ set(features.names)) or "the order"
            raise DataError(f"ranker: learned {len(learned)} features, was given {len(features.names)}; differing: {differ}")
        return self.booster

    def write_files(self, folder: Path) -> None:
        """The trees as LightGBM's own text."""
        if self.booster is not None:
            (folder / "trees.txt").write_text(self.booster.model_to_string())

    def read_files(self, folder: Path) -> None:
        """Read the trees."""
        trees = folder / "trees.txt"
        self.booster = lgb.Booster(model_str=trees.read_text()) if trees.exists() else None


def _divide(windows: Sequence[Examples]) -> tuple[list[Examples], Examples]:
    """The windows to learn from and the latest one to validate on; a single window is divided by queries."""
    if len(windows) > 1:
        return list(windows[:-1]), windows[-1]
    only = windows[0]
    rows = np.arange(len(only.truth))
    return [_some(only, rows[rows % 3 > 0])], _some(only, rows[rows % 3 == 0])


def _some(examples: Examples, rows: npt.NDArray[np.int64]) -> Examples:
    pool = examples.features.pool
    kept = np.isin(pool.row, rows)
    features = FeatureMatrix(
        np.asfortranarray(examples.features.values[kept]),
        examples.features.names,
        examples.features.families,
        pool.take(rows),
    )
    return Examples(features, examples.truth.take(rows))
