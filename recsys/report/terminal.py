"""Tables on the terminal."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from recsys.evaluation.statistics import Interval, minimum_detectable_effect


def counts(title: str, values: Mapping[str, str | int]) -> Table:
    """A funnel or other counts, a line each."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    for what, value in values.items():
        table.add_row(what, f"{value:,}" if isinstance(value, int) else value)
    return table


def results(found: Mapping[str, Interval], systems: Sequence[str], columns: Sequence[str], n_queries: int) -> Table:
    """One line a system, one column a metric with its 95 % interval; the best of each column stands out.

    Last comes the least change of the last system's figures that so many queries resolve.
    """
    table = Table(title=f"{n_queries:,} queries, 95 % intervals", title_justify="left")
    table.add_column("system")
    best = {column: max(found[f"{system}/{column}"].value for system in systems) for column in columns}
    for column in columns:
        table.add_column(heading(column), justify="right")
    for system in systems:
        each = [found[f"{system}/{column}"] for column in columns]
        bold = [one.value == best[column] and one.value > 0 for one, column in zip(each, columns, strict=True)]
        values = [f"[bold]{one.value:.4f}[/]" if mark else f"{one.value:.4f}" for one, mark in zip(each, bold, strict=True)]
        bounds = [f"[dim]{one.low:.3f}–{one.high:.3f}[/]" for one in each]
        table.add_row(system.replace("_", "-"), *[f"{value}\n{bound}" for value, bound in zip(values, bounds, strict=True)])
    least = [minimum_detectable_effect(found[f"{systems[-1]}/{column}"]) for column in columns]
    table.add_section()
    table.add_row("detectable change", *[f"{value:.4f}" for value in least])
    return table


def curve(title: str, depths: Sequence[int], found: Sequence[Interval]) -> Table:
    """A figure at several depths, a line each, with its interval."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 1))
    for depth, each in zip(depths, found, strict=True):
        table.add_row(f"@{depth}", f"{each.value:.4f}", f"[dim]{each.low:.3f}–{each.high:.3f}[/]")
    return table


def heading(metric: str) -> str:
    """`ndcg_at_10` as a person writes it: NDCG@10."""
    name, _, k = metric.rpartition("_at_")
    *path, last = name.split("/")
    spoken = {"hit_rate": "HitRate", "ndcg": "NDCG", "mrr": "MRR", "map": "MAP"}.get(last, last.replace("_", " ").capitalize())
    return " ".join([*path, f"{spoken}@{k}"])
