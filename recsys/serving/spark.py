"""Shards of a batch on Spark: a job each, so that they finish one by one, are kept one by one, and none waits for another."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, PositiveInt

from recsys.component import Component, component
from recsys.errors import ConfigError
from recsys.serving.lists import Lists
from recsys.shop.identity import Ids


@component
class Spark(Component):
    """Where Spark runs. Its workers need this package in the same version; the driver sends the model and keeps their lists.

    Raises `ConfigError` when pyspark or Java is not there.
    """

    master: str = "local[*]"
    """Spark's master: `local[4]`, `spark://host:7077`, `yarn`, `k8s://…`."""
    ship: bool = True
    """Send the model to the workers; else they read it where the driver does, on a file system that all share."""
    at_once: PositiveInt | None = None
    """Shards in work at a time; none: as many as the cluster has cores when the batch starts."""
    conf: dict[str, str] = Field(default_factory=dict)
    """More of Spark's own properties, such as `spark.executor.memory: 8g`."""

    def made(self, lists: Lists, shards: Sequence[tuple[int, Ids]]) -> Iterator[tuple[int, bytes]]:
        """The number and the content of each shard, in the order in which they are finished."""
        if not shards:
            return
        ids = "long" if shards[0][1].dtype.kind == "i" else "string"
        session, mine = self._session()
        with tempfile.TemporaryDirectory() as scratch:
            try:
                where = self._sent(session, lists.model, Path(scratch)) if self.ship else lists.model.resolve()
                work = _Work(where, lists.k, lists.reasons)

                def make(number: int, users: Ids) -> tuple[int, bytes]:
                    asked = session.createDataFrame([(users.tolist(),)], f"users array<{ids}>").coalesce(1)
                    return number, bytes(asked.mapInPandas(work, "part binary").collect()[0][0])

                with ThreadPoolExecutor(self.at_once or session.sparkContext.defaultParallelism) as threads:
                    jobs = [threads.submit(make, number, users) for number, users in shards]
                    try:
                        for job in as_completed(jobs):
                            yield job.result()
                    finally:
                        threads.shutdown(cancel_futures=True)
            finally:
                if mine:
                    session.stop()

    def _session(self) -> tuple[Any, bool]:
        """A session, and whether it was started here."""
        try:
            from pyspark.errors import PySparkRuntimeError
            from pyspark.sql import SparkSession
        except ImportError:
            raise ConfigError("engine: spark needs pyspark, not installed here: pip install pyspark") from None
        if running := SparkSession.getActiveSession():
            return running, False
        if self.master.startswith("local"):
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        properties = {"spark.ui.showConsoleProgress": "false", "spark.log.level": "ERROR", **self.conf}
        builder = SparkSession.builder.appName("recsys").master(self.master)
        for name, value in properties.items():
            builder = builder.config(name, value)
        try:
            return builder.getOrCreate(), True
        except PySparkRuntimeError as error:
            raise ConfigError(f"engine: Spark did not start on {self.master}: {error}; is there a Java 17 or newer?") from None

    def _sent(self, session: Any, model: Path, scratch: Path) -> str:
        """Send the model; gives the name that a worker finds it by."""
        archive = Path(shutil.make_archive(str(scratch / scratch.name), "zip", model))
        session.sparkContext.addArchive(f"{archive}#{archive.stem}")
        return archive.stem


class _Work:
    """What a worker does: one shard of users a row, its content a row."""

    def __init__(self, where: str | Path, k: int, reasons: int) -> None:
        self.where, self.k, self.reasons = where, k, reasons

    def __call__(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        lists = _lists(self.where, self.k, self.reasons)
        for frame in frames:
            yield pd.DataFrame({"part": [lists.parquet(users) for users in frame["users"]]})


@cache
def _lists(where: str | Path, k: int, reasons: int) -> Lists:
    """A worker loads the model once."""
    from pyspark import SparkFiles

    return Lists(where if isinstance(where, Path) else Path(SparkFiles.get(where)), k, reasons)
