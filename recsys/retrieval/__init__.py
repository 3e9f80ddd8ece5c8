"""First stage: each module is one way to find a few hundred candidates of a whole catalogue."""

from recsys.retrieval.als import ALS
from recsys.retrieval.base import Retriever
from recsys.retrieval.covisitation import Covisitation
from recsys.retrieval.ease import EASE
from recsys.retrieval.history import History
from recsys.retrieval.item_knn import ItemKNN
from recsys.retrieval.popularity import Popularity
from recsys.retrieval.rp3beta import RP3Beta
from recsys.retrieval.session_knn import SessionKNN

__all__ = [
    "ALS",
    "EASE",
    "Covisitation",
    "History",
    "ItemKNN",
    "Popularity",
    "RP3Beta",
    "Retriever",
    "SessionKNN",
]
