"""Second stage: each module is one way to order the candidates of a query."""

from recsys.ranking.base import Examples, Ranker
from recsys.ranking.lambdarank import LambdaRank
from recsys.ranking.retrieval_order import RetrievalOrder

__all__ = ["Examples", "LambdaRank", "Ranker", "RetrievalOrder"]
