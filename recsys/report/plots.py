"""Figures of a run."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from recsys.evaluation.statistics import Interval

BLUE, ORANGE = "#0072B2", "#D55E00"
"""Of Okabe and Ito's palette, told apart with any colour vision."""


def importance(gain: Mapping[str, float], most: int = 25) -> Figure:
    """Share of the trees' total gain a feature, largest on top."""
    total = sum(gain.values()) or 1.0
    shown = list(gain.items())[:most][::-1]
    figure = Figure(figsize=(8, 0.3 * len(shown) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.barh([name for name, _ in shown], [value / total for _, value in shown], color=BLUE)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel("share of total gain")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def recall_curve(depths: Sequence[int], recall: Sequence[Interval], budget: int) -> Figure:
    """Candidate recall by number of candidates, with the budget that the ranker gets."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(depths, [each.low for each in recall], [each.high for each in recall], color=BLUE, alpha=0.2, lw=0)
    axes.plot(depths, [each.value for each in recall], marker="o", color=BLUE)
    axes.axvline(budget, color=ORANGE, linestyle="--", label=f"budget: {budget}")
    axes.set(
        xlabel="candidates a query",
        ylabel="candidate recall",
        ylim=(0, max(0.05, *(each.high for each in recall)) * 1.05),
        xscale="log",
    )
    axes.set_xticks(list(depths), [str(depth) for depth in depths])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
