"""Whom to write to: so many customers, a file of them, or a segment of the log."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.datasets.reading import read
from recsys.delivery.letter import Recipient
from recsys.delivery.recipients import Suppression, is_address
from recsys.errors import ConfigError, DataError, nearest
from recsys.recommender import TwoStageRecommender
from recsys.shop.events import EventLog, Int64, days
from recsys.shop.identity import Vocabulary
from recsys.shop.kinds import Role
from recsys.shop.pairs import pair_key

LAPSED_DAYS, ACTIVE_DAYS = 60, 28


def _all(log: EventLog, cutoff: int) -> Int64:
    return np.unique(log.user)


def _buyers(log: EventLog, cutoff: int) -> Int64:
    return np.unique(log.user[log.has_role("purchase")])


def _active(log: EventLog, cutoff: int) -> Int64:
    return np.unique(log.between(cutoff - days(ACTIVE_DAYS), cutoff).user)


def _lapsed(log: EventLog, cutoff: int) -> Int64:
    since = log.between(cutoff - days(LAPSED_DAYS), cutoff)
    return np.setdiff1d(_buyers(log, cutoff), since.user)


def _carted(log: EventLog, cutoff: int) -> Int64:
    newest = {}
    roles: tuple[Role, ...] = ("cart", "purchase")
    for role in roles:
        chosen = np.flatnonzero(log.has_role(role))[::-1]
        pair, first = np.unique(pair_key(log.user[chosen], log.item[chosen]), return_index=True)
        newest[role] = pd.Series(log.time[chosen[first]], index=pair)
    carted, bought = newest["cart"], newest["purchase"]
    waiting = carted[carted > bought.reindex(carted.index, fill_value=np.iinfo(np.int64).min)]
    return np.unique(waiting.index.to_numpy() >> 32)


SEGMENTS: dict[str, tuple[str, Callable[[EventLog, int], Int64]]] = {
    "all": ("every customer of the log", _all),
    "buyers": ("who ever bought", _buyers),
    "active": (f"who came in the {ACTIVE_DAYS} days before the cutoff", _active),
    "lapsed": (f"who bought, and did not come in the {LAPSED_DAYS} days before the cutoff", _lapsed),
    "carted": ("who put something into the cart and has not bought it since", _carted),
}
"""Segments by name, each with what it means."""


@dataclass(frozen=True, eq=False)
class Audience:
    """Customers by own id, and what is known of them to write to."""

    users: npt.NDArray[np.generic]
    contacts: Mapping[str, Recipient] = field(default_factory=dict)
    repeated: int = 0
    """Rows of a file that named a customer again."""
    unknown: Mapping[str, list[str]] = field(default_factory=dict)
    """For each file read, the ids in it that the model does not know."""

    @classmethod
    def of(cls, users: str | int, model: TwoStageRecommender, contacts: str | None = None) -> "Audience":
        """`users`: a number (so many who came last before the cutoff), a segment, or a file: one id a line, or a CSV with the
        columns user and, if wanted, email and first_name. `contacts` is such a CSV for those that a number or segment names.

        Raises `ConfigError` for what is neither, `DataError` for a file that names nobody, no user or no proper address.
        """
        log = model.history
        known = _contacts(contacts)[0] if contacts else {}
        unknown = {contacts: _unknown(known, log)} if contacts else {}
        text = str(users).strip()
        if text.isdigit() and int(text) > 0:
            return cls(log.users.ids[_latest(log)[: int(text)]], known, unknown=unknown)
        if text in SEGMENTS:
            chosen = SEGMENTS[text][1](log, model.cutoff)
            if not len(chosen):
                raise DataError(f"users: the segment {text!r} ({SEGMENTS[text][0]}) is empty in this run")
            return cls(log.users.ids[chosen], known, unknown=unknown)
        if Path(text).expanduser().is_file():
            named, repeated = _contacts(text)
            unknown[text] = _unknown(named, log)
            return cls(np.array(list(named), dtype=object), {**named, **known} if known else named, repeated, unknown)
        raise ConfigError(
            f"users: wanted a number of at least 1, a file, or a segment, found {text!r}.{nearest(text, SEGMENTS)}"
        )

    def __len__(self) -> int:
        return len(self.users)

    @property
    def addressed(self) -> bool:
        """Whether anybody's address is known."""
        return any(contact.email for contact in self.contacts.values())

    def strangers(self, suppression: Suppression, users: Vocabulary) -> list[str]:
        """The rows of a suppression list that name nobody: no id of `users` or of a file, no known address.

        Where no address is known, a row that names an address is not among them.
        """
        if not suppression.entries:
            return []
        names = pa.array(suppression.names, pa.large_string())
        ids = pc.utf8_lower(pa.array(users.ids).cast(pa.large_string()))
        known = set(names.filter(pc.is_in(names, value_set=ids)).to_pylist())
        known |= {name.lower() for name in self.contacts}
        known |= {contact.email.lower() for contact in self.contacts.values() if contact.email}
        return [
            row
            for row, named in suppression.entries
            if named.isdisjoint(known) and (self.addressed or not any(map(is_address, named)))
        ]

    def blocks(self, size: int) -> Iterator[list[Recipient]]:
        """The customers, so many at a time."""
        for start in range(0, len(self.users), size):
            names = [str(user) for user in self.users[start : start + size].tolist()]
            yield [self.contacts.get(name) or Recipient(name) for name in names]


def _latest(log: EventLog) -> Int64:
    """Users by their newest event, newest first; of one instant the one that is longer known comes first."""
    newest = np.zeros(log.n_users, dtype=np.int64)
    newest[log.user] = log.time
    order = np.lexsort((np.arange(log.n_users), -newest))
    return np.asarray(order[newest[order] > 0], dtype=np.int64)


def _contacts(path_text: str) -> tuple[dict[str, Recipient], int]:
    """Recipients by id in the order of the file, and how many rows were repetitions."""
    path = Path(path_text).expanduser()
    if not path.is_file():
        raise DataError(f"{path} does not exist: wanted a file of customers")
    first = next((line.strip() for line in path.open(encoding="utf-8-sig", errors="replace")), "") if _is_text(path) else "user"
    header = None if "user" in first.split(",") or "user" in first.split("\t") else ["user"]
    if header and ("," in first or "\t" in first):
        raise DataError(f"{path}, row 1: wanted an id a line, or a header with the column 'user', found {first[:80]!r}")
    table = read(
        path,
        ("user", "email", "first_name"),
        optional=("email", "first_name"),
        header=header,
        separator="\t" if ".tsv" in path.suffixes else "," if _is_text(path) else None,
    )
    users = table.id_texts("user", required=True)
    emails, names = (table.texts(name) if name in table else np.full(len(table), None) for name in ("email", "first_name"))
    found: dict[str, Recipient] = {}
    for row, (user, email, name) in enumerate(zip(users.tolist(), emails.tolist(), names.tolist(), strict=True)):
        address = email.strip() if email else None
        if address and not is_address(address):
            raise DataError(f"{path}, row {row + (1 if header else 2)}, column 'email': {email!r} is not an e-mail address")
        found.setdefault(user, Recipient(user, address, name))
    return found, len(users) - len(found)


def _unknown(users: Collection[str], log: EventLog) -> list[str]:
    ids = np.array(list(users), dtype=object)
    return ids[log.users.numbers(ids) < 0].tolist()


def _is_text(path: Path) -> bool:
    return path.suffix not in (".parquet", ".gz")
