"""What is known of customers, read as of a time."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys.shop.attributes import Attributes, Type, changes_of, type_of
from recsys.shop.events import Int64
from recsys.shop.identity import Vocabulary
from recsys.shop.pairs import pair_key


@dataclass(frozen=True, eq=False)
class Customers(Attributes):
    """Attributes of a log's users, such as country or age, each of a type in `types`, by name."""

    @classmethod
    def build(
        cls, users: Vocabulary, user_born: Int64, changes: pd.DataFrame, types: Mapping[str, Type] | None = None
    ) -> "Customers":
        """From a frame of changes: columns `user` (own ids), `time` (epoch ms), `property` and `value` (text or categorical).

        Every user of `changes` has to be in `users`. What held when a user first appeared is known from then on, not before:
        a past does not show who will come. `types` of properties that it does not name are told by their texts (`type_of`).
        """
        owner = users.numbers(changes["user"].to_numpy())
        time = changes["time"].to_numpy(dtype=np.int64)
        table = changes_of(owner, time, changes["property"], changes["value"], user_born, {})
        early = np.flatnonzero(table.time <= user_born[table.owner])[::-1]
        kept = table.time > user_born[table.owner]
        kept[early[np.unique(pair_key(table.owner, table.prop)[early], return_index=True)[1]]] = True
        frame, owner = table.frame(users)[kept], table.owner[kept]
        texts = frame["value"].astype(str).groupby(frame["property"], observed=True)
        by_texts = {str(name): type_of(of_name) for name, of_name in texts}
        types = dict(sorted((by_texts | dict(types or {})).items()))
        time = np.maximum(frame["time"].to_numpy(), user_born[owner])
        return cls(**vars(changes_of(owner, time, frame["property"], frame["value"], user_born, types)))

    @classmethod
    def empty(cls, users: Vocabulary, user_born: Int64) -> "Customers":
        """Customers of whom nothing is known."""
        return cls.build(users, user_born, pd.DataFrame({"user": [], "time": [], "property": [], "value": []}))

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.born)
