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
# # 1 · The data
#
# Four looks at a shop's events before anything is trained: the funnel from view to purchase, sessions, the long tail, and
# revisits. Each says something about the recommender that will fit.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from recsys.datasets.synthetic import SESSION_GAP, Synthetic
from recsys.evaluation import metrics
from recsys.evaluation.evidence import HEAD, Past
from recsys.report.plots import BLUE, ORANGE
from recsys.shop.events import MILLISECONDS_PER_DAY
from recsys.shop.pairs import pair_key
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
# ## From rows to events
#
# Loading counts what it reads and what it leaves out, and why.

# %%
dataset = DATASET.load()
log = dataset.log
display(pd.Series(dataset.summary(), name=dataset.name).to_frame())

# %% [markdown]
# ## One timeline
#
# A split cuts the log once. Everything is learnt from events before the cutoff; the purchases after it are the right answers.

# %%
fold = Split().fold(dataset)
day = log.time // MILLISECONDS_PER_DAY
days_shown = np.arange(day[0], day[-1] + 1).astype("datetime64[D]")

figure, axes = plt.subplots(figsize=(7, 3))
axes.plot(days_shown, np.bincount(day - day[0]), color=BLUE)
test = np.array([fold.test.cutoff, fold.test.end], dtype="datetime64[ms]")
axes.axvspan(*test, color=ORANGE, alpha=0.2, lw=0, label="test window")
axes.set(xlabel="day", ylabel="events a day", ylim=(0, None))
figure.autofmt_xdate()
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The funnel
#
# A pair is a user and a product. Most pairs end with a view: purchases are the answer to predict, and views are most of what
# there is to predict it from.

# %%
pairs = {name: np.unique(pair_key(log.user, log.item)[log.kind == kind]) for kind, name in enumerate(log.kinds.names)}
everybody = len(np.unique(pair_key(log.user, log.item)))

figure, axes = plt.subplots(figsize=(7, 2.2))
bars = axes.barh(log.kinds.names, [len(found) / everybody for found in pairs.values()], color=BLUE)
axes.bar_label(bars, [f"{len(found):,} pairs, {len(found) / everybody:.1%}" for found in pairs.values()], padding=4)
axes.set(xlabel="share of all pairs of user and product", xlim=(0, 1.4), xticks=np.linspace(0, 1, 6))
axes.xaxis.set_major_formatter("{x:.0%}")
axes.invert_yaxis()
plt.show()

# %% [markdown]
# ## Sessions
#
# A pause of more than 30 minutes begins a new session. Where most sessions are short and most visitors come once, there is
# little taste to learn from: what goes together inside a session then tells more than who the visitor is.

# %%
_, order = log.by_user
user, time = log.user[order], log.time[order]
begins = np.r_[True, (np.diff(user) != 0) | (np.diff(time) > SESSION_GAP)]
session = np.cumsum(begins) - 1
counts = {
    "events a session": np.bincount(session),
    "sessions a user": np.bincount(user[begins])[np.unique(user)],
}


def survival(values):
    """The values, and the share that reaches each."""
    found, count = np.unique(values, return_counts=True)
    return found, count[::-1].cumsum()[::-1] / len(values)


figure, axes = plt.subplots(figsize=(7, 3.2))
for (name, values), colour, marker in zip(counts.items(), (BLUE, ORANGE), "os", strict=True):
    axes.plot(*survival(values), color=colour, marker=marker, ms=3, label=f"{name}: mean {values.mean():.2f}")
axes.set(xscale="log", yscale="log", xlabel="number n", ylabel="share with n or more")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The long tail
#
# The head is the fewest products that take half of all events. What the bestsellers cannot reach has to be found by what is
# known of the customer.

# %%
events = np.sort(np.bincount(log.item))[::-1]
events = events[events > 0]
head = Past.of(dataset, int(log.time[-1]) + 1).head.sum()

figure, axes = plt.subplots(figsize=(7, 3.2))
axes.plot(np.arange(1, len(events) + 1) / len(events), events.cumsum() / events.sum(), color=BLUE)
axes.plot(head / len(events), HEAD, "o", color=ORANGE, label=f"head: {head:,} of {len(events):,} products")
axes.set(xlabel="share of products, the most popular first", ylabel="share of events", xlim=(0, 1), ylim=(0, 1))
axes.xaxis.set_major_formatter("{x:.0%}")
axes.yaxis.set_major_formatter("{x:.0%}")
axes.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# ## Revisits
#
# How often is the right answer a product that the customer touched before the cutoff? Where it often is, the plain list of
# what somebody looked at last (`retriever=history`) is hard to beat; the rest is discovery.

# %%
task = Split().test_task(dataset, fold.test)
revisit = metrics.revisit(task.queries, task.truth)
display(pd.Series(task.funnel, name="users").to_frame())
print(f"{revisit.mean():.0%} of {len(revisit):,} right answers are revisits")

# %%
touch = np.lexsort((log.time, pair_key(log.user, log.item)))
key, time = pair_key(log.user, log.item)[touch], log.time[touch]
pause = np.diff(time)[np.diff(key) == 0] / MILLISECONDS_PER_DAY
pause = pause[pause > SESSION_GAP / MILLISECONDS_PER_DAY]

figure, axes = plt.subplots(figsize=(7, 3))
axes.hist(pause, bins=np.geomspace(SESSION_GAP / MILLISECONDS_PER_DAY, max(pause.max(initial=1), 1), 40), color=BLUE)
axes.set(xscale="log", xlabel="days until the same product is touched again, in a later session", ylabel="number of returns")
plt.show()

# %% [markdown]
# Next: [2 · Two stages by hand](2_two_stages_by_hand.py).
