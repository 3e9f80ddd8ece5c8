"""Content as a short text: equal content, equal digest, in every process and on every machine."""

import hashlib
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd


def digest(*values: Any) -> str:
    """Hash of what values hold: arrays, text, numbers, and sequences, mappings and dataclasses of them.

    An object with a method `content` counts for what that gives.
    """
    total = hashlib.blake2b(digest_size=16)
    _feed(total, values)
    return total.hexdigest()


def _feed(total: Any, value: Any) -> None:
    if callable(content := getattr(value, "content", None)):
        value = content()
    if isinstance(value, np.ndarray):
        total.update(f"{value.dtype.str}{value.shape}".encode())
        plain = pd.util.hash_array(value) if value.dtype.hasobject else value
        total.update(np.ascontiguousarray(plain).data.cast("B") if plain.size else b"")
    elif is_dataclass(value) and not isinstance(value, type):
        _feed(total, [(field.name, getattr(value, field.name)) for field in fields(value)])
    elif isinstance(value, dict):
        _feed(total, sorted(value.items(), key=lambda pair: str(pair[0])))
    elif isinstance(value, list | tuple):
        total.update(f"[{len(value)}".encode())
        for item in value:
            _feed(total, item)
    else:
        total.update(f"{type(value).__name__}:{value!r};".encode())
