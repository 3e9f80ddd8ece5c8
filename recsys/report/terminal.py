"""Tables on the terminal."""

from collections.abc import Mapping, Sequence

from rich.table import Table


def counts(title: str, values: Mapping[str, str | int]) -> Table:
    """A funnel or other counts, a line each."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    for what, value in values.items():
        table.add_row(what, f"{value:,}" if isinstance(value, int) else value)
    return table


def results(values: Mapping[str, float], systems: Sequence[str], columns: Sequence[str], n_queries: int) -> Table:
    """One line a system, one column a metric; the best of each column stands out."""
    table = Table(title=f"{n_queries:,} queries", title_justify="left")
    table.add_column("system")
    best = {column: max(values[f"{system}/{column}"] for system in systems) for column in columns}
    for column in columns:
        table.add_column(heading(column), justify="right")
    for system in systems:
        cells = [values[f"{system}/{column}"] for column in columns]
        marks = [value == best[column] and value > 0 for column, value in zip(columns, cells, strict=True)]
        texts = [f"[bold]{value:.4f}[/]" if mark else f"{value:.4f}" for value, mark in zip(cells, marks, strict=True)]
        table.add_row(system.replace("_", "-"), *texts)
    return table


def heading(metric: str) -> str:
    """`ndcg_at_10` as a person writes it: NDCG@10."""
    name, _, k = metric.rpartition("_at_")
    *path, last = name.split("/")
    spoken = {"hit_rate": "HitRate", "ndcg": "NDCG", "mrr": "MRR", "map": "MAP"}.get(last, last.replace("_", " ").capitalize())
    return " ".join([*path, f"{spoken}@{k}"])
