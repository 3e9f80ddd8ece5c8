# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3 · Diagnosis
#
# A recommendation can be lost in several places: no source finds the product, the budget cuts it off, or the ranker puts it too
# low. Each has another cure. This notebook judges a run, says where it loses, does what the diagnosis suggests, and tests
# whether that helped. Every run of `train.py` does the first half by itself, in `report.html` and `diagnosis.json`.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from recsys import features, retrieval
from recsys.datasets.synthetic import Synthetic
from recsys.evaluation.statistics import paired
from recsys.judging import Evaluation, judge_fold, summarise
from recsys.ranking import LambdaRank
from recsys.recommender import TwoStageRecommender
from recsys.report import plots
from recsys.report.page import COLOURS
from recsys.shop.splits import Split
from recsys.timing import Timings

plt.rcParams |= {"figure.dpi": 120, "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False}

# %% [markdown]
# The next cell is the only one to change for your own events. Every option of a CSV is explained in `conf/dataset/csv.yaml`.

# %%
DATASET = Synthetic(scale=0.05)
# from recsys.datasets.table import Csv
# DATASET = Csv(path="events.csv", columns={"user": "uid", "item": "sku", "time": "ts", "event": "what"}, time_unit="s",
#               events={"pv": "view", "cart": "addtocart", "buy": "transaction"})

# %% [markdown]
# ## A run to diagnose
#
# Candidates from matrix factorisation alone, 100 a query, ordered by LambdaRank.

# %%
dataset = DATASET.load()
split = Split(label_cutoffs=2)
fold = split.fold(dataset)
test = split.test_task(dataset, fold.test)
labels = [split.label_task(dataset, window) for window in fold.labels]
evaluation = Evaluation(
    candidate_ks=[10, 20, 50, 100, 200, 500],
    baselines={"popularity": retrieval.Popularity(), "history": retrieval.History()},
)


def run(retriever, candidates=100):
    """Both stages on the fold, judged on the queries of the test window."""
    described = features.FeatureSet(families=["source", "user_item", "item", "user"])
    ranker = LambdaRank(trees=200, leaves=15)
    model = TwoStageRecommender(retriever, described, ranker, candidates)
    model.fit(dataset, fold.test.cutoff, labels)
    return summarise(evaluation, [judge_fold(evaluation, model, dataset, test, Timings())], seed=0)


als = retrieval.ALS(factors=64, iterations=10, confidence="bm25")
before = run(als)
print(f"{dataset.name}: {len(test.queries):,} queries\n{before.verdict}")

# %% [markdown]
# ## Where the right answers are lost
#
# A list of ten has so many places that it could fill rightly. Each stage loses some of them for good; what is left are hits.


# %%
def waterfall(runs):
    """One bar a run: the share of right places that each stage loses, and of the hits."""
    figure, axes = plt.subplots(figsize=(8, 1.3 + 0.5 * len(runs)))
    left = np.zeros(len(runs))
    for rows in zip(*(judgement.document["waterfall"] for judgement in runs.values()), strict=True):
        share = np.array([row["share"]["value"] for row in rows])
        if share.any():
            bars = axes.barh(list(runs), share, left=left, color=COLOURS[rows[0]["stage"]], label=rows[0]["label"])
            told = [f"{value:.0%}" if value > 0.04 else "" for value in share]
            axes.bar_label(bars, told, label_type="center", color="white" if rows[0]["stage"] == "hit" else "black")
        left += share
    axes.set(xlabel="share of right places", xlim=(0, 1))
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    plt.show()


waterfall({"ALS": before})

# %% [markdown]
# ## Would more candidates help?
#
# Where the curve still rises at the budget, more candidates bring more right answers in; where it is flat, the sources know no
# more, and only another source helps.


# %%
def recall_curve(judgement):
    """Candidate recall at each depth that was judged, with the budget."""
    depths = evaluation.candidate_ks
    found = [judgement.intervals[f"candidates/recall_at_{depth}"] for depth in depths]
    display(plots.recall_curve(depths, found, judgement.document["budget"]))


recall_curve(before)

# %% [markdown]
# ## What would be gained, at most
#
# Each lever is one thing that could be otherwise. The ranker's is what a perfect order of the same candidates would gain; the
# others are what better candidates would gain if the ranker were perfect.

# %%
levers = before.verdict.levers[::-1]
gain = np.array([lever.gain.value for lever in levers])
spread = [gain - [lever.gain.low for lever in levers], [lever.gain.high for lever in levers] - gain]
figure, axes = plt.subplots(figsize=(7, 0.8 + 0.4 * len(levers)))
axes.errorbar(gain, [lever.name for lever in levers], xerr=spread, fmt="o", color=plots.BLUE, capsize=3)
axes.axvline(0, color="0.7", lw=0.8, zorder=0)
axes.set(xlabel="gain in right places at most, with 95 % interval", ylim=(-0.5, len(levers) - 0.5))
plt.show()

# %% [markdown]
# ## For whom it works
#
# Hits among queries of a kind, and what their candidates would allow. The gap between the two is the ranker's; what is missing
# above the ceiling is retrieval's.


# %%
def cohorts(judgement):
    """HitRate@10 and its ceiling for each cohort."""
    rows = [row for row in judgement.document["cohorts"] if row["queries"] >= 10]
    names = [f"{row['group']}: {row['name']} ({row['queries']:,})" for row in rows]
    hit, ceiling = (np.array([row[which]["value"] for row in rows]) for which in ("hit_rate", "ceiling"))
    figure, axes = plt.subplots(figsize=(7, 0.8 + 0.3 * len(rows)))
    axes.hlines(names, hit, ceiling, color="0.8", lw=3, zorder=0)
    axes.plot(hit, names, "o", color=plots.BLUE, label="hits")
    axes.plot(ceiling, names, "D", color=plots.ORANGE, label="ceiling of the candidates")
    axes.set(xlabel="HitRate@10", xlim=(0, 1.02))
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    plt.show()


cohorts(before)

# %% [markdown]
# ## What to do about it
#
# | what the diagnosis says | what to try |
# |---|---|
# | found by no source; a lever `adding …` | one more source: `retriever=hybrid`, `retriever.sources=[…]` |
# | cut by the budget; the lever `doubling the candidates` | `candidates=400`, or quotas: `retriever.budget=learn` |
# | the lever `keeping seen items` | `retriever.seen=keep` |
# | ranked below 10 | more to see (`features=full`), more to learn from (`split.label_cutoffs=6`), a sweep (notebook 4) |
# | new products, visitors without history | sources that need neither: `properties`, `category`, `trending` |
# | the queries cannot resolve it | a longer test window, or several: `split=rolling` |
#
# Matrix factorisation forgets what a customer just looked at and what goes together. Here are two sources that do not.

# %%
hybrid = retrieval.Hybrid(
    sources=["history", "covisitation", "als"],
    definitions={
        "history": retrieval.History(),
        "covisitation": retrieval.Covisitation(),
        "als": als,
        "popularity": retrieval.Popularity(window_days=28),
    },
)
after = run(hybrid)
print(after.verdict)
waterfall({"ALS": before, "three sources": after})

# %% [markdown]
# ## Did it help?
#
# Both runs answered the same queries, so that they can be compared pair by pair. An interval without 0 is a difference that
# these queries show.

# %%
rows = {}
for name in ("candidates/recall_at_100", "two_stage/hit_rate_at_10", "two_stage/ndcg_at_10"):
    found = paired(before.accuracy[name], after.accuracy[name])
    rows[name] = {
        "ALS": before.figures[name],
        "three sources": after.figures[name],
        "difference": found.difference.value,
        "low": found.difference.low,
        "high": found.difference.high,
        "p": found.p_value,
        "better on": found.improved,
        "worse on": found.worse,
    }
display(pd.DataFrame(rows).T.round(4))

# %% [markdown]
# Which queries changed their place, from the row's stage to the column's:

# %%
display(pd.crosstab(pd.Series(before.stage, name="ALS"), pd.Series(after.stage, name="three sources")))

# %% [markdown]
# ## What each source is worth
#
# `solo` is a source's recall alone, `exclusive` what no other finds, `leave_one_out` what is lost without it, and `shapley`
# its fair share of the whole. A source that is dear and exclusive of little can go.

# %%
sources = pd.DataFrame(after.document["attribution"]["sources"]).set_index("name")
display(sources.map(lambda cell: cell["value"] if isinstance(cell, dict) else cell).round(4))

# %% [markdown]
# Next: [4 · Compare and tune](4_compare_and_tune.py).
