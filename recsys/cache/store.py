"""The entries of a folder: looked up by key, made where they are missing, dropped when there is no room.

An entry is a folder named by its step and the hash of all that it depends on: settings, data, cutoff, queries, files, and the
code that made it. It is written next to its place and renamed: it is there whole or not at all, however many write at once and
whenever a writer is stopped. The entries used longest ago go when there is no room.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from pydantic import PositiveFloat

from recsys.cache import entry as on_disk
from recsys.cache.code import code_of
from recsys.component import Component, component
from recsys.digest import digest

Step = Literal["dataset", "retriever", "pool", "features"]
Arrays = dict[str, npt.NDArray[Any]]
Made = TypeVar("Made")
Fitted = TypeVar("Fitted", bound=Component)

STEPS: tuple[Step, ...] = get_args(Step)
MAPPED = 1 << 20
"""Bytes of a file from which on it is mapped into memory rather than read."""
DRAFT_AGE = 3600 * 24
"""Seconds after which an unfinished entry is taken for one whose writer was stopped."""
_NAME = re.compile(rf"({'|'.join(STEPS)})-[0-9a-f]{{32}}")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """What one folder of the cache holds."""

    step: str
    path: Path
    size: int
    """Bytes."""
    used: float
    """When it was written or last read, in seconds since the epoch."""


@component
class NoCache(Component):
    """Keeps nothing: everything is made each time."""

    def fitted(self, step: Step, template: Fitted, depends: Callable[[], Any], fit: Callable[[], Fitted]) -> Fitted:
        """A component with the settings of `template`, as `fit` returns it or as it was fitted before under the same key."""
        return fit()

    def arrays(self, step: Step, template: Component, depends: Callable[[], Any], make: Callable[[], Arrays]) -> Arrays:
        """What `make` returns with the help of `template`, or returned before under the same key."""
        return self.packed(step, template, depends, make, pack=dict, unpack=dict)

    def packed(
        self,
        step: Step,
        template: Component,
        depends: Callable[[], Any],
        make: Callable[[], Made],
        pack: Callable[[Made], Arrays],
        unpack: Callable[[Arrays], Made],
    ) -> Made:
        """As `arrays`, for what can be turned into arrays and back: only what is written and read is."""
        return make()


@component
class StageCache(NoCache):
    """Keeps entries of at most `max_gb` gigabytes together in `folder`, which processes may share.

    A key is made of the step, the settings of the component (`template`), the content of the files that it reads
    (`Component.files`), whatever else the entry `depends` on (see `digest`), and the code that it and the functions given can
    run (`code_of`). Where the files or the code are unknown, nothing is kept. An entry that cannot be read is made again; one
    that cannot be written does no harm.
    """

    folder: Path
    max_gb: PositiveFloat = 10.0

    def fitted(self, step: Step, template: Fitted, depends: Callable[[], Any], fit: Callable[[], Fitted]) -> Fitted:
        """See `NoCache.fitted`. A component of a package that is not trusted (`Component.trusted`) is fitted each time."""
        if any(type(part).__module__.partition(".")[0] not in Component.trusted for part in template.components()):
            return fit()
        place = self._place(step, template, depends, fit)
        return self._of(place, fit, lambda made, folder: made.save(folder), type(template).open)

    def packed(
        self,
        step: Step,
        template: Component,
        depends: Callable[[], Any],
        make: Callable[[], Made],
        pack: Callable[[Made], Arrays],
        unpack: Callable[[Arrays], Made],
    ) -> Made:
        """See `NoCache.packed`."""
        return self._of(
            self._place(step, template, depends, make, pack, unpack),
            make,
            lambda made, folder: _write_arrays(pack(made), folder),
            lambda folder: unpack(_read_arrays(folder)),
        )

    def entries(self) -> list[Entry]:
        """All entries, the one used longest ago first."""
        found = [_entry(path) for path in self._paths() if _NAME.fullmatch(path.name) and on_disk.is_marked(path)]
        return sorted((entry for entry in found if entry), key=lambda entry: (entry.used, entry.path.name))

    def drafts(self) -> list[Path]:
        """What is being written or removed, or was when a process was stopped."""
        return [path for path in self._paths() if on_disk.is_draft(path)]

    def clear(self) -> int:
        """Remove all entries and drafts, and nothing else that may be in the folder; returns the number of entries."""
        entries = self.entries()
        for path in [entry.path for entry in entries] + self.drafts():
            on_disk.remove(path)
        return len(entries)

    def _place(
        self, step: Step, template: Component, depends: Callable[[], Any], *functions: Callable[..., Any]
    ) -> Path | None:
        """Where the entry is or belongs; `None` where what it depends on is not known."""
        files = _files(template)
        if files is None:
            return None
        code = code_of(template, *functions)
        if code is None:
            return None
        return self.folder / f"{step}-{digest(template.settings(), depends(), files, code)}"

    def _of(
        self,
        place: Path | None,
        make: Callable[[], Made],
        write: Callable[[Made, Path], None],
        read: Callable[[Path], Made],
    ) -> Made:
        if place is None:
            return make()
        if os.path.lexists(place):
            try:
                on_disk.verify(place)
                found = read(place)
            except Exception as error:  # whatever is wrong with it, it can be made
                log.warning("cache: %s cannot be read (%s) and is made again", place, _line(error))
                on_disk.remove(place)
            else:
                with suppress(OSError):
                    os.utime(place)
                return found
        made = make()
        self._keep(place, lambda draft: write(made, draft))
        return made

    def _keep(self, place: Path, write: Callable[[Path], None]) -> None:
        draft = on_disk.draft_path(self.folder)
        try:
            on_disk.begin(draft)
            write(draft)
            on_disk.seal(draft)
            self._make_room(on_disk.size(draft))
            draft.rename(place)
            on_disk.sync_folder(self.folder)
        except BaseException as error:
            on_disk.remove(draft)
            if not isinstance(error, Exception):
                raise
            if not on_disk.is_marked(place):  # else another process was faster, with the same content
                log.warning("cache: %s cannot be written: %s", place, _line(error))

    def _make_room(self, size: int) -> None:
        """Remove what was used longest ago until `size` more bytes fit."""
        for draft in self.drafts():
            with suppress(OSError):
                if time.time() - draft.stat().st_mtime > DRAFT_AGE:
                    on_disk.remove(draft)
        entries = self.entries()
        excess = sum(entry.size for entry in entries) + size - self.max_gb * 1e9
        for entry in entries:
            if excess <= 0:
                return
            on_disk.remove(entry.path)
            excess -= entry.size

    def _paths(self) -> Iterator[Path]:
        yield from self.folder.iterdir() if self.folder.is_dir() else ()


def _files(template: Component) -> list[tuple[str, str]] | None:
    """Path and hash of the files that a component and those in it read; `None` where they are not known or not there."""
    found: list[tuple[str, str]] = []
    for part in template.components():
        files = part.files()
        if files is None:
            return None
        try:
            found += [(str(file), _content(file)) for file in files]
        except OSError:
            return None
    return found


def _content(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").hexdigest()


def _write_arrays(arrays: Arrays, folder: Path) -> None:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    (folder / "names.json").write_text(json.dumps(list(arrays)))


def _read_arrays(folder: Path) -> Arrays:
    return {name: _read_array(folder / f"{name}.npy") for name in json.loads((folder / "names.json").read_text())}


def _read_array(file: Path) -> npt.NDArray[Any]:
    """The array. A large one is mapped: processes share it, only what is used is read, and writing to it changes a copy."""
    mapped: Literal["c"] | None = "c" if file.stat().st_size >= MAPPED else None
    return np.asarray(np.load(file, mmap_mode=mapped, allow_pickle=False))


def _entry(path: Path) -> Entry | None:
    try:
        return Entry(path.name.partition("-")[0], path, on_disk.size(path), path.stat().st_mtime)
    except OSError:  # another process removed it
        return None


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
