"""What a trial may choose: the keys that are swept over, and the spaces of the components that it chose.

A space lies beside its component in `conf/sweep/space/` and mirrors its config: the same keys, with what may be drawn in the
place of values. It counts wherever a component of its `_target_` stands in the part of the config that is searched, so that a
trial that picks another retriever sees that retriever's parameters and no others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from recsys.errors import ConfigError, nearest
from recsys.tuning import syntax
from recsys.tuning.study import DEFAULTS

Compose = Callable[[tuple[str, ...]], Mapping[str, Any]]
"""Gives the resolved config for overrides, and under `CHOICES` the choice of each config group."""
Choose = Callable[[str, str, BaseDistribution, Mapping[str, Any]], Any]

CHOICES = "choices"
"""Where `Compose` puts the choice of each config group."""
LEFT = object()
"""A choice of `Choose`: the value stays what the config says."""


@dataclass(frozen=True)
class Component:
    """The space of one component."""

    name: str
    target: str
    space: syntax.Space


@dataclass(frozen=True)
class SearchSpace:
    """All that the trials of one stage may choose, on top of the `fixed` overrides."""

    compose: Compose
    fixed: tuple[str, ...]
    keys: syntax.Space
    """Swept over on the command line or in YAML; these come before a component's own space."""
    components: tuple[Component, ...]
    over: tuple[str, ...]
    """Parts of the config (`retriever`, `ranker`, …) whose components are searched."""

    def overrides(self, trial: Trial) -> list[str]:
        """What the trial changes, as overrides: drawn by its sampler, or nothing for the trial of the defaults."""
        held: list[str] | None = trial.user_attrs.get(DEFAULTS)

        def choose(name: str, key: str, distribution: BaseDistribution, config: Mapping[str, Any]) -> Any:
            if held is not None and name not in held:
                return LEFT
            return _suggest(trial, name, distribution)

        return [override for _, override in self._walk(choose)]

    def defaults(self) -> dict[str, Any]:
        """The parameters of the config as it stands, those that the space holds."""
        found: dict[str, Any] = {}

        def choose(name: str, key: str, distribution: BaseDistribution, config: Mapping[str, Any]) -> Any:
            held = _held(distribution, config[CHOICES].get(key, _value(config, key)))
            if held is not None:
                found[name] = held
            return LEFT

        for _ in self._walk(choose):
            pass
        return found

    def check(self) -> None:
        """Raise `ConfigError` for a key that no config has, whatever a trial would choose, and for an empty space."""
        self.compose(self.fixed)
        for key, distribution in self.keys.items():
            for value in _some(distribution):
                self.compose((*self.fixed, f"{key}={syntax.encoded(value)}"))
        seen = False
        for changed in self._structures():
            config = self.compose((*self.fixed, *changed))
            for path, component in self._present(config):
                seen = True
                known = _value(config, path)
                for key in component.space:
                    if _value(known, key, missing := object()) is missing:
                        raise ConfigError(
                            f"sweep/space/{component.name}: {component.target} has no option {key!r}.{nearest(key, known)}"
                        )
        if not seen and not self.keys:
            raise ConfigError(
                f"sweep: nothing to search in {', '.join(self.over)}: no component there has a space in conf/sweep/space,"
                " and no key is swept over"
            )

    def drawn(self) -> syntax.Space:
        """All that any trial could draw, by name."""
        found = dict(self.keys)
        for changed in self._structures():
            for path, component in self._present(self.compose((*self.fixed, *changed))):
                found |= {f"{path}[{component.name}].{key}": drawn for key, drawn in component.space.items()}
        return {name: drawn for name, drawn in found.items() if name in self.keys or override_key(name) not in self.keys}

    def _structures(self) -> Iterator[list[str]]:
        yield []
        for key, distribution in self.keys.items():
            if "." not in key and isinstance(distribution, CategoricalDistribution):
                yield from ([f"{key}={syntax.encoded(choice)}"] for choice in distribution.choices)

    def _walk(self, choose: Choose) -> Iterator[tuple[str, str]]:
        """Choose groups first, then other keys, then for each component that is there; gives names and overrides."""
        chosen: list[str] = []
        config = self.compose(self.fixed)
        for key, distribution in sorted(self.keys.items(), key=lambda pair: "." in pair[0]):
            value = choose(key, key, distribution, config)
            if value is not LEFT:
                config = self._changed(config, chosen, key, value)
                yield key, chosen[-1]
        done: set[str] = set()
        while fresh := [found for found in self._present(config) if found[0] not in done]:
            path, component = fresh[0]  # what it chooses may change which components are inside it
            done.add(path)
            for key, distribution in component.space.items():
                full = f"{path}.{key}"
                if full in self.keys:
                    continue
                name = f"{path}[{component.name}].{key}"
                value = choose(name, full, distribution, config)
                if value is not LEFT:
                    config = self._changed(config, chosen, full, value)
                    yield name, chosen[-1]

    def _changed(self, config: Mapping[str, Any], chosen: list[str], key: str, value: Any) -> Mapping[str, Any]:
        """The config after one more choice; only that of a group (or of a new key) needs composing, which is slow."""
        chosen.append(f"{key}={syntax.encoded(value)}")
        if key in config[CHOICES] or _value(config, key, missing := object()) is missing:
            return self.compose((*self.fixed, *chosen))
        return _replaced(config, key.split("."), syntax.value(chosen[-1]))

    def _present(self, config: Mapping[str, Any]) -> list[tuple[str, Component]]:
        spaces = {component.target: component for component in self.components}
        return [
            (path, spaces[target])
            for root in self.over
            if isinstance(config.get(root), Mapping)
            for path, target in _targets(config[root], root)
            if target in spaces
        ]


def override_key(name: str) -> str:
    """The config key of a parameter: `retriever[als].factors` becomes `retriever.factors`."""
    path, bracket, rest = name.partition("[")
    return f"{path}{rest.partition(']')[2]}" if bracket else name


def read_components(spaces: Mapping[str, Any]) -> tuple[Component, ...]:
    """Components from what `conf/sweep/space/*.yaml` hold, by name. Raises `ConfigError` for what is not a space."""
    found = []
    for name, values in spaces.items():
        if not isinstance(values, Mapping) or not isinstance(values.get("_target_"), str):
            raise ConfigError(f"sweep/space/{name}: wanted the component's _target_ and its keys, found {values!r}")
        space = {}
        for key, text in values.items():
            if key == "_target_":
                continue
            drawn = syntax.distribution(str(key), text)
            if drawn is None:
                raise ConfigError(f"sweep/space/{name}.{key}: wanted what may be drawn, such as interval(0, 1), found {text!r}")
            space[str(key)] = drawn
        found.append(Component(name, values["_target_"], space))
    return tuple(found)


def cached(compose: Compose) -> Compose:
    """`compose` that remembers: trials share most of their overrides."""
    return lru_cache(maxsize=64)(compose)


def _targets(config: Any, path: str) -> Iterator[tuple[str, str]]:
    """Paths and classes of the components inside, outer before inner.

    Where lists of names stand beside a mapping that has them (sources or families of definitions), only those named are there.
    """
    if isinstance(config, Mapping):
        if isinstance(config.get("_target_"), str):
            yield path, config["_target_"]
        names = [set(v) for v in config.values() if isinstance(v, list) and v and all(isinstance(n, str) for n in v)]
        for key, value in config.items():
            if not isinstance(value, Mapping):
                continue
            chosen = set().union(*(each for each in names if each <= set(value)))
            inside = {k: v for k, v in value.items() if k in chosen} if chosen else value
            yield from _targets(inside, f"{path}.{key}")


def _value(config: Any, key: str, missing: Any = None) -> Any:
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return missing
        config = config[part]
    return config


def _replaced(config: Mapping[str, Any], path: Sequence[str], value: Any) -> Mapping[str, Any]:
    """A copy with another value at the path."""
    name, *rest = path
    return {**config, name: _replaced(config[name], rest, value) if rest else value}


def _held(distribution: BaseDistribution, value: Any) -> Any:
    """The distribution's own form of a config's value, None where it does not hold it."""
    if isinstance(distribution, CategoricalDistribution):
        for choice in distribution.choices:
            same = type(choice) is type(value) and choice == value
            if same or (isinstance(choice, str) and choice == syntax.encoded(value)):
                return choice
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if distribution._contains(distribution.to_internal_repr(value)) else None


def _some(distribution: BaseDistribution) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
