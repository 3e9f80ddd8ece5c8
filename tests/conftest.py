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
    """Run a script to its end as if its arguments had been typed, in this process: a new one takes seconds to start."""

    def run(script: str, *arguments: str) -> Done:
        for name, value in {"RECSYS_HOME": str(tmp_path), "COLUMNS": "200", "HYDRA_FULL_ERROR": "1"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(ROOT / script), *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        return Done(int(left.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a reader has it who wrote the files that the README shows."""
    from readme import check_out

    folder = tmp_path_factory.mktemp("checkout") / "recsys"
    check_out(folder)
    return folder
