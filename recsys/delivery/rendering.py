"""A letter as an e-mail: subject, preheader, HTML and text that say the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from recsys.delivery.channel import Channel
from recsys.delivery.language import Language
from recsys.delivery.letter import Email, Recipient, Recommended
from recsys.delivery.products import is_link, isolated, short, shown
from recsys.delivery.recipients import one_line

LONGEST_NAME, LONGEST_REASON, LONGEST_SUBJECT_NAME, LONGEST_FIRST_NAME, LONGEST_PREHEADER = 90, 160, 44, 40, 140
"""Characters shown."""
MOST_BYTES = 100_000
"""Of HTML; Gmail clips a message of 102 kB."""
FILLER = Markup("&#847;&zwnj;&nbsp;" * 70)
"""Keeps what follows the preheader out of an inbox's preview."""


@dataclass(frozen=True)
class Entry:
    """A product as it stands in an e-mail; `link` and `image` are http or https addresses."""

    name: str
    price: str | None
    link: str | None
    image: str | None
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, recommended: Recommended) -> "Entry":
        """Cut to what an e-mail has room for."""
        product = recommended.product
        link, image = (url if url and is_link(url) else None for url in (product.url, product.image))
        reasons = tuple(short(one_line(reason.text), LONGEST_REASON) for reason in recommended.reasons)
        return cls(short(shown(product.name), LONGEST_NAME), product.price, link, image, reasons)


class EmailTemplate:
    """The e-mails of a channel, in a language: its sender's name, address, links and button."""

    def __init__(self, channel: Channel, language: Language) -> None:
        self._channel, self._language = channel, language
        self._call_to_action = channel.call_to_action or language.say("email.call_to_action")

    def fill(self, recipient: Recipient, recommendations: Sequence[Recommended]) -> Email | None:
        """The e-mail to one customer; None without a recommendation. Alternatives that would make it too large are left out."""
        if not recommendations:
            return None
        top, *others = [Entry.of(recommended) for recommended in recommendations]
        while True:
            email = self._email(recipient, recommendations[0], top, others)
            if len(email.html.encode()) < MOST_BYTES or not others:
                return email
            others = others[:-1]

    def _email(self, recipient: Recipient, first: Recommended, top: Entry, others: Sequence[Entry]) -> Email:
        say, channel = self._language.say, self._channel
        code = first.reasons[0].code if first.reasons else "default"
        key = f"email.subject.{code}" if f"email.subject.{code}" in self._language else "email.subject.default"
        first_name = short(one_line(recipient.first_name or ""), LONGEST_FIRST_NAME)
        rtl = self._language.direction == "rtl"
        words = {name: say(f"email.{name}") for name in ("introduction", "alternatives", "unsubscribe")}
        reason = top.reasons[0] if top.reasons else ""
        subject = one_line(say(key, product=isolated(short(top.name, LONGEST_SUBJECT_NAME))))
        preheader = short(one_line(say("email.preheader", reason=reason, others=len(others))), LONGEST_PREHEADER)
        values = {
            **words,
            "subject": subject,
            "preheader": preheader,
            "filler": FILLER,
            "lang": self._language.code,
            "direction": self._language.direction,
            "start": "right" if rtl else "left",
            "end": "left" if rtl else "right",
            "shop": channel.sender_name,
            "address": channel.postal_address,
            "greeting": say("email.greeting", first_name=isolated(first_name)),
            "top": top,
            "others": others,
            "pictures": any(other.image for other in others),
            "call_to_action": self._call_to_action,
            "unsubscribe_link": channel.unsubscribe(recipient),
        }
        html, text = (template.render(values).strip() + "\n" for template in _templates())
        return Email(subject, preheader, html, text, self._call_to_action, top.link)


@cache
def _templates() -> tuple[Template, Template]:
    """The HTML and the text template; MJML is compiled once, the placeholders stay for every letter."""
    from mjml import mjml2html

    environment = Environment(
        loader=PackageLoader("recsys.delivery"),
        autoescape=lambda name: not str(name).endswith(".txt"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assert environment.loader is not None
    source, _, _ = environment.loader.get_source(environment, "email.mjml")
    return environment.from_string(mjml2html(source)), environment.get_template("email.txt")
