"""The nightly batch: lists for many users as one Parquet file.

It is made shard by shard, so that memory is bounded and a stopped batch goes on where it was; every engine makes the same
shards with the same code. A finished shard is a file beside the result; when all are there, they become it at one stroke.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

import recsys
from recsys import runs
from recsys.component import Component, component
from recsys.delivery.audience import Audience
from recsys.delivery.recipients import few
from recsys.digest import digest
from recsys.errors import ConfigError, DataError
from recsys.serving.lists import Lists
from recsys.serving.spark import Spark
from recsys.shop.identity import Ids


@dataclass(frozen=True)
class Summary:
    """What a batch did."""

    out: Path
    users: int
    lists: int
    """Users with a list; the others got none."""
    fallback: int
    """Lists of what is popular."""
    items: int
    """Rows of the result."""


@component
class Batch(Component):
    """What to recommend to whom, where to write it, and what does the work.

    Raises `ConfigError` and `DataError` for a run, users or a place that are not there.
    """

    run: str = "latest"
    """A run folder, its name, latest, latest~1, an MLflow run id or name."""
    users: str | PositiveInt = "all"
    """A segment (`all`, `buyers`, `active`, …), a file of ids, or a number: so many who came last."""
    k: PositiveInt = 10
    """Most items of a list."""
    out: str = "recs.parquet"
    reasons: NonNegativeInt = 0
    """Most reasons an item."""
    shard: PositiveInt = 4096
    """Users worked on at once: memory grows with it, time hardly falls."""
    engine: Literal["local", "spark"] = "local"
    spark: Spark = Field(default_factory=Spark)
    """Of `engine=spark`."""
    outputs: str = "outputs"
    """Where the run folders are."""

    @field_validator("out")
    @classmethod
    def _a_parquet_file(cls, value: str) -> str:
        if Path(value).suffix != ".parquet":
            raise ValueError(f"wanted a file that ends in .parquet, found {value!r}")
        return value

    def write(self, say: Callable[[str], None], shown: Callable[[int, int], None]) -> Summary:
        """Make the lists. `say` is told what is worth knowing, `shown` how many users of how many are done.

        The result is there whole or not at all. What a stopped batch had finished is kept in `<out>.parts` and not made again,
        unless the model, the users or a setting changed since.
        """
        out = Path(self.out)
        if not out.parent.is_dir():
            raise ConfigError(f"out: there is no folder {out.parent}")
        run = runs.find(self.run, Path(self.outputs))
        lists = Lists(run.path / "model", self.k, self.reasons)
        if not (lists.model / "model.yaml").is_file():
            raise DataError(f"{run.path}: wanted a saved model in it, found none; was the run fetched from elsewhere?")
        model = lists.advisor.model
        if self.k > model.candidates:
            raise ConfigError(f"k: wanted at most {model.candidates}, the model's candidates a user, found {self.k}")
        audience = Audience.of(self.users, model)
        users = lists.advisor.history.users.as_held(audience.users)
        for unknown in filter(None, audience.unknown.values()):
            found = f"{len(unknown):,} of {len(users):,} users are not known to the model"
            say(f"{found}: {few([repr(user) for user in unknown])}; their lists are of what is popular")
        parts = Path(f"{out}.parts")
        settings = {
            "model": fingerprint(lists.model),
            "users": digest(users),
            **{name: getattr(self, name) for name in ("k", "reasons", "shard")},
            "version": recsys.__version__,
        }
        shards = [(i, users[start : start + self.shard]) for i, start in enumerate(range(0, len(users), self.shard))]
        _open_parts(parts, settings, say)
        todo = [(i, part) for i, part in shards if not _part(parts, i).is_file()]
        done = len(users) - sum(len(part) for _, part in todo)
        if done:
            say(f"{len(shards) - len(todo):,} of {len(shards):,} shards are there already, from a batch that was stopped")
        shown(done, len(users))
        for i, content in self._made(lists, todo):
            draft = parts / f".{i}"
            draft.write_bytes(content)
            draft.rename(_part(parts, i))
            done += len(shards[i][1])
            shown(done, len(users))
        summary = _join([_part(parts, i) for i, _ in shards], parts / "whole", out, len(users))
        shutil.rmtree(parts)
        return summary

    def _made(self, lists: Lists, shards: Sequence[tuple[int, Ids]]) -> Iterator[tuple[int, bytes]]:
        """The number and the content of each shard, in the order in which they are finished."""
        if self.engine == "spark":
            yield from self.spark.made(lists, shards)
        else:
            yield from ((i, lists.parquet(users)) for i, users in shards)


def fingerprint(folder: Path) -> str:
    """Hash of the files of a folder, by name and content."""
    total = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "blake2b").digest())
    return total.hexdigest()


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06}.parquet"


def _open_parts(parts: Path, settings: dict[str, Any], say: Callable[[str], None]) -> None:
    """Make the folder of finished shards, anew where those in it were made with other settings."""
    about = parts / "settings.json"
    if parts.is_dir():
        before = json.loads(about.read_text()) if about.is_file() else {}
        if before == settings:
            return
        changed = ", ".join(
            name if name in ("model", "users") else f"{name} {before.get(name)} → {value}"
            for name, value in settings.items()
            if before.get(name) != value
        )
        say(f"a batch that was stopped differs ({changed}): its shards are thrown away")
        shutil.rmtree(parts)
    parts.mkdir()
    draft = parts / ".settings"
    draft.write_text(json.dumps(settings, indent=2) + "\n")
    draft.rename(about)


def _join(parts: Sequence[Path], draft: Path, out: Path, users: int) -> Summary:
    """Put the shards into one file, a row group each."""
    lists = fallback = items = 0
    with pq.ParquetWriter(draft, pq.read_schema(parts[0]), compression="zstd") as writer:
        for path in parts:
            table = pq.read_table(path)
            writer.write_table(table)
            first = table.filter(pc.equal(table["rank"], 1))
            items, lists, fallback = items + len(table), lists + len(first), fallback + (pc.sum(first["fallback"]).as_py() or 0)
    draft.replace(out)
    return Summary(out, users, lists, fallback, items)
