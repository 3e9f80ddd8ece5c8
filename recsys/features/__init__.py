"""Between the stages: each module is one family of columns that describe a (query, candidate) pair."""

from recsys.features.affinity import Affinity
from recsys.features.base import DerivedFamily, FeatureFamily, FeatureMatrix, FeatureSet, rows_of
from recsys.features.calendar import Calendar
from recsys.features.content import Content
from recsys.features.customer import Customer
from recsys.features.item import Item
from recsys.features.source import Source
from recsys.features.user import User
from recsys.features.user_item import UserItem
from recsys.features.within_query import WithinQuery

__all__ = [
    "Affinity",
    "Calendar",
    "Content",
    "Customer",
    "DerivedFamily",
    "FeatureFamily",
    "FeatureMatrix",
    "FeatureSet",
    "Item",
    "Source",
    "User",
    "UserItem",
    "WithinQuery",
    "rows_of",
]
