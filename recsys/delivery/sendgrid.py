"""SendGrid: the v3 mail/send API with a dynamic template."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

from pydantic import Field, PositiveInt
from sendgrid.helpers.mail import (  # type: ignore[import-untyped]
    Asm,
    Category,
    CustomArg,
    From,
    GroupId,
    Header,
    Mail,
    Personalization,
    ReplyTo,
    TemplateId,
    To,
)

from recsys.component import component
from recsys.delivery.ledger import letter_key
from recsys.delivery.letter import Letter, Recommended
from recsys.delivery.products import is_link
from recsys.delivery.recipients import Posted, one_line
from recsys.delivery.service import BaseUrl, Mailing, NotTaken, Service, write_payloads
from recsys.delivery.skeleton import ProductSlot, ProductSlots, Skeleton, Slot, write_bodies
from recsys.errors import ConfigError

MOST_LETTERS, MOST_BYTES = 1000, 20_000_000
"""Of a request; SendGrid takes 1,000 personalisations and 30 MB."""

SHORT = 300
"""Characters of a name, a reason or a line of the header; longer ones are cut."""

PLACEHOLDER = "d-" + "0" * 32


@component
class SendGrid(Service):
    """Sends through SendGrid's mail/send API; a request is taken whole or not at all.

    `template_id` is a dynamic template's; `write` leaves one to start from (`template.html`, `template.txt`), whose subject is
    `{{{subject}}}`. `asm_group` is the unsubscribe group whose members are not written to (none: SendGrid's global list alone).
    `categories` are for its statistics.

    mail/send knows no idempotency key, so each request carries its own name as the custom argument `batch`. Whether one that
    broke off was taken is asked of the Email Activity API by that name. This needs SendGrid's add-on of additional email
    activity history and a key with the scope `messages.read`; without it, such a batch is left for a person to settle.
    """

    key_variable: ClassVar[str] = "SENDGRID_API_KEY"
    most_letters: ClassVar[int] = MOST_LETTERS

    base_url: BaseUrl = "https://api.sendgrid.com"
    batch_size: PositiveInt = MOST_LETTERS
    template_id: str = Field(default=PLACEHOLDER, pattern="^d-[0-9a-f]{32}$")
    asm_group: PositiveInt | None = None
    categories: list[Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[ -~]+$")]] = Field(
        default_factory=lambda: ["recommendations"], max_length=10
    )

    def authorization(self, key: str) -> str:
        """See `Service.authorization`."""
        return f"Bearer {key}"

    def write(self, letters: Sequence[Letter], folder: Path) -> list[Path]:
        """See `Channel.write`: the requests as `sendgrid-001.json` and so on, and the template to upload."""
        batches = enumerate(self.batches(self.select(letters).posted), 1)
        bodies = {f"sendgrid-{i:03}.json": self.payload(batch, "dry-run", "dry-run") for i, batch in batches}
        return write_payloads(folder, bodies) + write_bodies(folder / "template", self, self.skeleton)

    def payload(self, posted: Sequence[Posted], mailing: str, batch: str) -> dict[str, Any]:
        """The body of one request. The template is given the fields of `template_data`."""
        mail = Mail(from_email=From(self.sender, self.sender_name))
        mail.template_id = TemplateId(self.template_id)
        if self.reply_to:
            mail.reply_to = ReplyTo(self.reply_to)
        if self.asm_group:
            mail.asm = Asm(GroupId(self.asm_group))
        for category in self.categories:
            mail.add_category(Category(category))
        mail.add_custom_arg(CustomArg("mailing", mailing))
        mail.add_custom_arg(CustomArg("batch", batch))
        for place, letter in enumerate(posted):
            mail.add_personalization(self._personalization(letter, mailing), index=place)
        body: dict[str, Any] = mail.get()
        return body

    def template_data(self, posted: Posted) -> dict[str, Any]:
        """What the template shows, as plain text: Handlebars escapes it. Fields without a value are left out."""
        email, recipient = posted.email, posted.letter.recipient
        top, *alternatives = (_shown(item) for item in posted.letter.recommendations)
        return _known(
            subject=one_line(email.subject, SHORT),
            preheader=one_line(email.preheader, SHORT),
            first_name=one_line(recipient.first_name or "", SHORT),
            top=top,
            alternatives=alternatives,
            cta_text=one_line(email.cta_text, SHORT),
            cta_url=_link(email.cta_url),
            unsubscribe_url=self.unsubscribe(recipient),
            sender_name=self.sender_name,
            postal_address=self.postal_address,
        )

    def skeleton(self, html: bool) -> Skeleton:
        """The template's e-mail in Handlebars, for the fields of `template_data`; text is not escaped."""
        braces = ("{{", "}}") if html else ("{{{", "}}}")

        def slot(name: str) -> Slot:
            return Slot(name.join(braces), start="{{#if " + name + "}}", otherwise="{{else}}", end="{{/if}}")

        def product(at: str, start: str = "", end: str = "") -> ProductSlot:
            name, price, image, link = (slot(f"{at}.{part}") for part in ("name", "price", "image", "url"))
            reason = Slot("this".join(braces), start="{{#each " + at + ".reasons}}", end="{{/each}}")
            return ProductSlot(name, price, image, link, [reason], start=start, end=end)

        alternative = product("this", "{{#each alternatives}}", "{{/each}}")
        return Skeleton(
            subject=slot("subject"),
            preheader=slot("preheader"),
            first_name=slot("first_name"),
            call_to_action=slot("cta_text"),
            top=product("top"),
            others=ProductSlots([alternative], start="{{#if alternatives}}", end="{{/if}}"),
            unsubscribe_link="unsubscribe_url".join(braces),
        )

    def _personalization(self, posted: Posted, mailing: str) -> Personalization:
        data = self.template_data(posted)
        one = Personalization()
        one.add_to(To(posted.address, data.get("first_name")))
        one.subject = data["subject"]
        one.dynamic_template_data = data
        one.add_header(Header("List-Unsubscribe", f"<{data['unsubscribe_url']}>"))
        one.add_header(Header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"))
        one.add_custom_arg(CustomArg("letter", letter_key(mailing, posted.address)))
        return one

    def batches(self, posted: Sequence[Posted]) -> Iterator[Sequence[Posted]]:
        """See `Service.batches`: no request is larger than SendGrid takes."""
        start = size = 0
        for place, letter in enumerate(posted):
            own = len(json.dumps(self._personalization(letter, "").get()).encode())
            if place - start == self.batch_size or size + own > MOST_BYTES:
                yield posted[start:place]
                start, size = place, 0
            size += own
        if start < len(posted):
            yield posted[start:]

    def check(self) -> None:
        """See `Service.check`."""
        if self.template_id == PLACEHOLDER:
            raise ConfigError(
                "delivery.template_id: wanted the id of your dynamic template, found the placeholder; the dry run left "
                "template.html to make one from"
            )

    def prepare(self, mailing: Mailing) -> None:
        """See `Service.prepare`."""
        scopes = mailing.http.request("GET", "/v3/scopes").body["scopes"]
        if "mail.send" not in scopes:
            raise ConfigError(f"{self.key_variable}: the key lacks the scope mail.send")
        if "messages.read" not in scopes:
            mailing.tell(
                "The key lacks the scope messages.read (add-on of email activity history): a request that breaks off will be "
                "left for you to settle."
            )

    def hand_over(self, mailing: Mailing, batch: str, posted: Sequence[Posted]) -> str:
        """See `Service.hand_over`."""
        body = self.payload(posted, mailing.name, batch)
        try:
            answer = mailing.http.request("POST", "/v3/mail/send", body, once=lambda: mailing.ledger.leaves(batch))
        except NotTaken as error:
            raise NotTaken(str(error), error.body, _places(error.body)) from None
        return answer.headers.get("x-message-id", "")

    def taken(self, mailing: Mailing, batch: str) -> bool | None:
        """See `Service.taken`: asks the Email Activity API."""
        query = quote(f"unique_args['batch']=\"{batch}\"", safe="")
        try:
            return bool(mailing.http.request("GET", f"/v3/messages?limit=1&query={query}").body["messages"])
        except (ConfigError, NotTaken) as error:
            mailing.tell(f"The service does not say what became of batch {batch}: {error}")
            return None


def _shown(item: Recommended) -> dict[str, Any]:
    product = item.product
    return _known(
        id=one_line(product.id, SHORT),
        name=one_line(product.name, SHORT),
        price=product.price,
        image=_link(product.image),
        url=_link(product.url),
        category=one_line(product.category or "", SHORT),
        score=item.score,
        reasons=[one_line(reason.text, SHORT) for reason in item.reasons],
    )


def _link(url: str | None) -> str | None:
    return url if url and is_link(url) else None


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _places(body: Any) -> dict[int, str]:
    """Which personalisations SendGrid finds fault with, and why."""
    problems = body.get("errors") or [] if isinstance(body, dict) else []
    found = {}
    for problem in problems:
        if at := re.match(r"personalizations\.(\d+)\.", str(problem.get("field"))):
            found[int(at[1])] = str(problem.get("message"))
    return found
