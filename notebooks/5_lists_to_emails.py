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
# # 5 · From lists to e-mails
#
# A list of products is not yet a letter. Here a model's lists get reasons that the log bears out, become e-mails, and then what
# a mail service takes. Nothing is sent. The command for all of it is `python scripts/emails.py run=latest delivery=sendgrid`.

# %%
# %matplotlib inline
import json
import tempfile
from collections import Counter
from dataclasses import replace
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

from recsys import features, retrieval
from recsys.datasets.synthetic import Synthetic
from recsys.delivery.audience import SEGMENTS, Audience
from recsys.delivery.document import Json
from recsys.delivery.letters import Writer
from recsys.delivery.sendgrid import SendGrid
from recsys.ranking import LambdaRank
from recsys.recommender import TwoStageRecommender
from recsys.report import plots
from recsys.shop.splits import Split

plt.rcParams |= {"figure.dpi": 120, "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False}
pd.set_option("display.max_colwidth", None)

# %% [markdown]
# The next cell is the only one to change for your own events. Every option of a CSV is explained in `conf/dataset/csv.yaml`.

# %%
DATASET = Synthetic(scale=0.05)
# from recsys.datasets.table import Csv
# DATASET = Csv(path="events.csv", columns={"user": "uid", "item": "sku", "time": "ts", "event": "what"}, time_unit="s",
#               events={"pv": "view", "cart": "addtocart", "buy": "transaction"})

# %% [markdown]
# ## A model
#
# As in notebook 2, but fitted at the end of the log: a letter should know yesterday. The label windows end there too.

# %%
dataset = DATASET.load()
log, end = dataset.log, int(dataset.log.time[-1]) + 1
split = Split(label_cutoffs=2)
fold = split.fold(dataset)
later = end - fold.test.cutoff
windows = [replace(window, cutoff=window.cutoff + later, end=window.end + later) for window in fold.labels]
model = TwoStageRecommender(
    retrieval.Hybrid(
        sources=["history", "covisitation", "popularity"],
        definitions={
            "history": retrieval.History(),
            "covisitation": retrieval.Covisitation(),
            "popularity": retrieval.Popularity(window_days=28),
        },
    ),
    features.FeatureSet(families=["source", "user_item", "item", "user"]),
    LambdaRank(trees=100, leaves=15),
    candidates=100,
)
model.fit(dataset, end, [split.label_task(dataset, window) for window in windows])
print(f"{dataset.name}: a model that knows all up to {pd.Timestamp(log.time[-1], unit='ms'):%Y-%m-%d %H:%M}")

# %% [markdown]
# ## Whom to write to
#
# The newest so many customers, a file of them, or a segment of the log.

# %%
sizes = {name: len(select(model.history, model.cutoff)) for name, (_, select) in SEGMENTS.items()}
meanings = {name: meaning for name, (meaning, _) in SEGMENTS.items()}
display(pd.DataFrame({"customers": sizes, "who": meanings}))

# %% [markdown]
# ## Letters with reasons
#
# Each reason is a fact that can be looked up: its evidence goes with it. Which fact is said first is decided by what moved the
# ranker. Read a few against the customer's own events, as a customer would.

# %%
channel = Json(items=3, reasons=2)
writer = Writer(model, channel, generated_at=str(pd.Timestamp(end, unit="ms", tz="UTC").floor("s").isoformat()))
[customers] = Audience.of(300, model).blocks(300)
letters = [letter for letter in writer.write(customers) if letter.email]
spoken = [
    {
        "customer": letter.recipient.user,
        "product": each.product.name,
        "score": each.score,
        "reasons": "; ".join(reason.text for reason in each.reasons),
    }
    for letter in letters[:4]
    for each in letter.recommendations
]
display(pd.DataFrame(spoken).set_index(["customer", "product"]))

# %%
[number] = log.users.numbers([letters[0].recipient.user])
own = log.where(log.user == number)
events = {
    "time": pd.to_datetime(own.time, unit="ms").floor("s"),
    "event": [own.kinds.names[kind] for kind in own.kind],
    "product": [writer.products[int(item)].name for item in own.item],
}
print(f"What customer {letters[0].recipient.user} did last:")
display(pd.DataFrame(events).tail(8))

# %% [markdown]
# Which kinds of reason the letters give. Many `popular` or `bestseller` mean that little is known of these customers.

# %%
every = [each for letter in letters for each in letter.recommendations]
codes = Counter(reason.code for each in every for reason in each.reasons)
names, counts = zip(*codes.most_common()[::-1], strict=True) if codes else ((), ())
figure, axes = plt.subplots(figsize=(7, 0.8 + 0.3 * len(names)))
axes.barh([name.replace("_", " ") for name in names], [count / len(every) for count in counts], color=plots.BLUE)
axes.set(xlabel=f"share of {len(every):,} recommended products with this reason")
axes.xaxis.set_major_formatter("{x:.0%}")
plt.show()

# %% [markdown]
# ## The e-mail
#
# One MJML template makes HTML for every mail program, and plain text that says the same. The frame below runs no scripts.

# %%
letter = letters[0]
print(f"Subject: {letter.email.subject}\n{letter.email.preheader}")
frame = f'<iframe sandbox srcdoc="{escape(letter.email.html)}" width="420" height="640" style="border:1px solid #ccc"></iframe>'
display({"text/html": frame}, raw=True)

# %%
print(letter.email.text)

# %% [markdown]
# ## Payloads
#
# A channel writes what would be handed over as files. JSON documents hold to a published schema; they carry no address.

# %%
with tempfile.TemporaryDirectory() as folder:
    [first, *_] = [path for path in channel.write([letter], Path(folder)) if path.name.startswith("recommendation_")]
    document = json.loads(first.read_text())
document["email"] |= {body: document["email"][body][:60] + " …" for body in ("body_text", "body_html")}
print(first.name, json.dumps(document, indent=2, ensure_ascii=False), sep="\n")

# %% [markdown]
# A mail service wants addresses: here stand-ins under a name that no mail can reach. One request carries up to a thousand
# customers; sending it takes `--send` and a key in the environment.

# %%
stand_ins = [replace(letter.recipient, email=f"customer{i}@customer.invalid") for i, letter in enumerate(letters)]
addressed = [replace(letter, recipient=recipient) for letter, recipient in zip(letters, stand_ins, strict=True)]
with tempfile.TemporaryDirectory() as folder:
    written = SendGrid(categories=["notebook"]).write(addressed[:50], Path(folder))
    request = json.loads(written[0].read_text())
    print("\n".join(f"{path.stat().st_size:>9,} bytes  {path.relative_to(folder)}" for path in written))
print(f"\n{len(request['personalizations'])} customers in one request; the first:")
print(json.dumps(request["personalizations"][0], indent=2, ensure_ascii=False)[:1500], "…")
