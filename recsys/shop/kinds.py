"""Kinds of event: their names in order of strength, what each means to a shop, and which takes another back.

A log's kinds are declared by its source. Features, facts and reasons ask for a role; weights go by role, or by the name of a
kind, which comes first. No number stands for a kind outside of `recsys.shop`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from recsys.component import Component
from recsys.errors import ConfigError, nearest

Role = Literal["view", "cart", "purchase"]
ROLES: tuple[Role, ...] = get_args(Role)
"""What a kind may mean, weakest first."""

_NAMES_A_KIND = "names a kind"
KindName = Annotated[str, _NAMES_A_KIND]
"""The name of a kind of event or of a role, in the settings of a component."""
KindWeights = dict[KindName, Annotated[float, Field(ge=0)]]
"""A weight by kind or role. The name of a kind comes before its role; a kind that neither names has 0."""
SIGNAL_WEIGHTS: KindWeights = {"view": 1.0, "cart": 3.0, "purchase": 5.0}


@dataclass(frozen=True)
class Kinds:
    """The kinds of event of one log.

    `names`: weakest first; an event's kind is a place among them. `roles`: the role of each, None for one without. `undoes`:
    the name of the kind that each takes back, None for one that takes nothing back.

    Raises `ConfigError` for names that are not distinct words, for a name of a role that has another role, and for a kind that
    undoes itself, an unknown one or one that undoes another itself.
    """

    names: tuple[str, ...]
    roles: tuple[Role | None, ...]
    undoes: tuple[str | None, ...]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ConfigError(f"dataset.kinds: expected distinct names, got {', '.join(self.names) or 'none'}")
        for name, role, undone in zip(self.names, self.roles, self.undoes, strict=True):
            if not re.fullmatch(r"\w[\w-]*", name):
                raise ConfigError(f"dataset.kinds: expected a name of letters, digits, _ and -, got {name!r}")
            if role is not None and role not in ROLES:
                raise ConfigError(f"dataset.kinds.{name}.role: expected a role, got {role!r}.{nearest(str(role), ROLES)}")
            if name in ROLES and role != name:
                raise ConfigError(f"dataset.kinds.{name}.role: expected {name}, as it is called, got {role or 'none'}")
            others = [other for other, undoes in zip(self.names, self.undoes, strict=True) if other != name and undoes is None]
            if undone is not None and undone not in others:
                message = f"dataset.kinds.{name}.undoes: expected a kind that takes nothing back, got {undone!r}."
                raise ConfigError(message + nearest(str(undone), others))

    @classmethod
    def of(cls, declared: Mapping[str, Mapping[str, Any]]) -> "Kinds":
        """From a mapping such as `{"view": {"role": "view"}, "wishlist": {}, "return": {"undoes": "purchase"}}`.

        Raises `ConfigError` for anything else under a name than `role` and `undoes`.
        """
        for name, settings in declared.items():
            for key in settings:
                if key not in ("role", "undoes"):
                    known = nearest(str(key), ("role", "undoes"))
                    raise ConfigError(f"dataset.kinds.{name}: expected role or undoes, got {key!r}.{known}")
        columns = (tuple(settings.get(key) for settings in declared.values()) for key in ("role", "undoes"))
        return cls(tuple(map(str, declared)), *columns)

    def declared(self) -> dict[str, dict[str, str]]:
        """What `of` takes."""
        rows = zip(self.names, self.roles, self.undoes, strict=True)
        return {name: {k: v for k, v in (("role", role), ("undoes", undone)) if v} for name, role, undone in rows}

    def __len__(self) -> int:
        return len(self.names)

    def numbers(self, names: Sequence[str] | npt.NDArray[Any]) -> npt.NDArray[np.int8]:
        """The number of each kind: `int8[n]`. Raises `ConfigError` for a name that is none of them."""
        codes, values = pd.factorize(np.asarray(names, dtype=object), use_na_sentinel=False)
        for name in values:
            if name not in self.names:
                raise ConfigError(f"expected a kind of event, got {name!r}.{nearest(str(name), self.names)}")
        return np.array([self.names.index(name) for name in values], dtype=np.int8)[codes]

    def with_role(self, role: Role) -> npt.NDArray[np.bool_]:
        """Which kinds have the role: `bool[kinds]`."""
        return np.array([own == role for own in self.roles], dtype=bool)

    def weights(self, given: Mapping[str, float], key: str = "weights") -> npt.NDArray[np.float32]:
        """The weight of each kind, by its name, else by its role, else 0: `float32[kinds]`. Raises as `check` does."""
        self.check(given, key)
        by_role = (given.get(role, 0.0) if role else 0.0 for role in self.roles)
        return np.array([given.get(name, other) for name, other in zip(self.names, by_role, strict=True)], dtype=np.float32)

    def among(self, given: Sequence[str], key: str = "events") -> npt.NDArray[np.bool_]:
        """Which kinds are named, or have a role that is: `bool[kinds]`. Raises as `check` does."""
        self.check(given, key)
        return np.array([name in given or role in given for name, role in zip(self.names, self.roles, strict=True)], dtype=bool)

    def check(self, given: Sequence[str] | Mapping[str, object], key: str) -> None:
        """Raise `ConfigError` for a name that is neither a kind of the log nor a role; `key` is where it was set."""
        for name in given:
            if name not in self.names and name not in ROLES:
                known = dict.fromkeys((*self.names, *ROLES))
                raise ConfigError(f"{key}: expected a kind of event of the data or a role, got {name!r}.{nearest(name, known)}")

    @property
    def columns(self) -> tuple[str, ...]:
        """What counts of events are kept apart by: every role, then each kind without one."""
        return (*ROLES, *(name for name, role in zip(self.names, self.roles, strict=True) if role is None))

    @cached_property
    def column(self) -> npt.NDArray[np.int64]:
        """The place of each kind among `columns`: `int64[kinds]`."""
        return np.array([self.columns.index(role or name) for name, role in zip(self.names, self.roles, strict=True)])

    @cached_property
    def undone_by(self) -> npt.NDArray[np.int64]:
        """The kind that each kind takes back, −1 for none: `int64[kinds]`."""
        return np.array([-1 if undone is None else self.names.index(undone) for undone in self.undoes])

    @property
    def undo(self) -> bool:
        """Whether any kind takes another back."""
        return any(self.undoes)


RETAIL = Kinds(("view", "addtocart", "transaction"), ROLES, (None, None, None))
"""RetailRocket's kinds, and those of a source that declares no others."""


def named(settings: object, key: str) -> Iterator[tuple[str, str]]:
    """Every kind or role that a component's settings name, at any depth, with the config key where it stands.

    Fields are found by their type (`KindName`), so that a component of one's own is looked through as well.
    """
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            yield from named(value, f"{key}.{name}")
    elif isinstance(settings, list | tuple):
        for i, value in enumerate(settings):
            yield from named(value, f"{key}.{i}")
    elif isinstance(settings, Component):
        types = get_type_hints(type(settings), include_extras=True)
        for field in fields(settings):  # type: ignore[arg-type]
            value, where = getattr(settings, field.name), f"{key}.{field.name}"
            if _holds_names(types.get(field.name)):
                yield from ((where, name) for name in ([value] if isinstance(value, str) else value or ()))
            else:
                yield from named(value, where)


def _holds_names(annotation: Any) -> bool:
    """Whether a field's type is a kind's name, a list of them, or a mapping by them."""
    if get_origin(annotation) is Annotated:
        return _NAMES_A_KIND in annotation.__metadata__ or _holds_names(get_args(annotation)[0])
    if get_origin(annotation) in (dict, list, tuple):
        return _holds_names(get_args(annotation)[0])
    return any(_holds_names(part) for part in get_args(annotation)) if get_origin(annotation) not in (None, Literal) else False
