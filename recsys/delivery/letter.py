"""What one customer is told: products, why, and the e-mail that says so."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Why an item is recommended: a fact that the log bears out."""

    code: str
    text: str
    evidence: Mapping[str, str | int | float]


@dataclass(frozen=True)
class Product:
    """What is known of an item to show; None where nothing is."""

    id: str
    name: str
    price: str | None = None
    image: str | None = None
    url: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class Recommended:
    """A product of a list; `score` is 0–100, the best of the list first."""

    product: Product
    score: int
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Recipient:
    """Who is written to. `user` is the shop's own id, as text."""

    user: str
    email: str | None = None
    first_name: str | None = None


@dataclass(frozen=True)
class Email:
    """One message, ready to be handed to a mail service. `html` and `text` say the same."""

    subject: str
    preheader: str
    html: str
    text: str
    cta_text: str
    cta_url: str | None


@dataclass(frozen=True)
class Letter:
    """A customer's recommendations and the e-mail about them; `email` is None where there is nothing to recommend."""

    recipient: Recipient
    generated_at: str
    recommendations: tuple[Recommended, ...]
    email: Email | None
