"""Who can be written to: addresses that mail services take, and customers who must not be written to."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from recsys.delivery.letter import Email, Letter
from recsys.errors import ConfigError

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
_ADDRESS = re.compile(rf"(?=.{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+(?!\d+$){_LABEL}", re.A | re.I)
_NOT_ONE_LINE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def is_address(text: str) -> bool:
    """Whether mail services take this as an address: RFC 5321 in ASCII without quoting, 254 characters at most."""
    return len(text) <= 254 and bool(_ADDRESS.fullmatch(text))


def one_line(text: str, length: int | None = None) -> str:
    """Text for a header or a short field: line ends and control characters become a space; cut with … beyond `length`.

    `=?`, which starts an encoded word (RFC 2047), is broken apart: a line end that such a word hides would come out later.
    """
    line = _NOT_ONE_LINE.sub(" ", text).strip().replace("=?", "= ?")
    return line if length is None or len(line) <= length else line[: length - 1].rstrip() + "…"


@dataclass(frozen=True)
class Posted:
    """A letter that can be handed over: one with an e-mail, to an address that services take."""

    letter: Letter
    email: Email
    address: str


@dataclass
class Selection:
    """`posted` can be written to; `left_out` holds the users that cannot, by the reason."""

    posted: list[Posted] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def select(letters: Iterable[Letter], suppressed: Collection[str] = ()) -> Selection:
    """Whom of these customers can be written to, each address once. `suppressed` holds lower-case addresses and user ids."""
    selection, seen = Selection(), set()
    for letter in letters:
        user, address = letter.recipient.user, (letter.recipient.email or "").strip()
        if letter.email is None:
            selection.left_out["nothing to recommend"].append(user)
        elif not address:
            selection.left_out["no address"].append(user)
        elif not is_address(address):
            selection.left_out["an address that mail services refuse"].append(user)
        elif address.lower() in suppressed or user.lower() in suppressed:
            selection.left_out["on the suppression list"].append(user)
        elif address.lower() in seen:
            selection.left_out["the address of another customer of the list"].append(user)
        else:
            seen.add(address.lower())
            selection.posted.append(Posted(letter, letter.email, address))
    return selection


def read_suppressed(path: str | None) -> frozenset[str]:
    """The suppression list: an address or a user id a line, upper or lower case; a line that starts with # is a comment.

    Raises `ConfigError` when the file cannot be read: then nobody is written to.
    """
    if path is None:
        return frozenset()
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"delivery.suppression: cannot read {path}: {error}") from None
    return frozenset(entry for line in lines if (entry := line.strip().lower()) and not entry.startswith("#"))
