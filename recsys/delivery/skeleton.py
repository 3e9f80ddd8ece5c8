"""The e-mail with a service's own placeholders, for services that fill in each customer's products themselves."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recsys.delivery.channel import Channel
from recsys.delivery.language import Language
from recsys.delivery.rendering import FILLER

_FILES = PackageLoader("recsys.delivery")
_BLOCK = re.compile(r"{% *(if|else|endif|for|endfor)\b *(.*?) *%}(\n?)")
_OF_A_CUSTOMER = re.compile(r"others|(top|other)\.\w+")


@dataclass(frozen=True, kw_only=True)
class Block:
    """What stands from `start` to `otherwise` is shown where the service has something to fill in, for each that there is; what
    stands from there to `end` where it has nothing."""

    start: str = ""
    otherwise: str = ""
    end: str = ""


@dataclass(frozen=True)
class Slot(Block):
    """A text that the service fills in."""

    value: str

    def __str__(self) -> str:
        return self.value

    def __html__(self) -> str:
        return self.value


@dataclass(frozen=True)
class ProductSlot(Block):
    """A product that the service fills in."""

    name: Slot
    price: Slot
    image: Slot
    link: Slot
    reasons: Sequence[Slot]


@dataclass(frozen=True)
class ProductSlots(Block):
    """Several products."""

    products: Sequence[ProductSlot]

    def __iter__(self) -> Iterator[ProductSlot]:
        return iter(self.products)


@dataclass(frozen=True)
class Skeleton:
    """All that a service fills in. `unsubscribe_link` is its own placeholder for that."""

    subject: Slot
    preheader: Slot
    first_name: Slot
    call_to_action: Slot
    top: ProductSlot
    others: ProductSlots
    unsubscribe_link: str

    def body(self, channel: Channel, html: bool) -> str:
        """The HTML or the text body, of the same design as the e-mails of `rendering`."""
        from mjml import mjml2html

        environment = Environment(
            loader=_FILES, autoescape=html, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        source, _, _ = _FILES.get_source(environment, "email.mjml" if html else "email.txt")
        template = environment.from_string(_with_slots(mjml2html(source) if html else source))
        language = Language.load(channel.language)
        name, rtl = self.first_name, language.direction == "rtl"
        greetings = [language.say("email.greeting", first_name=known) for known in (name.value, "")]
        open_blocks: list[Block] = []

        def when(block: Block) -> Markup:
            open_blocks.append(block)
            return Markup(block.start)

        values = {
            **{key: language.say(f"email.{key}") for key in ("introduction", "alternatives", "unsubscribe")},
            "subject": self.subject,
            "preheader": self.preheader,
            "filler": FILLER,
            "lang": language.code,
            "direction": language.direction,
            "start": "right" if rtl else "left",
            "end": "left" if rtl else "right",
            "shop": channel.sender_name,
            "address": channel.postal_address,
            "greeting": Slot(f"{name.start}{greetings[0]}{name.otherwise}{greetings[1]}{name.end}"),
            "top": self.top,
            "others": self.others,
            "pictures": channel.catalogue is not None,
            "call_to_action": self.call_to_action,
            "unsubscribe_link": Slot(self.unsubscribe_link),
            "when": when,
            "otherwise": lambda: Markup(open_blocks[-1].otherwise),
            "done": lambda: Markup(open_blocks.pop().end),
        }
        return template.render(values).strip() + "\n"


def write_bodies(path: Path, channel: Channel, skeleton: Callable[[bool], Skeleton]) -> list[Path]:
    """Write both bodies: `path` with the endings `.html` and `.txt`. `skeleton` is told whether it is for HTML."""
    files = {
        path.with_suffix(ending): skeleton(html).body(channel, html) for ending, html in ((".html", True), (".txt", False))
    }
    for file, body in files.items():
        file.write_text(body, encoding="utf-8")
    return list(files)


def _with_slots(source: str) -> str:
    """The template with conditions on what only the service knows turned into calls that write the service's own."""
    of_a_customer: list[bool] = []

    def turned(block: re.Match[str]) -> str:
        word, what, _ = block.groups()
        if word == "for":
            return block[0].rstrip() + "{{ when(" + what.split()[0] + ") }}"
        if word == "endfor":
            return "{{ done() }}" + block[0]
        if word == "if":
            of_a_customer.append(bool(_OF_A_CUSTOMER.fullmatch(what)))
        call = {"if": f"when({what})", "else": "otherwise()", "endif": "done()"}[word]
        mine = of_a_customer.pop() if word == "endif" else of_a_customer[-1]
        return "{{ " + call + " }}" if mine else block[0]

    return _BLOCK.sub(turned, source)
