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
# # 2 · Two stages by hand
#
# What `python train.py` does, step by step with the classes themselves. The first stage finds some hundred candidates of the
# whole catalogue; the second describes and orders them. No config is read: every setting is an argument.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from recsys import features, retrieval
from recsys.datasets.synthetic import Synthetic
from recsys.evaluation import metrics
from recsys.evaluation.statistics import mean_intervals
from recsys.ranking import LambdaRank
from recsys.recommender import TwoStageRecommender
from recsys.report import plots
from recsys.shop.splits import Split

plt.rcParams |= {"figure.dpi": 120, "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False}

# %% [markdown]
# The next cell is the only one to change for your own events. Every option of a CSV is explained in `conf/dataset/csv.yaml`.

# %%
DATASET = Synthetic(scale=0.05)
# from recsys.datasets.table import Csv
# DATASET = Csv(path="events.csv", columns={"user": "uid", "item": "sku", "time": "ts", "event": "what"}, time_unit="s",
#               events={"pv": "view", "cart": "addtocart", "buy": "transaction"})

# %% [markdown]
# ## The question
#
# A split puts the test cutoff at 80 % of the events. Who bought something after it is asked about, with all that was known of
# them before. Two label windows before the cutoff are what the ranker learns from.

# %%
dataset = DATASET.load()
log = dataset.log
split = Split(label_cutoffs=2)
fold = split.fold(dataset)
test = split.test_task(dataset, fold.test)
labels = [split.label_task(dataset, window) for window in fold.labels]
print(f"{dataset.name}: {len(log):,} events of {log.n_users:,} users and {log.n_items:,} products")
print(f"test window {fold.test}: {len(test.queries):,} queries, {test.truth.count.mean():.1f} right answers each")
for label in labels:
    print(f"label window {label.window}: {len(label.queries):,} queries")

# %% [markdown]
# ## First stage: several sources, one pool
#
# `shop.before(t)` holds nothing of what comes after: it is all that a retriever gets. Each source proposes what it is
# good at, the union orders all of it by the sum of the reciprocal ranks, and the pool remembers who proposed what, at which
# rank.

# %%
cutoff = fold.test.cutoff
hybrid = retrieval.Hybrid(
    sources=["history", "covisitation", "als", "popularity"],
    definitions={
        "history": retrieval.History(),
        "covisitation": retrieval.Covisitation(),
        "als": retrieval.ALS(factors=64, iterations=10, confidence="bm25"),
        "popularity": retrieval.Popularity(window_days=28),
    },
)
hybrid.fit(dataset.before(cutoff))
pool = hybrid.pool(test.queries, 200)
print(f"{len(pool):,} candidates, {len(pool) / pool.n_queries:.0f} a query")

# %% [markdown]
# Candidate recall is the share of the right answers that are among the first so many: what no source found, no ranker can put
# right. The bands are 95 % intervals.

# %%
depths = [1, 2, 5, 10, 20, 50, 100, 200]
colours = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#000000"]


def recall(pool):
    """Candidate recall at each depth, with its interval."""
    return mean_intervals(np.stack(list(metrics.candidate_recall(pool, test.truth, depths).values()), axis=1))


alone = {name: recall(hybrid.definitions[name].pool(test.queries, max(depths))) for name in hybrid.sources}
figure, axes = plt.subplots(figsize=(7, 4))
for (name, found), colour in zip((alone | {"all together": recall(pool)}).items(), colours, strict=True):
    axes.plot(depths, [each.value for each in found], color=colour, marker="o", ms=4, label=name)
    axes.fill_between(depths, [each.low for each in found], [each.high for each in found], color=colour, alpha=0.12, lw=0)
axes.set(xscale="log", xlabel="candidates a query", ylabel="candidate recall", ylim=(0, None))
axes.set_xticks(depths, depths)
axes.minorticks_off()
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Between the stages: features
#
# Each family describes a candidate in its own way: what the sources said of it, what this user did with it, how it sells.
# Here are the first candidates of one query, in the order in which retrieval has them.

# %%
described = features.FeatureSet(families=["source", "user_item", "item", "user"])
described.fit(dataset.before(cutoff))
first = pool.block(0, 1).top(8)
matrix = described.compute(first, test.queries.block(0, 1))
table = pd.DataFrame(matrix.values, columns=matrix.names, index=pd.Index(log.items.own(first.item), name="item"))
shown = ["user_item__views", "user_item__days_since_last", "item__days_since_last", "item__conversion"]
ranks = pd.DataFrame(first.rank.T, columns=[f"rank: {name}" for name in first.sources], index=table.index)
display(ranks.join(table[shown]).iloc[np.argsort(-first.fusion)].round(2))
print(f"{len(matrix.names)} features; rank 0: not proposed by this source")

# %% [markdown]
# ## Second stage: the order
#
# `fit` repeats the above at the cutoff of each label window, grades the candidates by what happened next, and lets LambdaRank
# learn the order. Then the first stage is fitted once more, at the test cutoff.

# %%
ranker = LambdaRank(trees=200, leaves=15)
model = TwoStageRecommender(hybrid, described, ranker, candidates=200)
model.fit(dataset, cutoff, labels)
pool = model.pool(test.queries)
lists = {
    "popularity": model.retriever.definitions["popularity"].retrieve(test.queries, 10),
    "retrieval order": pool.retrieved(10),
    "two stages": model.rank(pool, test.queries, 10),
}

# %% [markdown]
# Every list is judged against all that was bought after the cutoff; nothing is sampled. Wide bars mean few queries: the
# intervals say which differences to believe, and notebook 4 how to test them.

# %%
judged = {name: metrics.per_query(ranking, test.truth, [10]) for name, ranking in lists.items()}
figure, panels = plt.subplots(1, 3, figsize=(8, 2.4), sharey=True)
for axes, (metric, label) in zip(
    panels, {"hit_rate_at_10": "HitRate@10", "ndcg_at_10": "NDCG@10", "recall_at_10": "Recall@10"}.items(), strict=True
):
    found = mean_intervals(np.stack([values[metric] for values in judged.values()], axis=1))
    value = np.array([each.value for each in found])
    spread = [value - [each.low for each in found], [each.high for each in found] - value]
    axes.errorbar(value, list(judged), xerr=spread, fmt="o", color=plots.BLUE, capsize=3)
    axes.set(xlabel=label, xlim=(0, None), ylim=(-0.5, len(judged) - 0.5))
plt.show()

# %% [markdown]
# What the trees looked at, by the loss that each feature took away. The part before the two underscores is the family.

# %%
display(plots.importance(model.ranker.importance(), most=12))

# %% [markdown]
# ## Lists for customers, and a model to keep
#
# `recommend` takes and gives the shop's own ids. A saved model is arrays, text and Parquet: loading it runs no code, and gives
# the same lists.

# %%
users = log.users.ids[test.queries.user[:3]]
recommended = model.recommend(users, k=5)
with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder, "model"))
    again = TwoStageRecommender.load(Path(folder, "model")).recommend(users, k=5)
assert (again.item == recommended.item).all()
display(pd.DataFrame(recommended.item, index=pd.Index(users, name="user"), columns=[f"place {i}" for i in range(1, 6)]))

# %% [markdown]
# Next: [3 · Diagnosis](3_diagnosis.py). The same run from the command line: `python train.py retriever=hybrid features=base`.
