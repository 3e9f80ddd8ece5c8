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

ROOT = Path(__file__).resolve().parents[2]
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


def open_table(server: str, page: Any) -> Any:
    """The view that the description above the runs links to, which opens in a tab of its own."""
    page.goto("about:blank")
    page.goto(f"{server}/#/experiments/1/runs")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open the table with its columns").click()
    table = opened.value
    table.get_by_text("Sort: two_stage/ndcg_at_10").wait_for()
    for name in RUNS:
        table.get_by_role("link", name=name).wait_for()
    return table


def test_the_table_explains_itself_and_shows_the_headline(home: Path, server: str, page: Any):
    """Its rows hold the figures of the runs' folders, the best run first."""
    table, values = open_table(server, page), figures(home)
    assert set(values) == set(RUNS)
    ranked = sorted(RUNS, key=lambda name: values[name]["two_stage/ndcg_at_10"], reverse=True)
    for row, name in enumerate(ranked):
        cells = table.locator(f'.ag-row[row-index="{row}"]')
        assert name in "".join(cells.all_inner_texts())
        for metric in ("two_stage/ndcg_at_10", "retrieval/ndcg_at_10", "candidates/recall_at_200"):
            cell = cells.locator(f'.ag-cell[col-id*="{metric}"]')
            assert float(cell.inner_text()) == pytest.approx(values[name][metric], abs=1e-9)


def test_three_runs_are_compared(home: Path, server: str, page: Any):
    """Side by side: their names, what was composed differently, and the headline, as it stands in their folders."""
    table, values = open_table(server, page), figures(home)
    table.get_by_role("checkbox", name="Select all runs").click()
    table.get_by_role("button", name="Compare", exact=True).click()
    table.get_by_text("Comparing 3 Runs from 1 Experiment").wait_for()
    heads = table.get_by_role("row").filter(has_text="Run Name:").inner_text().splitlines()
    columns = [head for head in heads if head in RUNS]
    assert set(columns) == set(RUNS)
    table.get_by_role("switch", name="Parameters - Show diff only").click()
    differing = table.inner_text("body").partition("\nParameters\n")[2].partition("\nMetrics\n")[0]
    assert "retriever.factors" in differing
    assert "dataset.scale" not in differing
    assert "output_dir" not in differing
    metric = table.get_by_role("link", name="two_stage/ndcg_at_10", exact=True)
    metrics = table.get_by_role("grid").last  # it draws those rows only that it is scrolled to
    for _ in range(100):
        if metric.count():
            break
        metrics.evaluate("grid => grid.scrollTop += 100")
        table.wait_for_timeout(100)
    height = metric.locator("..").evaluate("cell => cell.style.top")
    shown = metrics.locator(f'[style*="top: {height}"]').all_inner_texts()
    assert [float(text) for text in shown] == pytest.approx(
        [values[name]["two_stage/ndcg_at_10"] for name in columns], abs=0.000501
    )
