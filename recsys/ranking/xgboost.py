"""Gradient-boosted trees by XGBoost, an optional library."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat, PositiveInt

from recsys.component import component
from recsys.features import FeatureMatrix
from recsys.ranking.base import Examples
from recsys.ranking.boosting import Boosted, Enough, Judge, Share, optional
from recsys.ranking.learning import Table
from recsys.shop.pools import Float32


@component
class XGBoost(Boosted):
    """LambdaMART by XGBoost: `rank:ndcg` with gains equal to the grades, or `rank:pairwise`."""

    objective: Literal["rank:ndcg", "rank:pairwise"] = "rank:ndcg"
    depth: PositiveInt = 6
    min_child_weight: NonNegativeFloat = 1.0
    row_fraction: Share = 0.8
    """Part of the rows that each tree is grown on."""
    pairs: Annotated[int, Field(gt=0)] = 30
    """Pairs are formed with the best so many of each group."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._library = optional("xgboost", "XGBoost")

    def data(self, table: Table) -> Any:
        """See `Boosted`."""
        return self._library.DMatrix(table.values, table.grade, group=table.groups)

    def seen(self, latest: Examples, data: Any) -> Any:
        """See `Boosted`."""
        return self._library.DMatrix(latest.features.values)

    def grow(self, data: Any, trees: int, threads: int, judge: Judge | None = None, enough: Enough | None = None) -> Any:
        """See `Boosted`."""
        parameters = {
            "objective": self.objective,
            "eta": self.learning_rate,
            "max_depth": self.depth,
            "min_child_weight": self.min_child_weight,
            "subsample": self.row_fraction,
            "colsample_bytree": self.feature_fraction,
            "lambda": self.l2,
            "lambdarank_pair_method": "topk",
            "lambdarank_num_pair_per_sample": self.pairs,
            "tree_method": "hist",
            "seed": self.seed,
            "nthread": threads,
            "disable_default_eval_metric": 1,
        }
        if self.objective == "rank:ndcg":
            parameters["ndcg_exp_gain"] = False
        if self.monotone:
            parameters["monotone_constraints"] = str(tuple(self.directions()))
        judged: dict[str, Any] = {}
        if judge:
            judged = {"evals": [(judge.seen, "latest")], "custom_metric": lambda score, _: ("ndcg_at_10", judge.hear(score))}
            enough = judge.enough
        callbacks = [_stop(self._library, enough)] if enough else None
        return self._library.train(parameters, data, trees, callbacks=callbacks, verbose_eval=False, **judged)

    def cut(self, model: Any, trees: int) -> Any:
        """See `Boosted`."""
        return model[:trees]

    def _predict(self, features: FeatureMatrix, **how: Any) -> npt.NDArray[np.floating]:
        self.check(features)
        self.model.set_param({"nthread": self.workers(features.values.size)})
        return np.asarray(self.model.predict(self._library.DMatrix(features.values), **how))

    def score(self, features: FeatureMatrix) -> Float32:
        """The sum over the trees."""
        if not len(features.values):
            return np.empty(0, dtype=np.float32)
        return self._predict(features, output_margin=True).astype(np.float32)

    def contributions(self, features: FeatureMatrix) -> npt.NDArray[np.float64]:
        """SHAP values of the trees: `float64[n, f]`, without the constant term."""
        if not len(features.values):
            return np.zeros(features.values.shape)
        return self._predict(features, pred_contribs=True).astype(np.float64)[:, :-1]

    def importance(self) -> dict[str, float]:
        """Total gain a feature, largest first."""
        gain = self.model.get_score(importance_type="total_gain") if self.model else {}
        return self.named([gain.get(f"f{i}", 0.0) for i in range(len(self.names))]) if gain else {}

    def write_files(self, folder: Path) -> None:
        """The trees as XGBoost's own JSON."""
        if self.model is not None:
            self.model.save_model(folder / "trees.json")

    def read_files(self, folder: Path) -> None:
        """Read the trees."""
        if (folder / "trees.json").exists():
            self.model = self._library.Booster(model_file=folder / "trees.json")


def _stop(library: Any, enough: Enough) -> Any:
    """XGBoost's way to stop after a tree."""

    class Stop(library.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            return enough(epoch + 1)

    return Stop()
