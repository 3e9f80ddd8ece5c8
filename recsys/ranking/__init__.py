"""Second stage: each module is one way to order the candidates of a query."""

from recsys.ranking.base import Examples, Ranker
from recsys.ranking.blend import Blend
from recsys.ranking.catboost import CatBoost
from recsys.ranking.gbdt import Binary, LambdaRank, XeNDCG
from recsys.ranking.logistic import Logistic
from recsys.ranking.retrieval_order import RetrievalOrder
from recsys.ranking.rule import Rule
from recsys.ranking.xgboost import XGBoost

__all__ = [
    "Binary",
    "Blend",
    "CatBoost",
    "Examples",
    "LambdaRank",
    "Logistic",
    "Ranker",
    "RetrievalOrder",
    "Rule",
    "XGBoost",
    "XeNDCG",
]
