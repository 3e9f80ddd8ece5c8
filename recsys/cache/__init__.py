"""The stage cache: datasets, retrievers, pools and features by content, so that a new ranker never refits a retriever."""

from recsys.cache.store import STEPS, Arrays, NoCache, StageCache, Step

__all__ = ["STEPS", "Arrays", "NoCache", "StageCache", "Step"]
