"""A component: typed settings from a config, learned arrays from a fit, saved without pickle.

Retrievers, feature families and rankers are components. Their settings are the fields of a pydantic dataclass, so a wrong type
or an unknown name is refused when the object is made, by a notebook as by Hydra. What a fit learns is returned by `state` and
taken back by `restore`, as arrays.
"""

import importlib
import json
import re
from collections.abc import Container, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from recsys.errors import ConfigError, DataError, nearest

State = dict[str, npt.NDArray[Any]]

SETTINGS = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_default=True)


class Component:
    """Base of everything that a config can put together; see the module."""

    trusted: ClassVar[set[str]] = {"recsys"}
    """Packages whose classes `open` may construct; add your own before opening a model that uses it."""

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, with `_target_`, as plain values that YAML can hold."""
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.init}  # type: ignore[arg-type]
        return {"_target_": f"{type(self).__module__}.{type(self).__qualname__}", **values}

    def files(self) -> tuple[Path, ...] | None:
        """The files that the results depend on besides the settings, none by default; `None` where they cannot be named.

        While settings, files and code are the same, results come from the cache; with `None` they are computed each time.
        """
        return ()

    def components(self) -> Iterator["Component"]:
        """The component, then the components in its settings at any depth."""
        yield self
        for f in fields(self):  # type: ignore[arg-type]
            if f.init:
                yield from _held(getattr(self, f.name))

    def state(self) -> State:
        """What `fit` learned, as arrays (numeric, boolean or fixed-width text; never objects)."""
        return {}

    def restore(self, state: State) -> None:
        """Take back what `state` gave."""

    def write_files(self, folder: Path) -> None:
        """Write what is not an array, such as trees as text, into `folder`."""

    def read_files(self, folder: Path) -> None:
        """Read what `write_files` wrote."""

    def save(self, folder: Path) -> None:
        """Write `settings.yaml` and `state.npz` into `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.yaml").write_text(yaml.safe_dump(self.settings(), sort_keys=False))
        np.savez(folder / "state.npz", allow_pickle=False, **self.state())
        self.write_files(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read what `save` wrote. No code from the folder runs: the class has to be of a trusted package.

        Raises `DataError` when a file is missing or names a class that is not trusted.
        """
        try:
            component = construct(yaml.safe_load((folder / "settings.yaml").read_text()), trusted=cls.trusted)
            with np.load(folder / "state.npz", allow_pickle=False) as arrays:
                component.restore(dict(arrays))
            component.read_files(folder)
        except FileNotFoundError as error:
            raise DataError(f"{folder} does not hold a saved component: {Path(error.filename).name} is missing") from None
        except ConfigError as error:
            raise DataError(f"{folder / 'settings.yaml'}: {error}") from None
        if not isinstance(component, cls):
            raise DataError(f"{folder} holds a {type(component).__name__}, wanted a {cls.__name__}")
        return component


def construct(settings: Any, key: str = "", trusted: Container[str] | None = None) -> Any:
    """The object that `settings` describe: a mapping with `_target_` becomes an instance, at any depth.

    `key` is where the settings stand in a config, for the error message. Only classes of `trusted` packages are made; None
    trusts all, which is for a config that the user wrote, never for a file that came with a model.

    Raises `ConfigError`, in one line that names the key, for a class that is not there, an unknown option or a wrong value.
    """
    if isinstance(settings, list):
        return [construct(value, f"{key}.{i}", trusted) for i, value in enumerate(settings)]
    if not isinstance(settings, dict):
        return settings
    at = f"{key}." if key else ""
    values = {name: construct(value, f"{at}{name}", trusted) for name, value in settings.items() if name != "_target_"}
    if "_target_" not in settings:
        return values
    path = str(settings["_target_"])
    module, _, name = path.rpartition(".")
    if trusted is not None and module.split(".")[0] not in trusted:
        raise ConfigError(f"{at}_target_: {path} is not of a trusted package")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{at}_target_: there is no class {path} ({error})") from None
    if not (isinstance(target, type) and issubclass(target, Component)):
        raise ConfigError(f"{at}_target_: {path} is not a recsys Component")
    try:
        return target(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error.errors()[0], at, target)) from None


def _explain(problem: Any, at: str, target: type) -> str:
    """One line for a pydantic error: the key, what was wanted, what was found."""
    known = [f.name for f in fields(target) if f.init]
    where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    if problem["type"] == "unexpected_keyword_argument":
        return f"{at}{where}: {target.__name__} has no such option.{nearest(where, known)}"
    if problem["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{at}{where}: {target.__name__} wants a value here, found none"
    found = problem["input"]
    message = f"{at}{where}: {problem['msg'].removeprefix('Value error, ')}"
    if problem["type"] == "literal_error":
        return message + f", found {found!r}." + nearest(str(found), re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    return message if problem["type"] == "value_error" else f"{message}, found {found!r}"


def _held(value: Any) -> Iterator[Component]:
    if isinstance(value, Component):
        yield from value.components()
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _held(part)


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return value.settings()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return json.loads(json.dumps(value))


component = pydantic_dataclass(config=SETTINGS, kw_only=True, eq=False)
"""Class decorator of every component: a keyword-only dataclass whose fields are checked when an object is made."""
