"""Where runs are kept: parameters, metrics, curves, artifacts, the dataset. With `serving` all that knows MLflow.

`Mlflow` writes to a SQLite file by default and to any tracking server by its URI; `NoTracking` keeps nothing. Both give
out a `Run` to record into. `python -m recsys.tracking` opens the UI on the default store; options of `mlflow ui` may
follow. MLflow takes seconds to import, so that is left until a run starts.
"""

from recsys.tracking.base import PARENT_RUN, NoTracking, Run, Tracker
from recsys.tracking.form import flatten, valid_name
from recsys.tracking.mlflow import Mlflow, git_tags
from recsys.tracking.store import absolute_uri, home, ui_command

__all__ = [
    "PARENT_RUN",
    "Mlflow",
    "NoTracking",
    "Run",
    "Tracker",
    "absolute_uri",
    "flatten",
    "git_tags",
    "home",
    "ui_command",
    "valid_name",
]
