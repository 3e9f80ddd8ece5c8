"""First stage: each module is one way to find a few hundred candidates of a whole catalogue."""

from recsys.retrieval.als import ALS
from recsys.retrieval.base import Retriever
from recsys.retrieval.history import History
from recsys.retrieval.popularity import Popularity

__all__ = ["ALS", "History", "Popularity", "Retriever"]
