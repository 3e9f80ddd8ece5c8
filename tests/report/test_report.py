"""The page of a run: all inline, every name escaped, every chart with its figures in text, missing parts left out."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.evaluation.measured import Measured
from recsys.report import page
from recsys.runs import RunFolder

HOSTILE = "<script>alert('&\"x')</script>"
VOID = {"meta", "br", "line", "circle", "polyline", "polygon", "img", "link", "input", "hr"}


def interval(value: float, low: float | None = None, high: float | None = None) -> dict[str, float]:
    return {"value": value, "low": value - 0.1 if low is None else low, "high": value + 0.1 if high is None else high}


METRICS = {
    "popularity/ndcg_at_10": 0.05,
    "two_stage/hit_rate_at_10": 0.8125,
    "two_stage/ndcg_at_10": 0.5,
    "two_stage/revisit/hit_rate_at_10": 0.9,
    "interval/two_stage/hit_rate_at_10/low": 0.701,
    "interval/two_stage/hit_rate_at_10/high": 0.899,
    "mde/two_stage/ndcg_at_10": 0.157,
    "ceiling/hit_rate_at_10": 0.95,
    "queries/count": 40.0,
    "queries/with_revisit_target": 32.0,
    "seconds/ranker_fit": 6.02,
}
CONFIG = {
    "candidates": 100,
    "evaluation": {"ks": [5, 10], "candidate_ks": [10, 100], "baselines": {"popularity": {"_target_": "…"}}},
}
DIAGNOSIS = {
    "format": 1,
    "k": 10,
    "verdict": {
        "text": "retrieval-bound: keeping seen items would gain 0.31",
        "bound": "retrieval",
        "levers": [{"name": "keep seen items", "gain": interval(0.31)}, {"name": "nothing", "gain": interval(0.0)}],
    },
    "waterfall": [
        {"stage": "not_retrieved", "label": "found by no source", "queries": 10, "share": interval(0.25)},
        {"stage": "hit", "label": "hit", "queries": 30, "share": interval(0.75)},
    ],
    "ceiling": {"hit_rate_at_10": {"got": interval(0.8), "ceiling": interval(0.9), "efficiency": None}},
    "recall_curve": [{"k": k, "recall": interval(recall)} for k, recall in ((10, 0.4), (100, 0.6), (1000, 0.8))],
    "attribution": {
        "sources": [
            {"name": name, "solo": interval(0.5), "exclusive": interval(0.2), "leave_one_out": interval(0.2), "shapley": None}
            for name in ("als", "history")
        ],
        "jaccard": [[1.0, 0.25], [0.25, 1.0]],
    },
    "cohorts": [
        {
            "group": "cart",
            "name": name,
            "queries": 20,
            "hit_rate": interval(0.5),
            "ndcg": interval(0.4),
            "ceiling": interval(0.6),
        }
        for name in ("with a cart", "without")
    ],
    "beyond": {"popularity": {"unseen": interval(0.9)}, "two_stage": {"unseen": interval(0.4), "gini": {"value": 0.94}}},
    "ties": {
        "share_at_10": interval(0.125),
        **{f"{name}_at_10_{case}": interval(0.3) for name in ("hit_rate", "ndcg") for case in ("worst", "best")},
    },
}
ABOUT = {
    "name": "als · lambdarank",
    "dataset": {"name": "shop", "fingerprint": "f00dbeef", "summary": {"rows read": 12345, "first event": "2020-01-01"}},
    "windows": [{"text": "June", "funnel": {"queries": 40}}],
    "code": {"version": "0.1.0", "git_commit": "abc123def", "git_dirty": "true"},
    "importance": {"user_item__views": 30.0, "source__als_rank": 10.0},
    "url": "",
}
CERTIFICATE = {
    "clean": False,
    "verdict": "LEAKS: the feature values are not the same",
    "audited_at": "2020-01-02T00:00:00+00:00",
    "config_hash": "c0ffee00c0ffee",
    "data_fingerprint": "f00dbeef",
    "checks": [{"name": "future deleted", "outcome": "fail", "finding": "the feature values are not the same"}],
}


def folder(path: Path, **files: dict[str, Any]) -> RunFolder:
    path.mkdir(exist_ok=True)
    (path / "config.yaml").write_text(yaml.safe_dump(CONFIG | files.pop("config", {})))
    files.setdefault("metrics", METRICS)
    for name, values in files.items():
        (path / f"{'run' if name == 'about' else name}.json").write_text(json.dumps(values))
    return RunFolder(path)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return folder(tmp_path / "run", about=ABOUT, diagnosis=DIAGNOSIS, certificate=CERTIFICATE)


class Checker(HTMLParser):
    """Notes tags that do not close in order, and every attribute."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without its start"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += " " + " ".join(data.split())


def parsed(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


def hostile(values: Any) -> Any:
    """Every text of plain values, and every key that people choose, made hostile."""
    if isinstance(values, dict):
        return {key: hostile(value) for key, value in values.items()}
    if isinstance(values, list):
        return [hostile(value) for value in values]
    return HOSTILE if isinstance(values, str) else values


def test_all_parts_are_there(run: RunFolder) -> None:
    text = re.sub(r"\s+", " ", parsed(page.render(run)).text)
    for words in (
        "retrieval-bound: keeping seen items would gain 0.31",
        "0.8125 0.701–0.899",
        "less than 0.157 cannot be told from chance",
        "Among the 32 queries",
        "found by no source 10 25.0% 15.0%–35.0%",
        "keep seen items 0.310 0.210–0.410",
        "12.5% 2.5%–22.5% of neighbouring places among the first 10 have equal scores",
        "NDCG@10 would be 0.3000 if every tie went against the targets, and 0.3000 if every tie went for them",
        "als – 0.500 0.400–0.600",
        "cart: with a cart 20 0.500",
        "user item 75.0%",
        "concentration (Gini) 0.940 –",
        "LEAKS: the feature values",
        "rows read 12,345",
        "ranker fit 6.0",
        "candidates: 100",
        "commit abc123de with changes",
    ):
        assert words in text
    assert "ceiling 0.95" not in text


def test_the_page_needs_nothing_from_elsewhere(run: RunFolder) -> None:
    html = page.render(run)
    checker = parsed(html)
    loads = [
        (tag, name, value) for tag, name, value in checker.attributes if name in ("src", "srcset", "data", "poster", "action")
    ]
    assert loads == []
    assert {"script", "link", "iframe", "img", "object", "embed"}.isdisjoint(checker.tags)
    assert not re.search(r"@import|url\(", html)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    about = hostile({**ABOUT, "importance": {}}) | {"importance": {f"{HOSTILE}__{HOSTILE}": 1.0}}
    about["dataset"]["summary"] = {HOSTILE: HOSTILE}
    about["windows"] = [{"text": HOSTILE, "funnel": {HOSTILE: 3}}]
    diagnosis = hostile(DIAGNOSIS)
    diagnosis["ceiling"] = {HOSTILE: diagnosis["ceiling"]["hit_rate_at_10"]}
    diagnosis["beyond"] = {HOSTILE: {"unseen": interval(0.5)}}
    certificate = hostile(CERTIFICATE) | {"clean": True}
    certificate["checks"][0]["outcome"] = "pass"
    metrics = {**METRICS, f"{HOSTILE}/ndcg_at_10": 0.5, f"seconds/{HOSTILE}": 1.0}
    config = {"key": HOSTILE, "evaluation": CONFIG["evaluation"] | {"baselines": {HOSTILE: {}}}}
    run = folder(tmp_path / "run", about=about, diagnosis=diagnosis, certificate=certificate, metrics=metrics, config=config)
    html = page.render(run)
    checker = parsed(html)
    assert "script" not in checker.tags
    assert "alert" in checker.text
    assert not any("alert" in value and name.startswith("on") for _, name, value in checker.attributes)
    links = [value for _, name, value in checker.attributes if name == "href"]
    assert links == []


def test_only_web_addresses_become_links(tmp_path: Path) -> None:
    for url, linked in (("http://127.0.0.1:5000/#/runs/1", True), ("javascript:alert(1)", False), ("", False)):
        html = page.render(folder(tmp_path / "run", about={**ABOUT, "url": url}))
        assert (f'href="{url}"' in html) == linked


def test_a_run_with_metrics_alone_has_a_page(tmp_path: Path) -> None:
    checker = parsed(page.render(folder(tmp_path / "run")))
    assert "0.8125" in checker.text
    assert "Not audited yet" in checker.text
    for title in ("Where queries are lost", "Candidate recall", "Sources", "What the ranker looks at"):
        assert title not in checker.text


def test_charts_have_words_and_figures(run: RunFolder) -> None:
    checker = parsed(page.render(run))
    drawings = checker.tags.count("svg")
    labelled = [a for a in checker.attributes if a[0] == "svg" and a[1] == "aria-labelledby"]
    assert drawings == len(labelled) == checker.tags.count("title") - 1 == 1
    assert "0.400 at 10, 0.600 at 100, 0.800 at 1000" in checker.text
    stack = [value for tag, name, value in checker.attributes if (tag, name) == ("div", "aria-label")]
    assert stack == ["Shares of right places by stage; the table below has the figures."]
    widths = [
        float(re.search(r"width: ([\d.]+)%", v)[1])
        for t, n, v in checker.attributes
        if t == "span" and "width" in v and n == "style"
    ]
    assert all(0 <= width <= 100 for width in widths)


def test_the_drawing_shows_the_recall_where_it_is() -> None:
    drawn = page.curve([{"k": k, "recall": interval(value, value, value)} for k, value in ((10, 0.0), (100, 1.0))], 100)
    assert drawn is not None
    first, last = drawn["marks"]
    assert first["y"] == drawn["bottom"]
    assert last["y"] == drawn["top"]
    assert (first["x"], last["x"]) == (drawn["left"], drawn["right"])
    assert [mark["budget"] for mark in drawn["marks"]] == [False, True]
    assert page.curve([], 100) is None


def test_importance_is_shared_out() -> None:
    shares = page.importance({"a__x": 6.0, "b__y": 3.0, "a__z": 1.0})
    assert shares["families"] == [("a", 0.7), ("b", 0.3)]
    assert shares["features"][0] == ("a__x", 0.6)
    assert page.importance({})["features"] == []


def test_the_best_of_each_column_stands_out() -> None:
    table = page.results(METRICS, Measured.of(CONFIG["evaluation"]))
    assert table["columns"] == ["NDCG@10", "HitRate@10"]
    assert [system for system, _ in table["rows"]] == ["popularity", "two-stage"]
    assert [[cell["best"] for cell in cells] for _, cells in table["rows"]] == [[False, False], [True, True]]
    assert table["rows"][0][1][1]["value"] is None


def test_the_columns_are_those_that_the_run_says_it_shows(tmp_path: Path) -> None:
    metrics = {
        f"{system}/{name}": 0.25 for system in ("popularity", "two_stage") for name in ("mrr_at_5", "basket_value_at_10")
    }
    about = {"mde/two_stage/mrr_at_5": 0.031}
    chosen = {"metrics": ["mrr", "my_shop.metrics.basket_value"], "shown": ["mrr_at_5", "basket_value_at_10"]}
    config = {"evaluation": CONFIG["evaluation"] | chosen}
    text = parsed(page.render(folder(tmp_path / "run", metrics=metrics | about, config=config))).text
    assert "system MRR@5 Basket value@10 popularity 0.2500 0.2500 two-stage 0.2500 0.2500" in re.sub(r"\s+", " ", text)
    assert "A change of MRR@5 by less than 0.031" in text


def test_the_same_run_gives_the_same_page(run: RunFolder) -> None:
    assert page.render(run) == page.render(RunFolder(run.path))
    assert page.write(run).read_text(encoding="utf-8") == page.render(run)


def test_a_comparison_has_a_page() -> None:
    row = {
        "metric": "two_stage/ndcg_at_10",
        "first": 0.1,
        "second": 0.2,
        "difference": interval(0.1),
        "p": 0.01,
        "p_holm": 0.02,
        "improved": 3,
        "worse": 1,
        "unchanged": 6,
        "mde": 0.05,
    }
    target = {"item": HOSTILE, "first": 0, "second": 3, "stage": "retrieval", "by": "als"}
    other = {
        "name": HOSTILE,
        "leading": "two_stage/ndcg_at_5",
        "k": 5,
        "verdict": "b is better",
        "metrics": [row],
        "causes": [{"gained": False, "stage": "ranking", "by": HOSTILE, "targets": 2}],
        "changed": [{"user": HOSTILE, "fold": 0, "first": 0.0, "second": 0.5, "targets": [target]}],
        "settings": {"ranker.trees": ["1", "2"]},
    }
    values = {"first": {"name": HOSTILE, "queries": 10}, "others": [other, copy.deepcopy(other)]}
    checker = parsed(page.render_comparison(values))
    assert "script" not in checker.tags
    assert "+0.1000" in checker.text
    assert "among the first 5 of one run only" in checker.text
    assert "NDCG@5" in checker.text
    assert "-2" in checker.text
    assert "– → 3 (retrieval, als)" in checker.text
