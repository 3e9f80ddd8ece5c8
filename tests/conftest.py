import importlib
import importlib.util
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

ROOT = Path(__file__).resolve().parent.parent


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a script to its end as if it had been typed in `home`, in this process: a new one takes seconds to start."""

    def run(script: str, *arguments: str, home: Path = tmp_path) -> Done:
        for name, value in {"RECSYS_HOME": str(home), "COLUMNS": "200", "HYDRA_FULL_ERROR": "1"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(home)
        monkeypatch.setattr(sys, "argv", [str(ROOT / script), *arguments])
        capfd.readouterr()
        code = 0
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as left:
            code = int(left.code or 0)
        return Done(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a reader has it who wrote the files that the README shows."""
    from readme import check_out

    folder = tmp_path_factory.mktemp("checkout") / "recsys"
    check_out(folder)
    return folder


@pytest.fixture
def package(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkout with its own modules found by `import recsys.…`, those that the README adds too."""
    from readme import README, blocks

    for block in blocks(README):
        if block.file and block.file.endswith(".py") and block.file.startswith("recsys/"):
            name = block.file.removesuffix(".py").replace("/", ".")
            spec = importlib.util.spec_from_file_location(name, checkout / block.file)
            assert spec
            assert spec.loader
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, module)
            monkeypatch.setattr(
                importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2], module, raising=False
            )
            spec.loader.exec_module(module)
    return checkout
