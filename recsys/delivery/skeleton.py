"""E-mails with a service's own placeholders, for services that fill in each customer's products themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recsys.delivery.channel import Channel
from recsys.delivery.language import Language

_FILES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "skeletons"),
    undefined=StrictUndefined,
    autoescape=lambda name: str(name).endswith(".html.jinja"),
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Slot:
    """A text of the e-mail: `value` is its placeholder in HTML, where the service escapes it, `plain` the one in text.

    What stands between `start` and `end` is shown when there is such a text.
    """

    value: str
    plain: str
    start: str
    end: str


@dataclass(frozen=True)
class ProductSlot:
    """A product of the e-mail; what stands between `start` and `end` is shown for each that there is."""

    name: Slot
    price: Slot
    image: Slot
    url: Slot
    reasons: Sequence[Slot]
    start: str
    end: str


@dataclass(frozen=True)
class Skeleton:
    """All slots of an e-mail. `unsubscribe` is where its link leads."""

    subject: Slot
    preheader: Slot
    first_name: Slot
    top: ProductSlot
    alternatives: Sequence[ProductSlot]
    cta_text: Slot
    cta_url: Slot
    unsubscribe: str

    def html(self, channel: Channel) -> str:
        """The HTML body."""
        return self._render("email.html.jinja", channel)

    def text(self, channel: Channel) -> str:
        """The text body; says the same."""
        return self._render("email.txt.jinja", channel)

    def write(self, path: Path, channel: Channel) -> list[Path]:
        """Write both bodies beside each other: `path` with the endings `.html` and `.txt`."""
        bodies = {path.with_suffix(".html"): self.html(channel), path.with_suffix(".txt"): self.text(channel)}
        for file, body in bodies.items():
            file.write_text(body, encoding="utf-8")
        return list(bodies)

    def _render(self, name: str, channel: Channel) -> str:
        language = Language.load(channel.language)
        return _FILES.get_template(name).render(email=self, channel=channel, language=language, say=language.say)
