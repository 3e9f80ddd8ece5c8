import json
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.ablation import without
from recsys.errors import ConfigError

ROOT = Path(__file__).parent.parent
CONFIG = {
    "drop": None,
    "features": {"families": ["source", "item"]},
    "retriever": {"sources": ["history", "als"]},
    "ranker": {"trees": 3},
}


def test_without_leaves_one_part_out() -> None:
    assert without(CONFIG) == CONFIG
    assert without(CONFIG | {"drop": "features.item"})["features"] == {"families": ["source"]}
    assert without(CONFIG | {"drop": "retriever.history"})["retriever"] == {"sources": ["als"]}
    assert CONFIG["features"] == {"families": ["source", "item"]}


@pytest.mark.parametrize(
    ("dropped", "told"),
    [
        ("features.itm", r"drop: features.families has no 'itm'.*'item'"),
        ("retriever.alss", r"drop: retriever.sources has no 'alss'.*'als'"),
        ("ranker.trees", r"drop: wanted features.FAMILY, or retriever.SOURCE"),
        ("item", r"drop: wanted features.FAMILY, or retriever.SOURCE"),
    ],
)
def test_a_part_that_is_not_there(dropped: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        without(CONFIG | {"drop": dropped})


def test_a_multirun_ends_with_what_each_part_costs(tmp_path: Path) -> None:
    """The cost is the difference of the runs' own figures, for each metric and part, and its interval holds it."""
    shop = ["debug=quick", "dataset.scale=0.01", "retriever=history", "features=base", "ranker.trees=5", "cache=off"]
    parts = ["features.source", "features.user_item"]
    metrics = ["two_stage/recall_at_5", "two_stage/ndcg_at_20"]
    judged = ["evaluation.ks=[5,20]", "evaluation.shown=[recall_at_5,ndcg_at_20,mrr_at_5]"]
    sweep = [*judged, "experiment=ablation", f"drop=null,{parts[0]},{parts[1]}", f"outputs={tmp_path}"]
    command = [sys.executable, "train.py", "-m", *shop, *sweep]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = done.stdout.partition("What leaving a part out costs")[2]
    assert all(part in table for part in (*parts, "Recall@5", "NDCG@20"))
    [written] = tmp_path.glob("*/ablation.json")
    figures = [json.loads((written.parent / str(job) / "metrics.json").read_text()) for job in range(3)]
    rows = json.loads(written.read_text())
    assert {(row["without"], row["metric"]) for row in rows} == {(part, metric) for part in parts for metric in metrics}
    for row in rows:
        left = figures[1 + parts.index(row["without"])][row["metric"]]
        assert row["cost"] == pytest.approx(figures[0][row["metric"]] - left)
        assert row["low"] <= row["cost"] <= row["high"]
