"""Mailchimp: members' merge fields through the Marketing API, and a campaign that shows them."""

import base64
import hashlib
import io
import json
import re
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from recsys.component import component
from recsys.delivery.ledger import letter_key
from recsys.delivery.letter import Letter
from recsys.delivery.products import is_link
from recsys.delivery.recipients import Posted, one_line
from recsys.delivery.service import BaseUrl, Mailing, NotTaken, Service, write_payloads
from recsys.delivery.skeleton import ProductSlot, ProductSlots, Skeleton, Slot, write_bodies
from recsys.digest import digest
from recsys.errors import ConfigError

MOST_OPERATIONS, MOST_FIELDS, MOST_BYTES, LONGEST_SUBJECT = 500, 80, 255, 150
"""Mailchimp's limits: operations that we put into a batch, merge fields of an audience (30 in most plans), bytes of a value,
characters of a subject or preview."""

GONE = ("sending", "sent")
"""Statuses of a campaign that nothing can call back."""


@component
class Mailchimp(Service):
    """Writes each customer's recommendations into merge fields of an audience, and sends one campaign that shows them.

    `audience` is the list's id. Members keep their status: whoever unsubscribed stays so; a customer who is new to the audience
    gets `status_if_new`. The campaign goes to the members whose field `MAILING` names this mailing, so to those whose fields
    have just been written and nobody else. `{dc}` in `base_url` stands for the data centre at the end of the key. How a batch
    fares is asked every `poll` seconds, for `patience` seconds at most.

    Everything before the campaign can be done again without harm, and Mailchimp refuses to send a campaign twice: nothing is
    ever uncertain. A crash can leave an unsent draft of the campaign behind.
    """

    key_variable: ClassVar[str] = "MAILCHIMP_API_KEY"
    most_letters: ClassVar[int] = MOST_OPERATIONS

    base_url: BaseUrl = "https://{dc}.api.mailchimp.com/3.0"
    batch_size: PositiveInt = MOST_OPERATIONS
    settle_after: NonNegativeFloat = 0.0
    audience: str | None = Field(default=None, pattern="^[A-Za-z0-9]+$")
    status_if_new: Literal["subscribed", "pending", "unsubscribed", "transactional"] = "subscribed"
    poll: PositiveFloat = 5.0
    patience: PositiveFloat = 3600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.fields()) > MOST_FIELDS:
            raise ValueError(
                f"items={self.items} with reasons={self.reasons} want {len(self.fields())} merge fields, an audience has "
                f"{MOST_FIELDS}"
            )

    def authorization(self, key: str) -> str:
        """See `Service.authorization`."""
        return "Basic " + base64.b64encode(f"recsys:{key}".encode()).decode()

    def address(self, key: str) -> str:
        """See `Service.address`."""
        centre = key.rpartition("-")[2]
        if "{dc}" in self.base_url and not re.fullmatch(r"[a-z]+\d+", centre):
            raise ConfigError(f"{self.key_variable}: wanted a key that ends in its data centre, such as -us6")
        return self.base_url.replace("{dc}", centre)

    def write(self, letters: Sequence[Letter], folder: Path) -> list[Path]:
        """See `Channel.write`: the batches as `mailchimp-001.json` and so on, the merge fields, the campaign."""
        bodies: dict[str, Any] = {
            f"mailchimp-{i:03}.json": self.payload(batch, "dry-run")
            for i, batch in enumerate(self.batches(self.select(letters).posted), 1)
        }
        bodies |= {"merge-fields.json": self.definitions(), "campaign.json": self.campaign("dry-run")}
        return write_payloads(folder, bodies) + write_bodies(folder / "campaign", self, self.skeleton)

    def fields(self) -> tuple[str, ...]:
        """The tags of the merge fields: upper case, 10 characters at most. All are text."""
        products = [tag for place in range(self.items) for tag in (*_tags(place), *self._reason_tags(place))]
        return ("FNAME", "MAILING", "SUBJECT", "PREVIEW", "CTA_TEXT", *products)

    def values(self, posted: Posted, mailing: str) -> dict[str, str]:
        """What the merge fields of one customer hold. Every field is set, so that nothing of an earlier mailing stays."""
        email, recipient = posted.email, posted.letter.recipient
        found: dict[str, str | None] = {
            "FNAME": recipient.first_name,
            "MAILING": mailing_mark(mailing),
            "SUBJECT": one_line(email.subject, LONGEST_SUBJECT),
            "PREVIEW": one_line(email.preheader, LONGEST_SUBJECT),
            "CTA_TEXT": email.cta_text,
        }
        for place, item in enumerate(posted.letter.recommendations[: self.items]):
            product = item.product
            found |= dict(
                zip(_tags(place), (product.name, product.price, _link(product.image), _link(product.url)), strict=True)
            )
            found |= dict(zip(self._reason_tags(place), (reason.text for reason in item.reasons), strict=False))
        return {tag: _value(found.get(tag)) for tag in self.fields()}

    def definitions(self) -> list[dict[str, Any]]:
        """The merge fields as the API makes them."""
        return [
            {"tag": tag, "name": f"Recommendation {tag}", "type": "text", "public": False, "required": False}
            for tag in self.fields()
        ]

    def payload(self, posted: Sequence[Posted], mailing: str) -> dict[str, Any]:
        """The body of one batch: an update a member, named by the letter's key."""
        return {
            "operations": [
                {
                    "method": "PUT",
                    "path": f"/lists/{self.audience or 'AUDIENCE'}/members/{_subscriber(one.address)}",
                    "operation_id": letter_key(mailing, one.address),
                    "body": json.dumps(
                        {
                            "email_address": one.address,
                            "status_if_new": self.status_if_new,
                            "merge_fields": self.values(one, mailing),
                        },
                        ensure_ascii=False,
                    ),
                }
                for one in posted
            ]
        }

    def campaign(self, mailing: str) -> dict[str, Any]:
        """The campaign as the API makes it, to the members whose fields this mailing wrote."""
        mark = {"condition_type": "TextMerge", "field": "MAILING", "op": "is", "value": mailing_mark(mailing)}
        return {
            "type": "regular",
            "recipients": {
                "list_id": self.audience or "AUDIENCE",
                "segment_opts": {"match": "all", "conditions": [mark]},
            },
            "settings": {
                "title": one_line(mailing, 100),
                "subject_line": "*|SUBJECT|*",
                "preview_text": "*|PREVIEW|*",
                "from_name": one_line(self.sender_name, 100),
                "reply_to": self.reply_to or self.sender,
            },
        }

    def skeleton(self, html: bool) -> Skeleton:
        """The campaign's e-mail with merge tags, which Mailchimp escapes in HTML."""
        top, *alternatives = (self._product_slot(place) for place in range(self.items))
        return Skeleton(
            subject=_slot("SUBJECT"),
            preheader=_slot("PREVIEW"),
            first_name=_slot("FNAME"),
            call_to_action=_slot("CTA_TEXT"),
            top=top,
            others=ProductSlots(alternatives, start="*|IF:ALT_1|*", end=_END) if alternatives else ProductSlots([]),
            unsubscribe_link="*|UNSUB|*",
        )

    def check(self) -> None:
        """See `Service.check`."""
        if self.audience is None:
            raise ConfigError("delivery.audience: wanted the id of your Mailchimp audience, found none")

    def prepare(self, mailing: Mailing) -> None:
        """See `Service.prepare`: makes the merge fields that the audience lacks."""
        known = self._known_tags(mailing)
        for definition in self.definitions():
            if definition["tag"] not in known:
                try:
                    mailing.http.request("POST", f"/lists/{self.audience}/merge-fields", definition)
                except NotTaken:  # also where the first of two attempts had made it
                    if definition["tag"] not in self._known_tags(mailing):
                        raise

    def hand_over(self, mailing: Mailing, batch: str, posted: Sequence[Posted]) -> str:
        """See `Service.hand_over`."""
        if mailing.ledger.fact(mailing.name, "gone"):
            raise ConfigError(f"mailing {mailing.name!r} has gone out; write to more customers under another name")
        return str(mailing.http.request("POST", "/batches", self.payload(posted, mailing.name)).body["id"])

    def taken(self, mailing: Mailing, batch: str) -> bool | None:
        """See `Service.taken`: what was written can be written again, so that it counts as not taken."""
        return False

    def finish(self, mailing: Mailing) -> None:
        """See `Service.finish`: waits until all members are written, then sends the campaign."""
        ledger, http = mailing.ledger, mailing.http
        batches = set(ledger.references(mailing.name).values())
        if ledger.fact(mailing.name, "gone") or not batches:
            return
        for batch in sorted(batches):
            for key, why in self._failures(mailing, batch):
                ledger.refuse(key, why)
        if (campaign := ledger.fact(mailing.name, "campaign")) is None:
            campaign = str(http.request("POST", "/campaigns", self.campaign(mailing.name)).body["id"])
            ledger.note_fact(mailing.name, "campaign", campaign)
        if not self._gone(mailing, campaign):
            content = {name: self.skeleton(html).body(self, html) for name, html in (("html", True), ("plain_text", False))}
            http.request("PUT", f"/campaigns/{campaign}/content", content)
            try:
                http.request("POST", f"/campaigns/{campaign}/actions/send")
            except NotTaken:
                if not self._gone(mailing, campaign):
                    raise
        ledger.note_fact(mailing.name, "gone", "yes")

    def _gone(self, mailing: Mailing, campaign: str) -> bool:
        return mailing.http.request("GET", f"/campaigns/{campaign}?fields=status").body["status"] in GONE

    def _known_tags(self, mailing: Mailing) -> set[str]:
        path = f"/lists/{self.audience}/merge-fields?count=1000&fields=merge_fields.tag"
        return {field["tag"] for field in mailing.http.request("GET", path).body["merge_fields"]}

    def _failures(self, mailing: Mailing, batch: str) -> Iterator[tuple[str, str]]:
        """Key and reason of each letter of a batch that Mailchimp did not write, once it has tried all."""
        patient_until = time.monotonic() + self.patience
        while (state := mailing.http.request("GET", f"/batches/{batch}").body)["status"] != "finished":
            if time.monotonic() > patient_until:
                raise NotTaken(f"Mailchimp still works on batch {batch}; run the same command again later")
            mailing.tell(f"Mailchimp has written {state['finished_operations']} of {state['total_operations']} members")
            mailing.http.sleep(self.poll)
        if state["errored_operations"]:
            for result in _results(mailing.http.download(state["response_body_url"])):
                if result["status_code"] >= 300:
                    yield result["operation_id"], _fault(result["response"])

    def _product_slot(self, place: int) -> ProductSlot:
        name, price, image, link = map(_slot, _tags(place))
        return ProductSlot(name, price, image, link, [*map(_slot, self._reason_tags(place))], start=name.start, end=name.end)

    def _reason_tags(self, place: int) -> list[str]:
        if place:
            return [f"ALT_{place}_WHY"][: self.reasons]
        return [f"TOP_WHY_{i + 1}" for i in range(self.reasons)]


_END = "*|END:IF|*"


def _tags(place: int) -> tuple[str, ...]:
    """Tags of a product's name, price, image and link, by its place in the letter. The top product's is the button's link."""
    if place == 0:
        return ("TOP_NAME", "TOP_PRICE", "TOP_IMAGE", "CTA_URL")
    return tuple(f"ALT_{place}{part}" for part in ("", "_PRC", "_IMG", "_URL"))


def _slot(tag: str) -> Slot:
    return Slot(f"*|{tag}|*", start=f"*|IF:{tag}|*", otherwise="*|ELSE:|*", end=_END)


def _value(text: str | None) -> str:
    """A value that fits a merge field and cannot be read as a merge tag."""
    line = one_line(text or "").replace("*|", "* |").replace("|*", "| *")
    cut = line.encode(errors="replace")
    if len(cut) <= MOST_BYTES:
        return line
    return cut[: MOST_BYTES - len("…".encode())].decode(errors="ignore").rstrip() + "…"


def _link(url: str | None) -> str | None:
    """A link that fits a merge field; one that is too long is none, since a cut link leads nowhere."""
    return url if url and is_link(url) and len(url.encode()) <= MOST_BYTES else None


def _subscriber(address: str) -> str:
    """What Mailchimp calls a member: the MD5 of the lower-case address."""
    return hashlib.md5(address.lower().encode(), usedforsecurity=False).hexdigest()


def mailing_mark(mailing: str) -> str:
    """What the field MAILING holds for the members of a mailing."""
    return digest("mailing", mailing)


def _results(archive: bytes) -> Iterator[dict[str, Any]]:
    """The results of a batch: a compressed archive of JSON files, each a list."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
        for member in files:
            if (file := files.extractfile(member)) is not None:
                yield from json.load(file)


def _fault(response: str) -> str:
    body = json.loads(response)
    return one_line(f"{body.get('title', '')}: {body.get('detail', '')}", 300)
