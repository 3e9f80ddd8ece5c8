"""Data sources: each module reads one kind of file into an event log, a catalogue and a funnel of what was dropped and why."""

from recsys.datasets.base import Dataset, Funnel, Loader

__all__ = ["Dataset", "Funnel", "Loader"]
