"""Where letters go, and the settings that all ways share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, Field, PositiveInt

from recsys.component import Component, component
from recsys.delivery.letter import Letter, Recipient
from recsys.delivery.recipients import ON_THE_LIST, Selection, Suppression, is_address, one_line, read_suppressed, select
from recsys.digest import digest


def _address(text: str) -> str:
    if not is_address(text):
        raise ValueError(f"wanted an e-mail address, found {text!r}")
    return text


def file_name(user: str) -> str:
    """A user id as a file name without ending, the same on every system; ids that differ have names that differ."""
    name = quote(user, safe="").replace(".", "%2E")
    return name if len(name) <= 100 else f"{name[:80]}-{digest(user)[:16]}"


Address = Annotated[str, AfterValidator(_address)]
Line = Annotated[str, AfterValidator(one_line), Field(min_length=1)]


@component
class Channel(Component, ABC):
    """A way for letters to reach customers. Its settings are what e-mails and payloads of every way are made with.

    `sender`, `sender_name` and `reply_to` (none: the sender) head every message; `postal_address` and a link to unsubscribe
    stand at its foot, as the law wants. `unsubscribe_url` holds `{user}`, `product_url` (none: the catalogue's own links only)
    holds `{item}`. `catalogue` is a CSV of products, `currency` an ISO 4217 code, `language` the name of a language file.
    A letter recommends `items` products, the top one and alternatives, with up to `reasons` reasons each.
    `call_to_action` is the button's text (none: the language's own). `suppression` is a file of those who must not be written
    to, see `read_suppressed`.
    """

    sender: Address = "letters@shop.example"
    sender_name: Line = "The shop"
    reply_to: Address | None = None
    postal_address: Line = "The shop, 1 High Street, Anytown"
    unsubscribe_url: str = Field(
        default="https://shop.example/unsubscribe?user={user}", pattern=r"^https://[!#-;=?-~]*\{user\}[!#-;=?-~]*$"
    )
    catalogue: str | None = None
    product_url: str | None = Field(default="https://shop.example/products/{item}", pattern=r"^https?://.*\{item\}")
    currency: str = Field(default="EUR", pattern="^[A-Z]{3}$")
    language: str = "en"
    items: PositiveInt = 3
    reasons: int = Field(default=2, ge=0)
    call_to_action: Line | None = None
    suppression: str | None = None

    @abstractmethod
    def write(self, letters: Sequence[Letter], folder: Path) -> list[Path]:
        """Write what would be handed over as files of `folder`, to look at; gives them in order."""

    def unsubscribe(self, recipient: Recipient) -> str:
        """The link at the foot of this customer's e-mail."""
        return self.unsubscribe_url.replace("{user}", quote(recipient.user, safe=""))

    def select(self, letters: Sequence[Letter]) -> Selection:
        """Whom of these customers can be written to."""
        return select(letters, self.suppressed.names)

    @property
    def suppressed(self) -> Suppression:
        """Who must not be written to, as the file says it now."""
        return read_suppressed(self.suppression)

    def is_suppressed(self, recipient: Recipient) -> bool:
        """Whether the suppression list names this customer."""
        return not {recipient.user.lower(), (recipient.email or "").strip().lower()}.isdisjoint(self.suppressed.names)

    def left_out(self, letters: Sequence[Letter]) -> Mapping[str, list[str]]:
        """The customers who would not be written to, by the reason."""
        suppressed = [letter.recipient.user for letter in letters if self.is_suppressed(letter.recipient)]
        return {ON_THE_LIST: suppressed} if suppressed else {}
