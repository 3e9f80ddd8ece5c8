"""Names and texts in the form that MLflow takes, with no secret in them."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from recsys.redaction import redact

NAME_LENGTH, PARAM_LENGTH, TAG_LENGTH, PARAMS_PER_BATCH, METRICS_PER_BATCH = 250, 6000, 8000, 100, 1000
"""MLflow's limits."""


def valid_name(name: str) -> str:
    """`name` as MLflow takes it: `@` becomes `_at_`, other foreign characters `_`, and 250 characters are enough."""
    parts = re.sub(r"[^\w\-. /]", "_", name.replace("@", "_at_")).split("/")
    return "/".join(part for part in parts if part.strip("."))[:NAME_LENGTH] or "_"


def flatten(value: Any, name: str = "") -> dict[str, str]:
    """Nested plain values as text by dotted name. A list that holds mappings is numbered."""
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        value = dict(enumerate(value))
    if isinstance(value, Mapping) and (value or not name):
        prefix = f"{name}." if name else ""
        return {path: text for key, item in value.items() for path, text in flatten(item, f"{prefix}{key}").items()}
    return {name: str(value)}


def texts(tags: Mapping[str, object], secrets: Collection[str]) -> dict[str, str]:
    """Tags as text, within the limits; a list becomes its words."""
    plain = redact(tags, secrets).items()
    texts = {name: " ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in plain}
    return {valid_name(name): cut(text, TAG_LENGTH) for name, text in texts.items()}


def cut(text: str, length: int) -> str:
    """`text`, or as much of it as fits, with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def one_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def batches(entries: list[Any], size: int) -> Iterator[list[Any]]:
    """Runs of at most `size` entries."""
    return (entries[start : start + size] for start in range(0, len(entries), size))
