"""Secrets kept out of what is logged, tracked or printed."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

HIDDEN = "***"
SECRET_WORDS = frozenset("key apikey token secret secrets password passwords passwd passphrase credentials".split())
SHORTEST_SECRET = 8

_PASSWORD = re.compile(r"""(://[^/\s:@"']*):([^\s"']+)@""")
_USER_TOKEN = re.compile(r"""(https?://)[^/\s:@"']+@""")
_ASSIGNED = re.compile(r"""([\w.@/-]+)["']?\s*[:=]""")


def redact(value: Any, secrets: Collection[str] = ()) -> Any:
    """Plain values (mappings, lists, scalars) with every secret as `***`; other objects become text.

    A secret is what stands, at any depth, under a name with a word such as `key`, `token`, `secret` or `password`
    (`api_key` and `apiKey` are such names, `monkey` is not); what follows such a name in a text (`mail.token=…`,
    `?token=…`), up to the text's end; the password in a URI; any of the given `secrets`.
    """
    if isinstance(value, Mapping):
        return {str(k): _blank(v) if is_secret(str(k)) else redact(v, secrets) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, secrets) for item in value]
    if type(value) in (int, float, bool, type(None)):
        return value
    text = hide(str(value), secrets)
    told = next((match.end() for match in _ASSIGNED.finditer(text) if is_secret(match[1])), None)
    return text if told is None else text[:told] + HIDDEN


def hide(text: str, secrets: Collection[str] = ()) -> str:
    """Free text (a traceback, say) with the given secrets and the passwords in URIs as `***`."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _USER_TOKEN.sub(rf"\1{HIDDEN}@", _PASSWORD.sub(rf"\1:{HIDDEN}@", text))


def is_secret(name: str) -> bool:
    """Whether what a config key or an environment variable of this name holds is a secret."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return not SECRET_WORDS.isdisjoint(word.lower() for word in words)


def known_secrets(config: Mapping[str, Any]) -> set[str]:
    """Secrets of a config and of the environment, those of 8 characters or more: worth looking for in any text."""
    return {text for text in _secret_leaves([config, dict(os.environ)], False) if len(text) >= SHORTEST_SECRET}


def _secret_leaves(value: Any, secret: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secret_leaves(item, secret or is_secret(str(key)))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secret_leaves(item, secret)
    elif secret and value is not None:
        yield str(value)
    elif isinstance(value, str):
        yield from (match[2] for match in _PASSWORD.finditer(value))


def _blank(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _blank(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_blank(item) for item in value]
    return None if value is None else HIDDEN
