"""Where letters go, and the settings that all ways share."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, Field, PositiveInt

from recsys.component import Component, component
from recsys.delivery.letter import Letter, Recipient

_ADDRESS = re.compile(
    r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]", re.A | re.I
)
_DOTS = re.compile(r"^\.|\.\.|\.@")
_NOT_ONE_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+")


def is_address(text: str) -> bool:
    """Whether a mail service takes this as an address: RFC 5321 in ASCII without quoting, 254 characters at most."""
    return len(text) <= 254 and bool(_ADDRESS.fullmatch(text)) and not _DOTS.search(text)


def one_line(text: str, length: int | None = None) -> str:
    """Text for a header or a short field: line ends and control characters become a space; cut with … beyond `length`."""
    line = _NOT_ONE_LINE.sub(" ", text).strip()
    return line if length is None or len(line) <= length else line[: length - 1].rstrip() + "…"


def _address(text: str) -> str:
    if not is_address(text):
        raise ValueError(f"wanted an e-mail address, found {text!r}")
    return text


Address = Annotated[str, AfterValidator(_address)]
Line = Annotated[str, AfterValidator(one_line), Field(min_length=1)]


@component
class Channel(Component, ABC):
    """A way for letters to reach customers. Its settings are what e-mails and payloads of every way are made with.

    `sender`, `sender_name` and `reply_to` (none: the sender) head every message; `postal_address` and a link to unsubscribe
    stand at its foot, as the law wants. `unsubscribe_url` holds `{user}`, `product_url` (none: the catalogue's own links only)
    holds `{item}`. `catalogue` is a CSV of products, `currency` an ISO 4217 code, `language` the name of a language file.
    A letter recommends `items` products, the top one and alternatives, with up to `reasons` reasons each.
    `call_to_action` is the button's text (none: the language's own).
    """

    sender: Address = "letters@shop.example"
    sender_name: Line = "The shop"
    reply_to: Address | None = None
    postal_address: Line = "The shop, 1 High Street, Anytown"
    unsubscribe_url: str = Field(default="https://shop.example/unsubscribe?user={user}", pattern=r"^https://.*\{user\}")
    catalogue: Path | None = None
    product_url: str | None = Field(default="https://shop.example/products/{item}", pattern=r"^https?://.*\{item\}")
    currency: str = Field(default="EUR", pattern="^[A-Z]{3}$")
    language: str = "en"
    items: PositiveInt = 3
    reasons: int = Field(default=2, ge=0)
    call_to_action: Line | None = None

    @abstractmethod
    def write(self, letters: Sequence[Letter], folder: Path) -> list[Path]:
        """Write what would be handed over as files of `folder`, to look at; gives them in order."""

    def unsubscribe(self, recipient: Recipient) -> str:
        """The link at the foot of this customer's e-mail."""
        return self.unsubscribe_url.replace("{user}", quote(recipient.user, safe=""))
