"""Which files and addresses a process opens besides code, libraries and a folder of its own."""

import functools
import importlib
import os
import site
import sys
import sysconfig
from pathlib import Path
from typing import Any

CODE = (".py", ".pyc", ".pyi", ".pyd", ".so", ".dylib", ".dll", ".pth", ".nbi", ".nbc")
SYSTEM = ("/proc", "/sys", "/dev/null", "/dev/urandom", "/dev/random", "/etc", "/usr/lib", "/usr/share/zoneinfo", "/lib")
NATIVE = {
    "pyarrow": ("memory_map", "OSFile"),
    "pyarrow.parquet": ("read_table", "read_metadata", "read_schema", "ParquetFile", "ParquetDataset"),
    "pyarrow.csv": ("read_csv", "open_csv"),
    "pyarrow.feather": ("read_table", "read_feather"),
    "pyarrow.dataset": ("dataset",),
    "pyarrow.ipc": ("open_file",),
}
"""Functions of libraries that open files without Python's knowledge: their first argument is noted."""
CALLS = {
    "socket.connect": "the network",
    "sqlite3.connect": "a database",
    "subprocess.Popen": "the program",
    "os.system": "the program",
}
PROGRAMS = ("lscpu", "ldconfig", "uname", "nvidia-smi")
"""What libraries ask to know the machine."""


def opened(own: Path) -> set[str]:
    """Watch this process from now on: gives a set that fills with what it opens to read, as paths and, otherwise, in words."""
    found: set[str] = set()
    libraries: set[str] = {sys.prefix, sys.base_prefix, *site.getsitepackages(), site.getusersitepackages()}
    libraries |= {path for name in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(name))}
    package = str(Path(__file__).resolve().parents[1])
    passed = tuple(f"{os.path.realpath(place)}{os.sep}" for place in (*libraries, package, str(own))) + SYSTEM

    def note(path: Any) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            whole = str(os.path.realpath(os.fsdecode(path)))
            if not whole.endswith(CODE) and not whole.startswith(passed) and os.path.isfile(whole):
                found.add(whole)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if (flags or 0) & (os.O_WRONLY | os.O_RDWR) != os.O_WRONLY:
                note(path)
        elif event in CALLS:
            what = str(arguments[1] if event == "socket.connect" else arguments[0])
            if os.path.basename(what) not in PROGRAMS:
                found.add(f"{CALLS[event]} {what}")

    for module, names in NATIVE.items():
        library = importlib.import_module(module)
        for name in names:
            setattr(library, name, _noted(getattr(library, name), note))
    sys.addaudithook(heard)
    return found


def _noted(function: Any, note: Any) -> Any:
    @functools.wraps(function, updated=())
    def call(*arguments: Any, **named: Any) -> Any:
        note(next(iter((*arguments, *named.values())), None))
        return function(*arguments, **named)

    return call
