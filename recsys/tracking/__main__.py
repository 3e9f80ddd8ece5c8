"""The UI on the default store; options of `mlflow ui` may follow."""

import os
import sys

from recsys.tracking import store

store.quiet()
os.execv(sys.executable, [sys.executable, "-m", "mlflow", *store.ui_arguments(store.absolute_uri(None)), *sys.argv[1:]])
