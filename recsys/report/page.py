"""One HTML page a run, and one a comparison: everything inline, so that a page opens anywhere and can be sent to anybody."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment, PackageLoader

from recsys.evaluation.measured import FINAL, FIRST, KINDS, Measured
from recsys.report.terminal import heading
from recsys.runs import RunFolder

COLOURS = {
    "cold_item": "#999999",
    "cold_user": "#CC79A7",
    "not_retrieved": "#D55E00",
    "cut": "#E69F00",
    "ranked_below": "#56B4E9",
    "hit": "#0072B2",
}
"""A stage of the waterfall each, of Okabe and Ito's palette (told apart with any colour vision)."""

BEYOND = {
    "unseen": "unseen by the user",
    "repeat": "bought before",
    "self_information": "self-information (bits)",
    "long_tail": "long-tail items",
    "coverage": "catalogue coverage",
    "gini": "concentration (Gini)",
    "diversity_category": "diversity by category",
    "diversity_covisitation": "diversity by covisitation",
    "serendipity": "serendipity",
    "popularity": "popularity (users who know an item)",
    "popularity_lift": "popularity lift",
}
"""What customers and merchants see of the lists, in words."""

MOST_FEATURES = 20
WIDTH, HEIGHT = 340, 210
"""Of the one chart that is a drawing, in the pixels of a phone."""


def write(run: RunFolder) -> Path:
    """Write `report.html` into the run's folder, from what the run left there."""
    path = run.path / "report.html"
    path.write_text(render(run), encoding="utf-8")
    return path


def render(run: RunFolder) -> str:
    """The page of a run. Parts that the run left nothing for are not there."""
    metrics, diagnosis, measured = run.metrics, run.diagnosis, run.measured
    beyond = diagnosis.get("beyond", {})
    return (
        _environment()
        .get_template("run.html")
        .render(
            run=run,
            about=run.about,
            metrics=metrics,
            diagnosis=diagnosis,
            certificate=run.certificate,
            results=results(metrics, measured),
            leading=measured.leading,
            resolution=metrics.get(f"mde/{FINAL}/{measured.leading}"),
            parts=[(kind, results(metrics, measured, f"{kind}/")) for kind in KINDS],
            diagnosed=measured.diagnosed,
            curve=curve(diagnosis.get("recall_curve", []), run.config.get("candidates")),
            importance=importance(run.about.get("importance", {})),
            seconds={name.removeprefix("seconds/"): value for name, value in metrics.items() if name.startswith("seconds/")},
            config=yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
            colours=COLOURS,
            beyond=BEYOND,
            systems=[name for name in dict.fromkeys((FINAL, FIRST, *beyond)) if name in beyond],
        )
    )


def render_comparison(values: Mapping[str, Any]) -> str:
    """The page of a comparison, of what `recsys.comparison.compare` gives."""
    return _environment().get_template("comparison.html").render(values=values)


def results(metrics: Mapping[str, float], measured: Measured, part: str = "") -> dict[str, Any]:
    """The table of results: columns, and a row a system with value and bounds; `part` is `revisit/` or `discovery/`."""
    columns = [metric for metric in measured.shown if f"{FINAL}/{part}{metric}" in metrics]
    systems = [system for system in measured.systems if columns and f"{system}/{part}{columns[0]}" in metrics]
    best = {column: max(metrics.get(f"{system}/{part}{column}", 0) for system in systems) for column in columns}
    rows = []
    for system in systems:
        names = [f"{system}/{part}{column}" for column in columns]
        cells = [
            {
                "value": metrics.get(name),
                "low": metrics.get(f"interval/{name}/low"),
                "high": metrics.get(f"interval/{name}/high"),
                "best": metrics.get(name) == best[column] > 0,
            }
            for name, column in zip(names, columns, strict=True)
        ]
        rows.append((system.replace("_", "-"), cells))
    return {"columns": [heading(column) for column in columns], "rows": rows}


def curve(points: Sequence[Mapping[str, Any]], budget: int | None) -> dict[str, Any] | None:
    """The recall curve as places in a drawing of `WIDTH` × `HEIGHT`: depths are evenly spaced; None without a point."""
    if not points:
        return None
    left, right, top, bottom = 32, 18, 10, 34
    highest = max([p["recall"]["high"] or p["recall"]["value"] for p in points] + [0.05])
    ceiling = min(1.0, highest * 1.05)
    step = (WIDTH - left - right) / max(len(points) - 1, 1)

    def y(value: float) -> float:
        return round(HEIGHT - bottom - (HEIGHT - top - bottom) * value / ceiling, 1)

    marks = [
        {
            "k": p["k"],
            "x": round(left + i * step, 1),
            "y": y(p["recall"]["value"]),
            "low": y(p["recall"]["low"]),
            "high": y(p["recall"]["high"]),
            "recall": p["recall"],
            "budget": p["k"] == budget,
        }
        for i, p in enumerate(points)
    ]
    ticks = [{"value": ceiling * part / 4, "y": y(ceiling * part / 4)} for part in range(5)]
    band = [f"{m['x']},{m['high']}" for m in marks] + [f"{m['x']},{m['low']}" for m in reversed(marks)]
    line = [f"{m['x']},{m['y']}" for m in marks]
    size = {"width": WIDTH, "height": HEIGHT, "left": left, "right": WIDTH - right, "bottom": HEIGHT - bottom, "top": top}
    return {"marks": marks, "ticks": ticks, "band": " ".join(band), "line": " ".join(line), "budget": budget, **size}


def importance(gain: Mapping[str, float]) -> dict[str, Any]:
    """Shares of the trees' total gain: of the families, and of the first features."""
    total = sum(gain.values()) or 1.0
    families: dict[str, float] = {}
    for name, value in gain.items():
        family = name.partition("__")[0]
        families[family] = families.get(family, 0.0) + value / total
    features = [(name, value / total) for name, value in list(gain.items())[:MOST_FEATURES]]
    return {"families": sorted(families.items(), key=lambda pair: -pair[1]), "features": features, "all": len(gain)}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("recsys.report"),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "percent": _percent, "chance": chance, "metric": metric_name, "words": _words}
    return environment


def metric_name(name: str) -> str:
    """`retrieval/ndcg_at_10` as a person writes it; the two stages go without saying."""
    return heading(name.removeprefix(f"{FINAL}/"))


def chance(p: float) -> str:
    """A p-value for people."""
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _figure(value: object, digits: int = 4) -> str:
    """A number for people; a dash where there is none."""
    if not isinstance(value, int | float) or value != value:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def _percent(value: object, digits: int = 1) -> str:
    return f"{value:.{digits}%}" if isinstance(value, int | float) and value == value else "–"
