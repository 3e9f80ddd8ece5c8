from collections.abc import Callable
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from recsys.cli import CONFIGS


@pytest.fixture(scope="session")
def composed() -> Callable[..., dict[str, Any]]:
    """The config that overrides compose, as plain values."""

    def of(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose("config", [*overrides, "output_dir=null"])
        values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        return values

    return of
