"""One page to look through letters as customers get them: everything inline, no script."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from recsys.delivery.letter import Letter
from recsys.runs import RunFolder


def write(letters: Sequence[Letter], total: int, run: RunFolder, channel: str, path: Path) -> None:
    """Write the page: a card a letter, which opens the e-mail at the width of a phone or a desktop, and its text.

    E-mails are shown in frames that may run nothing. `total` says how many letters there are beside those shown.
    """
    environment = Environment(
        loader=PackageLoader("recsys.delivery"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("gallery.html").render(letters=letters, total=total, run=run.name, channel=channel)
    path.write_text(page, encoding="utf-8", errors="replace")
