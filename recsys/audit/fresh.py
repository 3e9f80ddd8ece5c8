"""Fits in fresh processes: none has run a user's code before, none sees what another saw, and each tells what it opens.

What a process is given lies in a folder: settings as JSON, the world and the order as arrays. No object of the user's is
pickled: components are made from their settings. On Linux one process imports the libraries, and each fit is a fork of it.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from recsys.audit import _watch
from recsys.audit.trace import Order, Trace, trace
from recsys.datasets import kept
from recsys.datasets.base import Dataset, Funnel
from recsys.errors import ConfigError, DataError
from recsys.shop.pools import CandidatePool, Ranking
from recsys.shop.queries import Queries, Truth
from recsys.shop.shop import Shop
from recsys.shop.splits import Task, Window

SERVER = "recsys.audit.fresh"
KNOWN = ("PATH", "HOME", "USER", "LANG", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""Variables of the environment that a fit gets, besides those of these beginnings."""
KNOWN_BEGINNINGS = ("LC_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_", "NUMBA_", "CUDA_", "RECSYS_")


class FitError(Exception):
    """A fit stopped in its process; the message is that of its error."""

    def __init__(self, message: str, details: str) -> None:
        super().__init__(message)
        self.details = details


class Fresh:
    """Fits each order in a process of its own. A context manager: it ends with all that it wrote."""

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="recsys-audit-"))
        self._places = 0
        environment = {k: v for k, v in os.environ.items() if k in KNOWN or k.startswith(KNOWN_BEGINNINGS)}
        environment |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONHASHSEED": "0"}
        self._server = subprocess.Popen(
            [sys.executable, "-m", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._server.stdin.close()  # type: ignore[union-attr]
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
        self._server.stdout.close()  # type: ignore[union-attr]
        shutil.rmtree(self.folder, ignore_errors=True)

    def place(self) -> Path:
        """A new folder, which goes with all others in the end."""
        self._places += 1
        folder = self.folder / str(self._places)
        folder.mkdir()
        return folder

    def trace(self, world: Shop, order: Order) -> Trace:
        """What `recsys.audit.trace.trace` gives, in a new process.

        Raises `ConfigError` and `DataError` as the fit did, and `FitError` for any other end of it.
        """
        folder = self.place()
        _write(world, order, folder)
        self._server.stdin.write(f"{folder}\n")  # type: ignore[union-attr]
        self._server.stdin.flush()  # type: ignore[union-attr]
        ended = self._server.stdout.readline().strip()  # type: ignore[union-attr]
        said = (folder / "output.txt").read_text(errors="replace") if (folder / "output.txt").is_file() else ""
        if (folder / "error.json").is_file():
            error = json.loads((folder / "error.json").read_text())
            for known in (ConfigError, DataError):
                if error["kind"] == known.__name__:
                    raise known(error["message"])
            raise FitError(f"{error['kind']}: {error['message']}", error["traceback"])
        if not (folder / "trace.json").is_file():
            raise FitError(f"the process ended ({ended or 'killed'}) without a result", said)
        result = _read_trace(folder)
        for name in ("world.npz", "trace.npz"):
            (folder / name).unlink(missing_ok=True)
        return result


def _write(world: Shop, order: Order, folder: Path) -> None:
    arrays: dict[str, Any] = kept.to_arrays(Dataset(world.log, world.catalogue, world.customers, "", Funnel(), ""))
    np.savez(folder / "world.npz", **arrays)
    arrays = {} if order.users is None else {"users": order.users}
    for i, (row, item) in enumerate(order.made_up):
        arrays |= {f"made_up_{i}_row": row, f"made_up_{i}_item": item}
    for i, task in enumerate(order.labels or ()):
        arrays |= {f"label_{i}_user": task.queries.user, **_of_truth(f"label_{i}", task.truth)}
    if order.truth is not None:
        arrays |= _of_truth("test", order.truth)
    np.savez(folder / "order.npz", **arrays)
    plain = {
        "settings": order.settings,
        "cutoff": order.cutoff,
        "windows": [(number, window.cutoff, window.end) for number, window in order.windows.items()],
        "labels": None if order.labels is None else len(order.labels),
        "made_up": len(order.made_up),
        "ranker": order.ranker and str(order.ranker),
        "save": order.save and str(order.save),
        "shuffles": order.shuffles,
        "seed": order.seed,
        "path": sys.path,
    }
    (folder / "order.json").write_text(json.dumps(plain))


def _of_truth(name: str, truth: Truth) -> dict[str, Any]:
    return {f"{name}_{part}": getattr(truth, part) for part in ("indptr", "item", "grade")}


def _truth(name: str, arrays: Mapping[str, Any]) -> Truth:
    return Truth(*(arrays[f"{name}_{part}"] for part in ("indptr", "item", "grade")))


def _read_order(plain: Mapping[str, Any], arrays: Mapping[str, Any], world: Shop) -> Order:
    windows = {number: Window(cutoff, end) for number, cutoff, end in plain["windows"]}
    labels = None
    if plain["labels"] is not None:
        labels = []
        for i, window in zip(range(plain["labels"]), windows.values(), strict=True):
            queries = Queries.at(world.before(window.cutoff).log, arrays[f"label_{i}_user"], window.cutoff)
            labels.append(Task(window, queries, _truth(f"label_{i}", arrays), {}))
    return Order(
        settings=plain["settings"],
        cutoff=plain["cutoff"],
        windows=windows,
        users=arrays.get("users"),
        labels=labels,
        ranker=plain["ranker"] and Path(plain["ranker"]),
        save=plain["save"] and Path(plain["save"]),
        made_up=[(arrays[f"made_up_{i}_row"], arrays[f"made_up_{i}_item"]) for i in range(plain["made_up"])],
        truth=_truth("test", arrays) if "test_item" in arrays else None,
        shuffles=plain["shuffles"],
        seed=plain["seed"],
    )


def _write_trace(result: Trace, folder: Path) -> None:
    arrays: dict[str, Any] = {}
    if (pool := result.pool) is not None and result.lists is not None and result.score is not None:
        arrays = {name: getattr(pool, name) for name in ("indptr", "item", "rank", "score", "fusion")}
        arrays |= {"scores": result.score, "list_item": result.lists.item, "list_score": result.lists.score}
    for i, columns in enumerate(result.columns):
        arrays[f"columns_{i}"] = np.stack(list(columns.values()))
    np.savez(folder / "trace.npz", **arrays)
    names = ("parts", "windows", "learns", "reads", "declared", "reopens", "heeds", "shuffled", "opened")
    plain = {name: getattr(result, name) for name in names}
    plain |= {"sources": () if pool is None else pool.sources, "columns": [list(columns) for columns in result.columns]}
    (folder / "trace.json").write_text(json.dumps(plain))


def _read_trace(folder: Path) -> Trace:
    plain = json.loads((folder / "trace.json").read_text())
    sources, columns = tuple(plain.pop("sources")), plain.pop("columns")
    result = Trace(**plain)
    with np.load(folder / "trace.npz", allow_pickle=False) as arrays:
        if "scores" in arrays:
            result.pool = CandidatePool(
                arrays["indptr"], arrays["item"], sources, arrays["rank"], arrays["score"], arrays["fusion"]
            )
            result.score = arrays["scores"]
            result.lists = Ranking(arrays["list_item"], arrays["list_score"])
        result.columns = [dict(zip(names, arrays[f"columns_{i}"], strict=True)) for i, names in enumerate(columns)]
    return result


def _fit(folder: Path) -> None:
    """One fit, in the process that it has for itself."""
    plain = json.loads((folder / "order.json").read_text())
    sys.path[:] = plain["path"]
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = str(folder)
    try:
        with np.load(folder / "world.npz", allow_pickle=False) as arrays:
            world = kept.from_arrays(dict(arrays))
        with np.load(folder / "order.npz", allow_pickle=False) as arrays:
            order = _read_order(plain, dict(arrays), world)
        opened = _watch.opened(folder.parent)
        result = trace(Shop(world.log, world.catalogue, world.customers), order)
        _write_trace(dataclasses.replace(result, opened=sorted(opened)), folder)
    except Exception as error:
        kind = next((k.__name__ for k in (ConfigError, DataError) if isinstance(error, k)), type(error).__name__)
        about = {"kind": kind, "message": str(error), "traceback": traceback.format_exc()}
        (folder / "error.json").write_text(json.dumps(about))


def _apart(folder: Path) -> int:
    """Fit in a process of its own; gives its exit code."""
    if sys.platform != "linux":
        return subprocess.run([sys.executable, "-m", SERVER, str(folder)], stdin=subprocess.DEVNULL).returncode
    if (child := os.fork()) == 0:
        try:
            output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT)
            for stream in (1, 2):
                os.dup2(output, stream)
            os.close(0)
            _fit(folder)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Fit what is in the folder that is named, or in the folders whose names come in, line by line."""
    if len(sys.argv) > 1:
        _fit(Path(sys.argv[1]))
        return
    for line in sys.stdin:
        print(_apart(Path(line.strip())), flush=True)


if __name__ == "__main__":
    main()
