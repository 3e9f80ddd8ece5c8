"""Writing letters: lists, reasons and e-mails for a block of customers at once."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from recsys.delivery.channel import Channel
from recsys.delivery.language import Language
from recsys.delivery.letter import Letter, Recipient, Recommended
from recsys.delivery.products import Products
from recsys.delivery.reasons import Explainer
from recsys.delivery.rendering import EmailTemplate
from recsys.recommender import TwoStageRecommender
from recsys.shop.pools import CandidatePool, Float32, Ranking


class Writer:
    """Writes the letters of a channel from a model. What does not depend on the customer is made once.

    `generated_at` (ISO 8601) is the time that all letters bear, by default now.
    """

    def __init__(self, model: TwoStageRecommender, channel: Channel, generated_at: str | None = None) -> None:
        self._model, self._channel = model, channel
        language = Language.load(channel.language)
        self.products = Products.of(model, language, channel.currency, channel.product_url, channel.catalogue)
        self._explainer = Explainer(model, self.products, language)
        self._template = EmailTemplate(channel, language)
        self.generated_at = generated_at or datetime.now(UTC).isoformat(timespec="seconds")

    def write(self, recipients: Sequence[Recipient]) -> list[Letter]:
        """One letter a customer, in the same order; one that the model has nothing for has no e-mail."""
        model = self._model
        queries = model.queries([recipient.user for recipient in recipients])
        pool = model.pool(queries)
        features = model.describe(pool, queries)
        score = model.ranker.score(features)
        ranking = pool.order(score, self._channel.items)
        reasons = self._explainer.explain(queries, ranking, self._channel.reasons, features)
        percent = scaled(ranking, pool, score)
        letters = []
        for q, recipient in enumerate(recipients):
            recommendations = tuple(
                Recommended(self.products[int(ranking.item[q, place])], int(percent[q, place]), of_item)
                for place, of_item in enumerate(reasons[q])
            )
            email = self._template.fill(recipient, recommendations)
            letters.append(Letter(recipient, self.generated_at, recommendations, email))
        return letters


def scaled(ranking: Ranking, pool: CandidatePool, score: Float32) -> npt.NDArray[np.int64]:
    """Scores of lists as 0–100: 100 the best of the query's candidates, 0 the worst, in proportion between; 0 for no item."""
    low, high = np.full(len(ranking), np.inf), np.full(len(ranking), -np.inf)
    np.minimum.at(low, pool.row, score)
    np.maximum.at(high, pool.row, score)
    span = (high - low)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(span > 0, (ranking.score - low[:, None]) / span, 1.0)
    return np.where(ranking.item >= 0, np.rint(100 * share), 0).astype(np.int64)
