"""The benchmark on a shop of a few seconds: what it measures is there and sound; how fast it is stands in its own table."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from scripts import benchmark

PARTS = [part for part in benchmark.PARTS if part != "rerun"]
"""`rerun` starts the main job twice."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict:
    written = tmp_path_factory.mktemp("benchmark") / "speed.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "ENOUGH", 0.0)
        patch.setattr(benchmark, "QUERIES", 60 / benchmark.WARM_UP)
        assert benchmark.main([*PARTS, "--scale", str(benchmark.WARM_UP), "--out", str(written)]) == 0
    return json.loads(written.read_text())


def test_every_row_is_finite_and_positive(told: dict) -> None:
    assert {row["part"] for row in told["rows"]} == set(PARTS)
    for row in told["rows"]:
        assert all(math.isfinite(row[name]) and row[name] > 0 for name in ("own", "other", "ratio", "promised")), row
        assert row["ratio"] == row["own"] / row["other"]
    assert told["events"] > 0
    assert told["queries"] > 0


def test_the_peers_give_the_same_lists(told: dict) -> None:
    lists = {row["what"]: row["agreement"] for row in told["rows"] if row["agreement"] is not None}
    assert len(lists) == 5
    assert {what: share for what, share in lists.items() if share < 0.999} == {}


def test_each_source_of_the_default_hybrid_is_fitted_at_five_cutoffs(told: dict) -> None:
    sources = benchmark.Bench(benchmark.WARM_UP).config["retriever"]["sources"]
    measured = {row["what"].partition(":")[0] for row in told["rows"] if row["part"] == "cutoffs"}
    assert measured > set(sources)


def test_a_rate_is_promised_at_least_and_a_time_at_most() -> None:
    assert benchmark.Promise(4_000, " queries/s", at_least=True).kept(4_000)
    assert not benchmark.Promise(8, " s").kept(8)
    row = benchmark.Row("fit", 3.0, "sort", 2.0, benchmark.Promise(1.1, "×"))
    assert (row.ratio, row.promised, row.document("peers")["kept"]) == (1.5, 1.5, False)


def test_the_share_of_the_peers_lists_that_ours_hold() -> None:
    own = np.array([[1, 2, -1], [3, 4, 5]])
    assert benchmark.overlap(own, own) == 1
    assert benchmark.overlap(own, np.array([[2, 9, -1], [5, 4, -1]])) == 0.75


def test_the_nearest_part_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(["peer"])
    assert stopped.value.code == 2
    assert "peers" in capsys.readouterr().err


def test_help_tells_what_each_part_measures(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert all(" ".join(str(part.__doc__).split()) in told for part in benchmark.PARTS.values())
    assert Path("scripts/benchmark.py").name in told
