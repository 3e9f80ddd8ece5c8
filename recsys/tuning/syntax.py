"""Hydra's sweep syntax as Optuna distributions.

| what is written | what is drawn |
| --- | --- |
| `a,b,c`, `choice(a, b, c)`, `glob(*)` | one of them (`glob`: of the names in the config group) |
| `range(8, 64, step=8)` | whole numbers from 8 to 64; both ends count, as in Hydra's own Optuna sweeper |
| `range(0.5, 1, step=0.1)` | numbers in such steps |
| `interval(0.1, 1)` | any number between |
| `int(interval(1, 9))` | any whole number between |
| `tag(log, interval(0.001, 1))` | the same on a logarithmic scale; also with `int(…)` |
| `shuffle(range(…))` | one of them, without an order |
| `value` | nothing: a fixed override |
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from recsys.errors import ConfigError

Space = dict[str, BaseDistribution]


def parse(arguments: Sequence[str], loader: ConfigLoader | None = None) -> tuple[list[str], Space]:
    """The fixed overrides, and a distribution for each key that is swept over. A later argument replaces an earlier one.

    Raises `ConfigError` for what cannot be read and for a space that holds nothing.
    """
    fixed: dict[str, str] = {}
    space: Space = {}
    for argument in arguments:
        override = _read(argument, loader)
        key = override.get_key_element()
        fixed.pop(key, None)
        space.pop(key, None)
        if override.is_sweep_override():
            space[key] = _distribution(override, argument)
        else:
            fixed[key] = argument
    return list(fixed.values()), space


def distribution(key: str, text: Any) -> BaseDistribution | None:
    """What is written for `key` in YAML, as a distribution; None for a plain value."""
    override = _read(f"{key}={text}", None)
    return _distribution(override, f"{key}: {text}") if override.is_sweep_override() else None


def arguments(params: Mapping[str, Any]) -> list[str]:
    """What YAML holds under `hydra.sweeper.params`, as it would be written on the command line."""
    return [f"{key}={encoded(value)}" for key, value in params.items()]


def encoded(value: Any) -> str:
    """A plain value, or a choice as a distribution holds it, as it is written after `=` in an override."""
    if isinstance(value, str):
        return value
    return str(Override._get_value_element_as_str(value))


def value(argument: str) -> Any:
    """The plain value of a fixed override."""
    return _read(argument, None).value()


def _read(argument: str, loader: ConfigLoader | None) -> Override:
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides([argument])[0]
    except HydraException as error:
        raise ConfigError(f"sweep: cannot read {argument!r}: {str(error).splitlines()[0]}") from None


def _distribution(override: Override, told: str) -> BaseDistribution:
    value: Any = override.value()
    try:
        if isinstance(value, IntervalSweep):
            low: Any = value.start
            high: Any = value.end
            log = "log" in value.tags
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=log)
            return FloatDistribution(low, high, log=log)
        if isinstance(value, RangeSweep) and not value.shuffle:
            start, stop, step = value.start or 0, value.stop or 0, value.step
            if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
                return IntDistribution(start, stop, step=step)
            return FloatDistribution(float(start), float(stop), step=float(step))
        choices: list[Any] = list(
            value.range() if isinstance(value, RangeSweep) else override.sweep_iterator(transformer=Transformer.encode)
        )
        return CategoricalDistribution(choices)
    except (ValueError, TypeError, HydraException) as error:
        raise ConfigError(f"sweep: {told}: {str(error).splitlines()[0]}") from None
