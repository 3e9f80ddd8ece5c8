"""The lists of a shard of users, as bytes: what an engine runs, in this process or another."""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.recommender import TwoStageRecommender
from recsys.serving.advisor import Advisor, told
from recsys.shop.identity import Ids

REASON = pa.struct([("code", pa.string()), ("text", pa.string())])


@dataclass(frozen=True)
class Lists:
    """Makes the lists of a shard, with the model of a folder: what an engine runs, in this process or another."""

    model: Path
    k: int
    reasons: int

    @cached_property
    def advisor(self) -> Advisor:
        """The loaded model."""
        return Advisor(TwoStageRecommender.load(self.model))

    def parquet(self, users: Ids) -> bytes:
        """The users' lists as a Parquet file: `user`, `rank` from 1, `item`, `score`, `fallback`, and `reasons` if wanted."""
        answers = self.advisor.advise(users, self.k, reasons=self.reasons)
        row, place = np.nonzero(answers.item != None)  # noqa: E711  (elementwise)
        columns = {
            "user": pa.array(users[row], pa.array(users[:1]).type),
            "rank": pa.array((place + 1).astype(np.int16)),
            "item": pa.array(answers.item[row, place], pa.array(self.advisor.history.items.ids[:1]).type),
            "score": pa.array(answers.score[row, place]),
            "fallback": pa.array(answers.fallback[row]),
        }
        if self.reasons:
            said = [[told(reason) for reason in of_item] for of_user in answers.reasons for of_item in of_user]
            columns["reasons"] = pa.array(said, pa.list_(REASON))
        file = io.BytesIO()
        pq.write_table(pa.table(columns), file, compression="zstd")
        return file.getvalue()
