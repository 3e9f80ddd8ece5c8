"""Runs each step with each configured component; prints as JSON which modules of the package ran, and which are in the key.

A program of its own, to be started with NUMBA_DISABLE_JIT=1: compiled functions leave no trace.
"""

import json
import sys
import tempfile
import threading
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import recsys
from recsys.cache import StageCache, store
from recsys.component import construct
from recsys.datasets import kept
from recsys.datasets.online_retail import OnlineRetail
from recsys.datasets.retailrocket import RetailRocket
from recsys.datasets.simulation import simulate
from recsys.datasets.synthetic import Synthetic, write
from recsys.datasets.table import Csv
from recsys.features import FeatureSet
from recsys.first_stage import FirstStage
from recsys.retrieval import Popularity
from recsys.shop.queries import Queries
from recsys.timing import Timings

HOME = Path(recsys.__file__).parent
CONF = HOME.parent / "conf"

watched = []
"""Files that ran, a set for each step under way."""
codes = []
"""The code behind the key that was made last, on top."""
steps = []
subject = [""]
"""What is being run."""


def watch(frame, event, argument):
    if event == "call" and watched and frame.f_code.co_name != "<module>":
        for ran in watched:
            ran.add(frame.f_code.co_filename)


class Watched(StageCache):
    """Watches what runs from when a step is asked for until its result is there."""

    def _of(self, place, make, write, read):
        key, ran = codes.pop(), set()
        watched.append(ran)
        try:
            return super()._of(place, make, write, read)
        finally:
            watched.pop()
            own = [Path(file).relative_to(HOME).with_suffix("") for file in ran if file.startswith(f"{HOME}/")]
            names = sorted(".".join(["recsys", *path.parts]).removesuffix(".__init__") for path in own)
            steps.append({"step": place.name.partition("-")[0], "of": subject[0], "ran": names, "key": sorted(key.modules)})


def code_of(*given, real=store.code_of):
    codes.append(real(*given))
    return codes[-1]


def settings(group, *overrides):
    config = compose("config", [*overrides, "output_dir=somewhere"])
    return OmegaConf.to_container(config, resolve=True)[group]


def retrievers():
    learning = ["budget=learn", "fusion=learned", "sources=[covisitation,history]"]
    yield "hybrid that learns", settings("retriever", "retriever=hybrid", *(f"retriever.{each}" for each in learning))
    yield "hybrid", settings("retriever", "retriever=hybrid")
    for path in sorted(path for path in (CONF / "retriever").glob("*.yaml") if path.stem != "hybrid"):
        yield path.stem, settings("retriever", f"retriever={path.stem}")


def families():
    full = settings("features", "features=full")
    for name in full["families"]:
        chosen = full["families"] if name == "within_query" else [name]
        yield name, full | {"families": chosen, "definitions": {each: full["definitions"][each] for each in chosen}}


def sources(folder):
    write(simulate(0.0005, 1), folder / "shop")
    csv, sheet = folder / "events.csv", folder / "retail.csv"
    csv.write_text("user,item,time,event\nann,17,1400000001000,view\nbob,18,1400000002000,transaction\n")
    columns = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
    sheet.write_text(f"{columns}\n536365,85123A,Lantern,6,2010-12-01 08:26:00,2.55,17850,France\n")
    yield Csv(path=str(csv), columns={name: name for name in ("user", "item", "time", "event")})
    yield OnlineRetail(path=str(sheet))
    yield RetailRocket(path=str(folder / "shop"), properties="all")
    yield Synthetic(scale=0.0005)


with tempfile.TemporaryDirectory() as scratch, initialize_config_dir(str(CONF), version_base="1.3"):
    folder, cache = Path(scratch), Watched(folder=Path(scratch, "cache"))
    store.code_of = code_of
    sys.setprofile(watch)
    threading.setprofile(watch)
    for source in sources(folder):
        subject[0] = type(source).__name__
        dataset = kept.load(source, cache)
        kept.load(source, cache)
    cutoff = int(dataset.log.time[len(dataset.log) * 3 // 4])
    history = dataset.before(cutoff).log
    queries = Queries.at(history, history.user[-30:], cutoff)
    nothing = FeatureSet(families=[], definitions={})

    def first(retriever, features):
        return FirstStage(retriever, features, dataset, cutoff, cache, Timings())

    for subject[0], chosen in retrievers():
        for _ in range(2):
            first(construct(chosen), nothing).pool(queries, 20)
        assert first(construct(chosen), nothing).retriever
    for subject[0], chosen in families():
        for _ in range(2):
            stage = first(Popularity(), construct(chosen))
            stage.describe(stage.pool(queries, 20), queries)
    sys.setprofile(None)
print(json.dumps(steps))
