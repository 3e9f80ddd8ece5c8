"""First stage: each module is one way to find a few hundred candidates of a whole catalogue."""

from recsys.retrieval.als import ALS
from recsys.retrieval.base import Retriever
from recsys.retrieval.bpr import BPR
from recsys.retrieval.category import Category
from recsys.retrieval.covisitation import Covisitation
from recsys.retrieval.ease import EASE
from recsys.retrieval.history import History
from recsys.retrieval.item2vec import Item2Vec
from recsys.retrieval.item_knn import ItemKNN
from recsys.retrieval.popularity import Popularity
from recsys.retrieval.properties import Properties
from recsys.retrieval.rp3beta import RP3Beta
from recsys.retrieval.session_knn import SessionKNN
from recsys.retrieval.slit import SLIT
from recsys.retrieval.trending import Trending
from recsys.retrieval.union import Hybrid
from recsys.retrieval.user_knn import UserKNN

__all__ = [
    "ALS",
    "BPR",
    "EASE",
    "SLIT",
    "Category",
    "Covisitation",
    "History",
    "Hybrid",
    "Item2Vec",
    "ItemKNN",
    "Popularity",
    "Properties",
    "RP3Beta",
    "Retriever",
    "SessionKNN",
    "Trending",
    "UserKNN",
]
