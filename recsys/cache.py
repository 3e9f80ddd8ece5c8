"""The stage cache: datasets, fitted retrievers, pools and features by content, so that a new ranker never refits a retriever.

An entry is a folder named by the hash of all that it depends on: settings, data, cutoff, queries, and the source code and
libraries that made it. It is written beside its place and renamed: it is there whole or not at all, however many write at
once and whenever a writer is stopped. The entries used longest ago go when there is no room.
"""

import importlib
import importlib.metadata
import inspect
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import PositiveFloat

from recsys.component import Component, component
from recsys.digest import digest
from recsys.errors import ConfigError, DataError

Stage = Literal["dataset", "retriever", "pool", "features"]
Arrays = dict[str, npt.NDArray[Any]]
Made = TypeVar("Made")
Fitted = TypeVar("Fitted", bound=Component)

STAGES: tuple[Stage, ...] = ("dataset", "retriever", "pool", "features")
MAPPED = 1 << 20
"""Bytes of a file from which on it is mapped into memory rather than read."""
DRAFT_AGE = 3600 * 24
"""Seconds after which an unfinished entry is taken for one whose writer was stopped."""

_CORE = ("component.py", "shop", "retrieval")
_CODE: dict[Stage, tuple[str, ...]] = {
    "dataset": ("datasets", "shop"),
    "retriever": _CORE,
    "pool": _CORE,
    "features": (*_CORE, "features"),
}
_LIBRARIES = ("numpy", "scipy", "pandas", "pyarrow", "implicit", "scikit-learn", "lightgbm", "torch")
_BROKEN = (OSError, ValueError, KeyError, EOFError, DataError, ConfigError)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """What one folder of the cache holds."""

    stage: str
    path: Path
    size: int
    """Bytes."""
    used: float
    """When it was written or last read, in seconds of the epoch."""


@component
class NoCache(Component):
    """Keeps nothing: everything is made anew."""

    def fitted(self, stage: Stage, template: Fitted, depends: Callable[[], Any], fit: Callable[[], Fitted]) -> Fitted:
        """A component of the settings of `template`, as `fit` gives it or as it was fitted before under the same key."""
        return fit()

    def arrays(self, stage: Stage, template: Component, depends: Callable[[], Any], make: Callable[[], Arrays]) -> Arrays:
        """What `make` gives with the help of `template`, or gave before under the same key."""
        return self.packed(stage, template, depends, make, pack=dict, unpack=dict)

    def packed(
        self,
        stage: Stage,
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

    A key is made of the stage, the settings of the component (`template`), whatever else the entry `depends` on (see `digest`),
    and `code_version`. An entry that cannot be read is made anew; one that cannot be written does no harm.
    """

    folder: Path
    max_gb: PositiveFloat = 10.0

    def fitted(self, stage: Stage, template: Fitted, depends: Callable[[], Any], fit: Callable[[], Fitted]) -> Fitted:
        """See `NoCache.fitted`. A component of a package that is not trusted (`Component.trusted`) is always fitted anew."""
        if any(root not in Component.trusted for root in _packages(template.settings())):
            return fit()
        return self._of(
            stage, self._place(stage, template, depends), fit, lambda made, folder: made.save(folder), type(template).open
        )

    def packed(
        self,
        stage: Stage,
        template: Component,
        depends: Callable[[], Any],
        make: Callable[[], Made],
        pack: Callable[[Made], Arrays],
        unpack: Callable[[Arrays], Made],
    ) -> Made:
        """See `NoCache.packed`."""
        return self._of(
            stage,
            self._place(stage, template, depends),
            make,
            lambda made, folder: _write_arrays(pack(made), folder),
            lambda folder: unpack(_read_arrays(folder)),
        )

    def entries(self) -> list[Entry]:
        """All entries, the one used longest ago first."""
        found = [_entry(path) for path in self._folders()]
        return sorted((entry for entry in found if entry), key=lambda entry: (entry.used, entry.path.name))

    def clear(self) -> int:
        """Remove all entries, and what interrupted writers left; gives the number of entries."""
        entries = self.entries()
        for path in [entry.path for entry in entries] + list(self._drafts()):
            _remove(path)
        return len(entries)

    def _place(self, stage: Stage, template: Component, depends: Callable[[], Any]) -> Path:
        settings = template.settings()
        return self.folder / f"{stage}-{digest(settings, depends(), code_version(stage, *_foreign_files(settings)))}"

    def _of(
        self,
        stage: Stage,
        place: Path,
        make: Callable[[], Made],
        write: Callable[[Made, Path], None],
        read: Callable[[Path], Made],
    ) -> Made:
        if place.is_dir():
            try:
                found = read(place)
            except _BROKEN as error:
                log.warning("cache: %s cannot be read (%s) and is made anew", place, error)
                _remove(place)
            else:
                with suppress(OSError):
                    os.utime(place)
                return found
        made = make()
        draft = self.folder / f".{uuid.uuid4().hex}"
        try:
            draft.mkdir(parents=True)
            write(made, draft)
            self._make_room(_size(draft))
            draft.rename(place)
        except OSError as error:
            _remove(draft)
            if not place.is_dir():  # else another process was faster, with the same content
                log.warning("cache: %s cannot be written: %s", place, error)
        except BaseException:
            _remove(draft)
            raise
        return made

    def _make_room(self, size: int) -> None:
        """Remove what was used longest ago until `size` more bytes fit."""
        for draft in self._drafts():
            with suppress(OSError):
                if time.time() - draft.stat().st_mtime > DRAFT_AGE:
                    _remove(draft)
        entries = self.entries()
        excess = sum(entry.size for entry in entries) + size - self.max_gb * 1e9
        for entry in entries:
            if excess <= 0:
                return
            _remove(entry.path)
            excess -= entry.size

    def _folders(self) -> Iterator[Path]:
        yield from (path for stage in STAGES for path in self.folder.glob(f"{stage}-*"))

    def _drafts(self) -> Iterator[Path]:
        yield from (path for path in self.folder.glob(".*") if len(path.name) == 33)


@cache
def code_version(stage: Stage, *files: Path) -> str:
    """Hash of the package's source files that a stage's result depends on, of `files`, and of the libraries' versions."""
    home = Path(__file__).parent
    sources = [
        path
        for name in _CODE[stage]
        for path in ([home / name] if name.endswith(".py") else sorted((home / name).rglob("*.py")))
    ]
    return digest([path.read_bytes() for path in (*sources, *files)], [_version(library) for library in _LIBRARIES])


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _classes(settings: Any) -> Iterator[str]:
    """The `_target_`s at any depth."""
    if isinstance(settings, dict):
        if "_target_" in settings:
            yield settings["_target_"]
        settings = list(settings.values())
    if isinstance(settings, list):
        for value in settings:
            yield from _classes(value)


def _packages(settings: Any) -> set[str]:
    return {name.partition(".")[0] for name in _classes(settings)}


def _foreign_files(settings: Any) -> list[Path]:
    """Source files of the classes that are not of this package."""
    modules = {name.rpartition(".")[0] for name in _classes(settings)}
    files = [inspect.getsourcefile(importlib.import_module(name)) for name in modules if name.partition(".")[0] != "recsys"]
    return sorted(Path(file) for file in files if file)


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
        return Entry(path.name.partition("-")[0], path, _size(path), path.stat().st_mtime)
    except OSError:  # another process removed it
        return None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(folder: Path) -> None:
    """Remove a folder that others may be reading: it leaves its place at once, and its files after that."""
    trash = folder.with_name(f".{uuid.uuid4().hex}")
    with suppress(OSError):
        folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
