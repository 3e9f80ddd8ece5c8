"""The notebooks as a reader runs them: top to bottom, on the synthetic shop and, with one cell changed, on an own CSV."""

from pathlib import Path

import jupytext
import nbclient
import numpy as np
import pandas as pd
import pytest

HOME = Path(__file__).parent.parent
NOTEBOOKS = sorted((HOME / "notebooks").glob("*.py"))
CELL = "DATASET = "


def _read(path):
    notebook = jupytext.read(path)
    [cell] = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith(CELL)]
    return notebook, cell


def _run(notebook, folder, monkeypatch):
    """Execute in `folder`, with a project folder of its own; gives the figures and everything else that was shown.

    Nothing may come on stderr: a reader takes a library's warning for a mistake of their own.
    """
    for name, value in {"RECSYS_HOME": folder, "OMP_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    shown = [output.get("text") or output["data"].get("text/plain", "") for output in outputs if output.output_type != "error"]
    return [output for output in outputs if "image/png" in output.get("data", {})], "\n".join(shown)


def _shop(path):
    """Sixty customers who come back to their own six of forty products, which they view, put into the cart, or buy."""
    rng = np.random.default_rng(7)
    n = 3000
    user = rng.integers(60, size=n)
    item = (5 * (user % 8) + rng.integers(6, size=n)) % 40
    columns = {
        "uid": np.char.add("u", user.astype(str)),
        "sku": np.char.add("p", item.astype(str)),
        "ts": 1_700_000_000 + np.sort(rng.integers(60 * 86_400, size=n)),
        "what": rng.choice(["pv", "cart", "buy"], size=n, p=[0.6, 0.2, 0.2]),
        "price": (item + 1) / 2,
        "title": np.char.add("Product no. ", item.astype(str)),
    }
    pd.DataFrame(columns).to_csv(path, index=False)


def test_there_are_five_and_the_cell_to_change_is_the_same_in_all():
    assert [path.stem[0] for path in NOTEBOOKS] == list("12345")
    assert len({_read(path)[1].source for path in NOTEBOOKS}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_top_to_bottom_on_the_synthetic_shop(path, tmp_path, monkeypatch):
    notebook, _ = _read(path)
    figures, shown = _run(notebook, tmp_path, monkeypatch)
    assert figures
    assert "Traceback" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_an_own_csv_with_one_cell_changed(path, tmp_path, monkeypatch):
    _shop(tmp_path / "shop.csv")
    notebook, cell = _read(path)
    cell.source = """
from recsys.datasets.table import Csv
names = {"user": "uid", "item": "sku", "time": "ts", "event": "what", "price": "price", "name": "title"}
kinds = {"pv": "view", "cart": "addtocart", "buy": "transaction"}
DATASET = Csv(path="shop.csv", columns=names, time_unit="s", events=kinds)
"""
    figures, shown = _run(notebook, tmp_path, monkeypatch)
    assert figures
    assert "shop" in shown
    assert "synthetic" not in shown
