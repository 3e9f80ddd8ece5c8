"""Errors that a user can act on: what was wanted, what was found, and where."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave (config, file, column), told in one line without a traceback."""


class ConfigError(UserError):
    """An unknown key, group or value of the configuration."""


class DataError(UserError):
    """A file or table that does not hold what its loader was told it holds."""


class NotFittedError(RuntimeError):
    """A component was asked for results before `fit` or `load`."""


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean …?' for the known names closest to `name`; when none is close, all of them if they are few."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f" Did you mean {' or '.join(repr(c) for c in close)}?"
    return f" Known: {', '.join(names)}." if 0 < len(names) <= 20 else ""
