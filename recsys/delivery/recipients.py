"""Who can be written to: addresses that mail services take, and customers who must not be written to."""

import csv
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from recsys.delivery.letter import Email, Letter
from recsys.errors import ConfigError
from recsys.shop.identity import canonical

ON_THE_LIST = "on the suppression list"
"""A reason to leave a customer out."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
_ADDRESS = re.compile(rf"(?=.{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+(?!\d+$){_LABEL}", re.A | re.I)
_BETWEEN = re.compile(r"[\s,;<>\"]+")
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


def few(names: Sequence[str]) -> str:
    """The first five of many names."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


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
            selection.left_out[ON_THE_LIST].append(user)
        elif address.lower() in seen:
            selection.left_out["the address of another customer of the list"].append(user)
        else:
            seen.add(address.lower())
            selection.posted.append(Posted(letter, letter.email, address))
    return selection


@dataclass(frozen=True)
class Suppression:
    """Who must not be written to: each row of the list, and the lower-case addresses and ids by which it names a customer."""

    entries: tuple[tuple[str, frozenset[str]], ...] = ()

    @cached_property
    def names(self) -> frozenset[str]:
        """All addresses and ids."""
        return frozenset().union(*(names for _, names in self.entries))


def read_suppressed(path: str | None) -> Suppression:
    """The suppression list: one customer per row, upper or lower case; a row that starts with # is a comment.

    A row may be a line of a CSV. It names a customer by each address in it (`ann@shop.test,`, `Ann <ann@shop.test>`) and by the
    cell under the title `user` where the first row has it; a row without either by its first cell, which is an id.

    Raises `ConfigError` when the file or a row cannot be read: then nobody is written to.
    """
    if path is None:
        return Suppression()
    try:
        about = Path(path).stat()
        return _suppression(path, about.st_mtime_ns, about.st_size)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"delivery.suppression: cannot read {path}: {error}") from None


@lru_cache(maxsize=1)
def _suppression(path: str, changed: int, size: int) -> Suppression:
    entries, user_column = [], None
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig").splitlines(), start=1):
        separator = max(",;\t", key=line.count)
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
        row = line.strip(" \t,;")
        if not row or row.startswith("#"):
            continue
        if number == 1 and (titles := [cell.strip().lower() for cell in cells]) and "user" in titles:
            user_column = titles.index("user")
            continue
        parts = (part.removeprefix("mailto:") for part in _BETWEEN.split(row.lower()))
        names = {part for part in parts if is_address(part)}
        written = cells[user_column : user_column + 1] if user_column is not None else [] if names else [row, cells[0]]
        try:
            names |= {user.lower() for cell in written if (user := canonical(cell))}
        except ValueError as error:
            raise ConfigError(f"delivery.suppression: {path}, row {number}: {error}") from None
        entries.append((row, frozenset(names)))
    return Suppression(tuple(entries))
