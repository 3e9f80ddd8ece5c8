"""Why an item is recommended: facts of the log, the ones first that moved the ranker most."""

from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.delivery.facts import Fact, Facts, Pairs
from recsys.delivery.language import Language
from recsys.delivery.letter import Reason
from recsys.delivery.products import Products, isolated, short
from recsys.features import FeatureMatrix
from recsys.features.history import find
from recsys.recommender import TwoStageRecommender
from recsys.shop.events import MILLISECONDS_PER_DAY
from recsys.shop.pools import Ranking
from recsys.shop.queries import Queries
from recsys.shop.reasons import CODES, NOTHING, Code

LONGEST_NAME = 48
"""Characters of another product's name inside a reason."""

SUBJECTS: dict[Code, str] = {
    "in_cart": "cart",
    "due_again": "purchase",
    "bought_before": "purchase",
    "viewed": "view",
    "bought_together": "others",
    "viewed_together": "others",
    "bought_in_category": "category",
    "viewed_in_category": "category",
    "popular_in_category": "shop",
    "trending": "shop",
    "bestseller": "shop",
    "popular": "shop",
}
"""What a reason is about: of one subject only one is said."""


class Explainer:
    """Gives reasons for a model's lists. Making one counts the log once; it can then be asked for any queries."""

    def __init__(self, model: TwoStageRecommender, products: Products, language: Language) -> None:
        self._model, self._products, self._language = model, products, language
        category, self._categories = products.categories
        self._facts = Facts(model.history, model.cutoff, category)

    @classmethod
    def of(cls, model: TwoStageRecommender, language: str = "en") -> "Explainer":
        """With the model's own product names."""
        spoken = Language.load(language)
        return cls(model, Products.of(model, spoken), spoken)

    def explain(
        self, queries: Queries, ranking: Ranking, n: int, features: FeatureMatrix | None = None
    ) -> list[list[tuple[Reason, ...]]]:
        """Up to `n` reasons for each item of each list, in the order of the list.

        Which come first is decided by the ranker's contributions, summed over the columns that speak for a reason: the model's
        retriever and feature families declare it (`speaks_for`). `features` is what the ranker saw of the queries' candidates,
        made again where it is not at hand.
        """
        row, place = np.nonzero(ranking.item >= 0)
        item = ranking.item[row, place]
        order = np.lexsort((item, row))
        pairs = Pairs(row[order].astype(np.int32), item[order])
        facts = self._facts.of(queries, pairs)
        holds = np.column_stack([facts[code].holds for code in CODES])
        weight = self._weights(queries, pairs, features, (holds.sum(axis=1) > 1) & (n > 0))
        first = np.argsort(np.where(holds, -weight, np.inf), axis=1, kind="stable")
        lists: list[list[tuple[Reason, ...]]] = [[() for _ in range(int(length))] for length in ranking.length]
        for at, (of, where) in enumerate(zip(row[order].tolist(), place[order].tolist(), strict=True)):
            lists[of][where] = self._say(facts, [c for c in first[at] if holds[at, c]], at, n, queries.time)
        return lists

    def _weights(
        self, queries: Queries, pairs: Pairs, features: FeatureMatrix | None, wanted: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """What the ranker's contributions to the score of each `wanted` pair say for each code; 0 where it cannot tell."""
        weight = np.zeros((len(pairs), len(CODES)))
        ranker = self._model.ranker
        if not ranker.reads or not wanted.any():
            return weight
        matrix = self._model.describe(self._model.pool(queries), queries) if features is None else features
        at, found = find(pairs.key[wanted], matrix.pool.key)
        contributions = ranker.contributions(matrix.where(found))
        if contributions is not None:
            sources = self._model.retriever.speakers()
            heard = {name: sources.get(name, NOTHING) for name in matrix.pool.sources}
            spoken = self._model.features.speakers(heard, queries.kinds)
            codes = [spoken.get(name, NOTHING) for name in matrix.names]
            speaks = np.array([[code in of_column for code in CODES] for of_column in codes], dtype=np.float64)
            weight[np.flatnonzero(wanted)[at[found]]] = contributions @ speaks.reshape(len(matrix.names), len(CODES))
        return weight

    def _say(self, facts: dict[str, Fact], codes: list[int], at: int, n: int, now: int) -> tuple[Reason, ...]:
        said: list[Reason] = []
        subjects: set[str] = set()
        for code in (CODES[c] for c in codes):
            if len(said) < n and SUBJECTS[code] not in subjects:
                subjects.add(SUBJECTS[code])
                said.append(self._reason(code, {name: values[at] for name, values in facts[code].evidence.items()}, now))
        return tuple(said)

    def _reason(self, code: Code, found: dict[str, Any], now: int) -> Reason:
        evidence: dict[str, str | int | float] = {}
        for name, value in found.items():
            if name in ("since", "last", "until"):
                evidence[name] = _day(int(value))
            elif name == "item":
                product = self._products[int(value)]
                evidence |= {"item": product.id, "product": short(product.name, LONGEST_NAME)}
            elif name == "category":
                evidence[name] = self._categories[int(value)]
            else:
                evidence[name] = int(value)
        words: dict[str, Any] = dict(evidence)
        if "product" in words:
            words["product"] = self._language.say("quoted", text=isolated(words["product"]))
        if "category" in words:
            words["category"] = self._language.say("category", category=isolated(words["category"]))
        return Reason(code, self._language.say(f"reasons.{code}", today=_day(now // MILLISECONDS_PER_DAY), **words), evidence)


def explain(model: TwoStageRecommender, queries: Queries, ranking: Ranking, n: int) -> list[list[tuple[Reason, ...]]]:
    """`Explainer.explain` for once, in English; whoever asks again keeps an `Explainer`."""
    return Explainer.of(model).explain(queries, ranking, n)


def _day(number: int) -> str:
    return date.fromordinal(date(1970, 1, 1).toordinal() + number).isoformat()
