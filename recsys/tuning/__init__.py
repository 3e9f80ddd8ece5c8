"""Sweeps: a Hydra sweeper on Optuna that knows the two stages. Optuna is imported by those who sweep."""

import sys
from typing import Any

from hydra.core.plugins import Plugins
from omegaconf import DictConfig

TARGET = "hydra_plugins.recsys.OptunaSweeper"
"""What `hydra.sweeper._target_` says: Hydra takes plugins from no other package than `hydra_plugins`."""


def register() -> None:
    """Make the sweeper known to Hydra; has to be done before `hydra.main` composes."""
    if not {"-m", "--multirun"}.isdisjoint(sys.argv):
        from recsys.tuning.sweeper import OptunaSweeper

        plugins = Plugins.instance()
        plugins.register(OptunaSweeper)
        plugins.class_name_to_class[TARGET] = OptunaSweeper


def is_trial(config: DictConfig) -> bool:
    """Whether this job is a trial of a sweep."""
    return bool(config.get("sweep") and config.sweep.trial)


def run_trial(config: DictConfig) -> Any:
    """Do the trial."""
    from recsys.tuning.trial import run

    return run(config)
