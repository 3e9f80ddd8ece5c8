"""One run, a multirun or a sweep of a two-stage recommender. `python train.py --help` tells what can be composed."""

import sys
from typing import Any

import hydra
from omegaconf import DictConfig

from recsys import cli, dry, experiment, tuning


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def train(config: DictConfig) -> Any:
    """Do the run, or a trial of a sweep; gives the metric that a sweep optimises, or what the trial came to."""
    with cli.plain_errors(in_job=True):
        if config.dry:
            return dry.run(config)
        if tuning.is_trial(config):
            return tuning.run_trial(config)
        return experiment.run(config)


if __name__ == "__main__":
    sys.argv[1:] = cli.with_keys(sys.argv[1:])
    with cli.plain_errors():
        sys.argv[1:] = cli.with_new_weights(sys.argv[1:])
        tuning.register()
        train()
