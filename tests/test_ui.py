"""What a person sees who types `make ui`: the real server, in a real browser."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("dataset.scale=0.01", "features=base", "split.label_cutoffs=2", "cache=off", "tracking.log_model=false")
RUNS = {
    "als · lambdarank · base · synthetic": ("retriever=als",),
    "history · none · base · synthetic": ("retriever=history", "ranker=none"),
    "als · none · base · synthetic · factors=8": ("retriever=als", "ranker=none", "retriever.factors=8"),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1700, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def home(page: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with three runs."""
    folder = tmp_path_factory.mktemp("home")
    for choices in RUNS.values():
        command = [sys.executable, str(ROOT / "train.py"), f"outputs={folder / 'outputs'}", *SMALL, *choices]
        done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    """The address of what `make ui` starts, here on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "recsys.tracking", "--port", str(port), "--workers", "1"]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=home, env=environment(home), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (home / "server.log").read_text()
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "RECSYS_PARENT_RUN")}
    return {**kept, "RECSYS_HOME": str(home), "OMP_NUM_THREADS": "1"}


def figures(home: Path) -> dict[str, dict[str, float]]:
    """Each run's metrics by the run's name, from its folder."""
    folders = [path.parent for path in (home / "outputs").glob("*/metrics.json") if not path.parent.is_symlink()]
    return {
        json.loads((folder / "run.json").read_text())["name"]: json.loads((folder / "metrics.json").read_text())
        for folder in folders
    }


def test_make_ui_is_this_server():
    assert "-m recsys.tracking" in (ROOT / "Makefile").read_text().partition("\nui:")[2].splitlines()[1]


def test_the_table_explains_itself_and_shows_the_headline(home: Path, server: str, page: Any):
    """The description stands above the runs; the view that it links to has the columns, the best run first."""
    page.goto(f"{server}/#/experiments/1/runs")
    link = page.get_by_role("link", name="Open the table with its columns")
    target = link.get_attribute("href")
    page.goto("about:blank")
    page.goto(f"{server}/{target[target.index('#') :]}")
    page.get_by_text("Sort: two_stage/ndcg_at_10").wait_for()
    values = figures(home)
    assert set(values) == set(RUNS)
    for name in RUNS:
        page.get_by_text(name).first.wait_for()
    shown = page.inner_text("body")
    for column in ("two_stage/ndcg_at_10", "retrieval/ndcg_at_10", "candidates/recall_at_200"):
        assert column in shown
    best = max(values, key=lambda name: values[name]["two_stage/ndcg_at_10"])
    assert min(RUNS, key=shown.index) == best
    for metrics in values.values():
        assert f"{metrics['retrieval/ndcg_at_10']:.10f}"[:8] in shown


def test_three_runs_are_compared(home: Path, server: str, page: Any):
    page.goto(f"{server}/#/experiments/1/runs?viewStateShareKey=recsys")
    page.get_by_role("checkbox", name="Select all runs").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("Comparing 3 Runs from 1 Experiment").wait_for()
    page.get_by_text("two_stage/ndcg_at_10", exact=True).first.wait_for()
    shown = page.inner_text("body")
    assert all(name in shown for name in figures(home))
