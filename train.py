"""One run, a multirun or a sweep of a two-stage recommender. `python train.py --help` tells what can be composed."""

import hydra
from omegaconf import DictConfig

from recsys import cli, experiment


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def train(config: DictConfig) -> float:
    """Do the run; gives the metric that a sweep optimises."""
    with cli.plain_errors(in_job=True):
        return experiment.run(config)[config.optimized_metric]


if __name__ == "__main__":
    with cli.plain_errors():
        train()
