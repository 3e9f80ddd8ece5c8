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
# # 4 · Compare and tune
#
# Four runs and a small sweep as one would type them, read back from MLflow. `make ui` shows the same runs in a browser.

# %%
# %matplotlib inline
import os
import shlex
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import yaml
from IPython.display import display

from recsys import comparison, runs
from recsys.cli import CONFIGS
from recsys.datasets.synthetic import Synthetic
from recsys.report.plots import BLUE
from recsys.tracking import absolute_uri, home

plt.rcParams |= {"figure.dpi": 120, "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False}

# %% [markdown]
# The next cell is the only one to change for your own events. Every option of a CSV is explained in `conf/dataset/csv.yaml`.

# %%
DATASET = Synthetic(scale=0.05)
# from recsys.datasets.table import Csv
# DATASET = Csv(path="events.csv", columns={"user": "uid", "item": "sku", "time": "ts", "event": "what"}, time_unit="s",
#               events={"pv": "view", "cart": "addtocart", "buy": "transaction"})

# %% [markdown]
# ## Four runs
#
# The data set becomes a config of its own, `dataset=mine`, in a folder beside the runs. With `-m`, each combination of the
# values between commas is a run; what two runs share is taken from the cache.

# %%
folder = home() / "outputs" / "notebook"
(folder / "conf" / "dataset").mkdir(parents=True, exist_ok=True)
(folder / "conf" / "dataset" / "mine.yaml").write_text(yaml.safe_dump(DATASET.settings()))
fixed = ["dataset=mine", "features=base", "candidates=100", "split.label_cutoffs=1"]
fixed += ["tracking.experiment=notebook", "tracking.log_model=false"]


def train(*overrides):
    """Run `train.py -m`; gives what it printed."""
    arguments = ["-m", *fixed, *overrides]
    print("python train.py --config-dir", folder / "conf", shlex.join(arguments))
    command = [sys.executable, str(CONFIGS.parent / "train.py"), "--config-dir", str(folder / "conf"), *arguments]
    done = subprocess.run([*command, f"outputs={folder}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


printed = train("retriever=history,covisitation", "ranker=none,lambdarank")

# %% [markdown]
# ## Reading runs
#
# A run in MLflow holds parameters, tags and metrics under flat names; the runs of one command have one parent.

# %%
import mlflow  # noqa: E402

mlflow.set_tracking_uri(absolute_uri(os.environ.get("MLFLOW_TRACKING_URI")))
store = mlflow.MlflowClient()


def children(name):
    """The newest parent run whose name begins so, and its children, oldest first."""
    newest = {"experiment_names": ["notebook"], "order_by": ["start_time DESC"], "max_results": 1, "output_format": "list"}
    [parent] = mlflow.search_runs(filter_string=f"attributes.run_name LIKE '{name}%'", **newest)
    of_parent = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    return parent, mlflow.search_runs(experiment_names=["notebook"], filter_string=of_parent, order_by=["start_time ASC"])


_, table = children("multirun")
table["run"] = table["tags.retriever"] + " · " + table["tags.ranker"]
shown = {"metrics.candidates/recall_at_100": "recall@100", "metrics.two_stage/ndcg_at_10": "NDCG@10", "tags.verdict": "verdict"}
print(f"data: {table['tags.dataset'][0]}, {table['metrics.queries/count'][0]:,.0f} queries")
with pd.option_context("display.max_colwidth", 100):
    display(table.set_index("run")[list(shown)].rename(columns=shown))

# %% [markdown]
# Its folder holds all that it made: `metrics.json` has every figure, and its interval under `interval/<metric>/low` and
# `interval/<metric>/high`.

# %%
found = [runs.find(run_id, folder) for run_id in table["run_id"]]
figure, panels = plt.subplots(1, 2, figsize=(8, 2.6), sharey=True)
for axes, (metric, label) in zip(panels, {"hit_rate_at_10": "HitRate@10", "ndcg_at_10": "NDCG@10"}.items(), strict=True):
    names = (f"two_stage/{metric}", f"interval/two_stage/{metric}/low", f"interval/two_stage/{metric}/high")
    value, low, high = (np.array([run.metrics[name] for run in found]) for name in names)
    axes.errorbar(value, table["run"], xerr=[value - low, high - value], fmt="o", color=BLUE, capsize=3)
    axes.set(xlabel=f"{label}, 95 % interval", xlim=(0, None), ylim=(-0.5, len(table) - 0.5))
plt.show()

# %% [markdown]
# Curves are metrics with steps: here the step is the number of candidates.

# %%
figure, axes = plt.subplots(figsize=(7, 3.5))
for row, colour, marker in zip(table.drop_duplicates("tags.retriever").itertuples(), ("#0072B2", "#D55E00"), "os", strict=True):
    points = sorted((point.step, point.value) for point in store.get_metric_history(row.run_id, "candidates/recall_at_k"))
    axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=row.run.partition(" · ")[0])
axes.set(xscale="log", xlabel="candidates a query", ylabel="candidate recall", ylim=(0, None))
axes.set_xticks([step for step, _ in points], [step for step, _ in points])
axes.minorticks_off()
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Is the difference real?
#
# Intervals of two runs may overlap and the runs still differ: they answered the same queries, and pairs say more. Every run is
# compared with the first, and p-values are corrected for being several (Holm). `scripts/compare.py RUN RUN` prints the same.

# %%
compared = comparison.compare(found[0], found[1:])
figure, axes = plt.subplots(figsize=(7, 2.2))
for name, other in zip(table["run"][1:], compared["others"], strict=True):
    [row] = [row for row in other["metrics"] if row["metric"] == other["leading"]]
    low, value, high = (row["difference"][bound] for bound in ("low", "value", "high"))
    axes.errorbar(value, name, xerr=[[value - low], [high - value]], fmt="o", color=BLUE, capsize=3)
    print(f"{name}: {row['difference']['value']:+.4f} [{low:+.4f}, {high:+.4f}], p = {row['p_holm']:.4f}")
axes.axvline(0, color="0.7", lw=0.8, zorder=0)
axes.set(xlabel=f"difference in NDCG@10 from {table['run'][0]}, 95 % interval", ylim=(-0.5, len(found) - 1.5))
plt.show()

# %% [markdown]
# And what made it: the source or the feature family that moved right answers into the lists of the last run, or out of them.

# %%
display(pd.DataFrame(compared["others"][-1]["causes"]))

# %% [markdown]
# ## A small sweep
#
# `sweep=ranking` tries other settings of the ranker on candidates from the cache. Trials are judged on windows before the test
# cutoff; the test window is looked at once, in the end. Four trials show how it reads, not what tuning can do.

# %%
printed = train("retriever=covisitation", "ranker.trees=100", "sweep=ranking", "sweep.trials=4")
print("\n".join(line for line in printed.splitlines() if line.startswith("ranking ")))

# %%
parent, trials = children("sweep")
trials = trials[trials["tags.mlflow.runName"].str.startswith("trial ")].dropna(subset="metrics.two_stage/ndcg_at_10")
settings = {f"params.ranker.{name}": name for name in ("learning_rate", "leaves", "min_data_in_leaf", "l2")}
came_to = trials["metrics.two_stage/ndcg_at_10"]
figure, panels = plt.subplots(1, len(settings), figsize=(9, 2.4), sharey=True)
for axes, (column, label) in zip(panels, settings.items(), strict=True):
    axes.scatter(trials[column].astype(float), came_to, color=np.where(came_to == came_to.max(), "#D55E00", BLUE))
    axes.set(xscale="log", xlabel=label.replace("_", " "))
panels[0].set_ylabel("validation NDCG@10")
plt.show()

# %% [markdown]
# The parent run keeps the winner as a command, and what it came to on the test window beside the defaults. With so few trials
# the defaults often win, and the sweep says so. To run the command, add the `--config-dir` of the commands above.

# %%
print(parent.data.tags["best"], parent.data.tags["test"], sep="\n\n")

# %% [markdown]
# Next: [5 · From lists to e-mails](5_lists_to_emails.py).
