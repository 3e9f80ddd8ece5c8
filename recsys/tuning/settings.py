"""What the config's `sweep` says, checked before anything is searched."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from recsys.component import Component, component, construct

Direction = Literal["maximize", "minimize"]

PARTS = ("sampler", "pruner", "space", "trial")
"""What stands in `sweep` beside its settings."""


@component
class StageSettings(Component):
    """One study of a sweep."""

    over: list[str] = Field(min_length=1)
    """The parts of the config that it searches."""
    objectives: Annotated[list[str], Field(min_length=1)] | None
    """None stands for the leading metric of the two stages, see `Evaluation.shown`."""
    overrides: list[str]
    """What its trials change beside."""


@component
class SweepSettings(Component):
    """See `conf/sweep/base.yaml`."""

    study: Annotated[str, Field(min_length=1)] | None
    storage: Annotated[str, Field(min_length=1)] | None
    trials: PositiveInt
    folds: PositiveInt | None
    fold_step: str | None
    label_cutoffs: PositiveInt | None
    label_queries: PositiveInt | None
    refit_ranker: bool
    objectives: Annotated[list[str], Field(min_length=1)] | None
    directions: list[Direction] | None
    heartbeat: PositiveInt
    grace: PositiveInt
    retries: NonNegativeInt
    stages: dict[str, StageSettings]

    @field_validator("objectives", "directions", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("grace")
    @classmethod
    def _longer_than_a_beat(cls, value: int, info: Any) -> int:
        if value <= info.data.get("heartbeat", 0):
            raise ValueError(f"wanted more seconds than sweep.heartbeat, found {value}")
        return value

    @classmethod
    def of(cls, sweep: Mapping[str, Any]) -> "SweepSettings":
        """The settings of a resolved `sweep`. Raises `ConfigError`, in one line that names the key, for what does not fit."""
        own = {key: value for key, value in sweep.items() if key not in PARTS}
        stage = f"{StageSettings.__module__}.{StageSettings.__qualname__}"
        own["stages"] = {name: {"_target_": stage, **values} for name, values in own["stages"].items()}
        made: SweepSettings = construct({"_target_": f"{cls.__module__}.{cls.__qualname__}", **own}, "sweep")
        return made
