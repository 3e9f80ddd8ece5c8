"""One entry on the disk: a folder with a mark that tells whose it is, and with the checksum of each of its files."""

import json
import os
import re
import shutil
import stat
import uuid
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

MARK = "CACHEDIR.TAG"
"""File by which an entry is known, and by which backups leave it out (https://bford.info/cachedir/)."""
MARK_TEXT = """Signature: 8a477f597d28d172789f06886806bc55
# An entry of the stage cache of recsys, which may remove this folder at any time.
"""
CHECKSUMS = "checksums.json"
CHUNK = 1 << 20
"""Bytes read at a time."""
BLOCK = 1 << 12
"""Bytes that a checksum sums up."""
_DRAFT = re.compile(r"\.[0-9a-f]{32}")
_verified: set[tuple[str, int, int, int]] = set()
"""Files whose content this process has seen to be what was written: path, inode, time of change, size."""


def draft_path(folder: Path) -> Path:
    """A new place in `folder` for what is not an entry yet, or no longer."""
    return folder / f".{uuid.uuid4().hex}"


def is_draft(path: Path) -> bool:
    """Whether the cache made `path` as a draft."""
    return bool(_DRAFT.fullmatch(path.name)) and is_marked(path)


def is_marked(folder: Path) -> bool:
    """Whether `folder` is a folder, no link to one, that holds the cache's own mark."""
    mark = folder / MARK
    with suppress(OSError, UnicodeError):
        if stat.S_ISDIR(folder.lstat().st_mode) and stat.S_ISREG(mark.lstat().st_mode):
            return mark.read_text() == MARK_TEXT
    return False


def begin(draft: Path) -> None:
    """Make the folder of a draft."""
    draft.mkdir(parents=True)
    (draft / MARK).write_text(MARK_TEXT)


def seal(draft: Path) -> None:
    """Note the checksums of the draft's files, and see to it that all of it is on the disk."""
    names = sorted(path.relative_to(draft).as_posix() for path in _files(draft) if path.name != MARK)
    with ThreadPoolExecutor() as workers:
        sums = list(workers.map(lambda name: _checksum(draft / name), names))
    listed = {name: [(draft / name).stat().st_size, value] for name, value in zip(names, sums, strict=True)}
    (draft / CHECKSUMS).write_text(json.dumps(listed))
    for file in _files(draft):
        _sync(file, os.O_RDWR)
    for folder, _, _ in os.walk(draft, topdown=False):
        sync_folder(Path(folder))


def verify(entry: Path) -> None:
    """Raise `ValueError` or `OSError` unless the entry's files hold what was written; a process reads a file once for it."""
    if not is_marked(entry):
        raise ValueError(f"there is no {MARK} of the cache in it")
    listed = json.loads((entry / CHECKSUMS).read_text())
    with ThreadPoolExecutor() as workers:
        list(workers.map(lambda item: _verify(entry, item[0], *item[1]), listed.items()))


def remove(folder: Path) -> None:
    """Remove a marked folder that others may be reading: it leaves its place at once, then go its files, the mark last."""
    if not is_marked(folder):
        return
    trash = draft_path(folder.parent)
    with suppress(OSError):
        folder.rename(trash)
        for path in trash.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != MARK:
                path.unlink()
        (trash / MARK).unlink()
        trash.rmdir()


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.lstat().st_size for path in _files(folder))


def sync_folder(folder: Path) -> None:
    """See to it that the names in a folder are on the disk."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync(folder, os.O_RDONLY)


def _files(folder: Path) -> Iterator[Path]:
    yield from (Path(place, name) for place, _, names in os.walk(folder) for name in names)


def _verify(entry: Path, name: str, length: int, checksum: int) -> None:
    file = entry / name
    status = file.stat()
    state = (str(file), status.st_ino, status.st_mtime_ns, status.st_size)
    if state in _verified:
        return
    if status.st_size != length or _checksum(file) != checksum:
        raise ValueError(f"{name} is not as it was written")
    _verified.add(state)


def _checksum(file: Path) -> int:
    """CRC-32 of the sums of each `BLOCK`'s 64-bit words: as fast as memory, and no lost, changed or misplaced block escapes."""
    value, words = 0, np.zeros(CHUNK // 8, dtype="<u8")
    octets = words.data.cast("B")
    with file.open("rb") as opened:  # read rather than mapped: an error of the disk is an exception then
        while length := opened.readinto(octets):
            octets[length:] = bytes(CHUNK - length)
            value = zlib.crc32(words.reshape(-1, BLOCK // 8).sum(axis=1), value)
    return value


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
