"""Who has been written to: a file that a crash at any moment leaves right.

A letter is `claimed` on disk before the request that carries it starts, and `sent` once the service said that it took it. A
claim that is found later is uncertain: the request may or may not have arrived. It is never sent again before the service's own
log, or a person, has said that it was not taken:

    python scripts/ledger.py outputs/ledger.sqlite
    python scripts/ledger.py outputs/ledger.sqlite --batch 3f2a… --taken yes

Addresses are kept as hashes only.
"""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from recsys.digest import digest
from recsys.errors import ConfigError

State = Literal["claimed", "sent", "refused"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS letters (
    key TEXT PRIMARY KEY, mailing TEXT NOT NULL, user TEXT NOT NULL, batch TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('claimed', 'sent', 'refused')), time REAL NOT NULL, note TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS letters_batch ON letters (batch);
CREATE TABLE IF NOT EXISTS facts (
    mailing TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (mailing, name)
) WITHOUT ROWID;
"""


def letter_key(mailing: str, address: str) -> str:
    """What names a letter to one address of one mailing, here and in the service's log."""
    return digest("letter", mailing, address.lower())


@dataclass(frozen=True)
class Claim:
    """A batch whose request may or may not have been taken. `time` is when it last left, in seconds of the epoch."""

    batch: str
    mailing: str
    time: float
    users: tuple[str, ...]


class Ledger:
    """The file. One process at a time: opening it raises `ConfigError` while another has it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path, isolation_level=None, timeout=1)
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            with self._all_or_nothing():
                for statement in _SCHEMA.split(";"):
                    self._database.execute(statement)
        except sqlite3.Error as error:
            busy = "another sender is at work on it" if "locked" in str(error) else str(error)
            raise ConfigError(f"{path}: cannot open the ledger: {busy}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._database.close()

    def states(self, mailing: str) -> dict[str, State]:
        """Every letter of the mailing that was ever claimed and not released, by its key."""
        return dict(self._database.execute("SELECT key, state FROM letters WHERE mailing = ?", [mailing]))

    def claims(self, mailing: str | None = None) -> list[Claim]:
        """The batches that are uncertain, oldest first."""
        rows = self._database.execute(
            "SELECT batch, mailing, time, user FROM letters WHERE state = 'claimed' AND mailing = coalesce(?, mailing) "
            "ORDER BY time, batch, user",
            [mailing],
        )
        users: dict[tuple[str, str, float], list[str]] = {}
        for batch, of, claimed, user in rows:
            users.setdefault((batch, of, claimed), []).append(user)
        return [Claim(*head, tuple(names)) for head, names in users.items()]

    def refused(self, mailing: str) -> dict[str, str]:
        """The users whose letters the service will not take, and why."""
        found = self._database.execute("SELECT user, note FROM letters WHERE mailing = ? AND state = 'refused'", [mailing])
        return dict(found)

    def left_at(self, batch: str) -> float:
        """When the request of a claimed batch last left, in seconds of the epoch; 0 for one that is not claimed."""
        found = self._database.execute("SELECT max(time) FROM letters WHERE batch = ? AND state = 'claimed'", [batch])
        return float(found.fetchone()[0] or 0)

    def references(self, mailing: str) -> dict[str, str]:
        """What the service called each batch that it took."""
        found = self._database.execute(
            "SELECT DISTINCT batch, note FROM letters WHERE mailing = ? AND state = 'sent'", [mailing]
        )
        return dict(found)

    def claim(self, mailing: str, batch: str, letters: Sequence[tuple[str, str]]) -> None:
        """Mark (key, user) pairs as about to be sent. On disk when this returns; all of them or none."""
        now = time.time()
        with self._all_or_nothing():
            self._database.executemany(
                "INSERT INTO letters (key, mailing, user, batch, state, time) VALUES (?, ?, ?, ?, 'claimed', ?)",
                [(key, mailing, user, batch, now) for key, user in letters],
            )

    def leaves(self, batch: str) -> None:
        """The request of a claimed batch leaves now. On disk when this returns."""
        self._database.execute("UPDATE letters SET time = ? WHERE batch = ? AND state = 'claimed'", [time.time(), batch])

    def sent(self, batch: str, reference: str) -> None:
        """The service took the batch, and calls it `reference`."""
        self._database.execute(
            "UPDATE letters SET state = 'sent', note = ? WHERE batch = ? AND state = 'claimed'", [reference, batch]
        )

    def release(self, batch: str) -> None:
        """The service did not take the batch: its letters are to be sent again."""
        self._database.execute("DELETE FROM letters WHERE batch = ? AND state = 'claimed'", [batch])

    def refuse(self, key: str, why: str) -> None:
        """The service will not take this letter, whenever it is sent."""
        self._database.execute("UPDATE letters SET state = 'refused', note = ? WHERE key = ?", [why, key])

    def fact(self, mailing: str, name: str) -> str | None:
        """What `note_fact` noted; None where it noted nothing."""
        row = self._database.execute("SELECT value FROM facts WHERE mailing = ? AND name = ?", [mailing, name]).fetchone()
        return row[0] if row else None

    def note_fact(self, mailing: str, name: str, value: str) -> None:
        """Note something of the mailing as a whole, such as the id of its campaign. On disk when this returns."""
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", [mailing, name, value])

    def _all_or_nothing(self) -> "_Transaction":
        return _Transaction(self._database)


class _Transaction:
    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database

    def __enter__(self) -> None:
        self.database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.database.execute("ROLLBACK" if kind else "COMMIT")
