"""Between the stages: each module is one family of columns that describe a (query, candidate) pair."""

from recsys.features.base import FeatureFamily, FeatureMatrix, FeatureSet
from recsys.features.item import Item
from recsys.features.source import Source
from recsys.features.user import User
from recsys.features.user_item import UserItem

__all__ = ["FeatureFamily", "FeatureMatrix", "FeatureSet", "Item", "Source", "User", "UserItem"]
