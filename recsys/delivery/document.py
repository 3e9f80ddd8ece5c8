"""Letters as JSON documents, one a customer, for whatever else a shop wants to do with them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from recsys.component import component
from recsys.delivery.channel import Channel, file_name
from recsys.delivery.letter import Letter

SCHEMA = Path(__file__).parent / "recommendation.schema.json"
"""JSON Schema (2020-12) of the documents."""


@component
class Json(Channel):
    """Writes `recommendation_<user>.json` for every letter, and the schema that the documents hold to beside them."""

    def write(self, letters: Sequence[Letter], folder: Path) -> list[Path]:
        """See `Channel.write`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SCHEMA.name).write_text(SCHEMA.read_text(encoding="utf-8"), encoding="utf-8")
        paths = []
        for letter in letters:
            paths.append(folder / f"recommendation_{file_name(letter.recipient.user)}.json")
            text = json.dumps(document(letter), indent=2, ensure_ascii=False)
            paths[-1].write_text(text + "\n", encoding="utf-8", errors="replace")
        return paths


def document(letter: Letter) -> dict[str, Any]:
    """The letter as plain values, as `recommendation.schema.json` describes them. Addresses of customers are not in it."""
    email = letter.email
    return {
        "visitor_id": letter.recipient.user,
        "generated_at": letter.generated_at,
        "recommendations": [
            {
                "item_id": each.product.id,
                "item_name": each.product.name,
                "score": each.score,
                "price": each.product.price,
                "category": each.product.category,
                "image": each.product.image,
                "url": each.product.url,
                "reason_codes": [reason.code for reason in each.reasons],
                "reasons": [asdict(reason) for reason in each.reasons],
            }
            for each in letter.recommendations
        ],
        "email": email
        and {
            "subject": email.subject,
            "preheader": email.preheader,
            "body_text": email.text,
            "body_html": email.html,
            "cta_text": email.cta_text,
            "cta_url": email.cta_url,
        },
    }


@cache
def schema() -> dict[str, Any]:
    """The published JSON Schema."""
    values: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return values
