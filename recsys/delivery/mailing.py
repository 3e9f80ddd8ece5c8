"""The letters of a run: written block by block into its folder, with a gallery, and kept with the tracked run."""

import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, PositiveInt, ValidationError
from pydantic.dataclasses import dataclass as checked

from recsys import runs
from recsys.component import construct
from recsys.delivery import gallery
from recsys.delivery.audience import Audience
from recsys.delivery.channel import Channel
from recsys.delivery.letter import Letter, Recipient
from recsys.delivery.letters import Writer
from recsys.delivery.service import Service
from recsys.digest import digest
from recsys.errors import ConfigError
from recsys.recommender import TwoStageRecommender
from recsys.redaction import hide


@checked(config=ConfigDict(extra="forbid"), frozen=True, kw_only=True)
class Order:
    """What is asked for: the keys of `conf/emails.yaml` beside `delivery`, which says how."""

    run: str
    users: str | int
    contacts: str | None
    block: PositiveInt
    gallery: PositiveInt
    generated_at: str | None
    outputs: str
    mailing: str | None
    ledger: str

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> tuple["Order", Channel]:
        """From the resolved config. Raises `ConfigError` for what does not fit, before anything is read."""
        channel = construct(config.get("delivery"), "delivery")
        if not isinstance(channel, Channel):
            raise ConfigError(f"delivery: wanted a channel, found {config.get('delivery')!r}")
        try:
            return cls(**{name: value for name, value in config.items() if name != "delivery"}), channel
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"{first['loc'][0]}: {first['msg']}, found {first['input']!r}") from None


@dataclass
class Summary:
    """What was written: counts, and the letters that the gallery shows."""

    folder: Path
    stand_in: bool = False
    """Whether the addresses are stand-ins: nobody's was known, and payloads are to be looked at all the same."""
    letters: int = 0
    files: int = 0
    addressed: int = 0
    """Letters to a known address."""
    empty: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    unexplained: int = 0
    unknown: dict[str, list[str]] = field(default_factory=dict)
    """For each file read (users, contacts, catalogue), the ids in it that the model does not know."""
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The customers that would not be written to, by the reason, where nothing is sent."""
    suppressing: int = 0
    """Rows of the suppression list."""
    strangers: list[str] = field(default_factory=list)
    """Those of them that name nobody."""
    repeated: int = 0
    untracked: str | None = None
    """Why the tracked run did not get the letters."""
    shown: list[Letter] = field(default_factory=list)

    def add(self, letters: Iterable[Letter], files: int, most_shown: int) -> None:
        """Count a block."""
        self.files += files
        for letter in letters:
            self.letters += 1
            self.addressed += letter.recipient.email is not None and not self.stand_in
            if letter.email is None:
                self.empty.append(letter.recipient.user)
            for recommended in letter.recommendations:
                self.reasons.update(reason.code for reason in recommended.reasons)
                self.unexplained += not recommended.reasons
            if len(self.shown) < most_shown:
                self.shown.append(letter)


def write(
    order: Order,
    channel: Channel,
    progress: Callable[[int, int], None] = lambda done, of: None,
    keep: list[Letter] | None = None,
) -> tuple[Summary, runs.RunFolder]:
    """Write the letters into `emails/<channel>` of the run's folder, whole or not at all, and log them to the tracked run.

    `progress` is told how many are done of how many; `keep` gets all letters, for whoever sends them.

    Raises `ConfigError` where the letters are to be sent and no row of the suppression list names anybody.
    """
    run = runs.find(order.run, Path(order.outputs))
    model = TwoStageRecommender.load(run.path / "model")
    audience = Audience.of(order.users, model, order.contacts)
    suppression = channel.suppressed
    strangers = audience.strangers(suppression, model.history.users)
    if keep is not None and strangers and len(strangers) == len(suppression.entries):
        raise ConfigError(
            f"delivery.suppression: wanted addresses or ids of customers, found none in the {len(strangers):,} rows of"
            f" {channel.suppression}, such as {strangers[0]!r}; to send all the same: delivery.suppression=null"
        )
    writer = Writer(model, channel, order.generated_at)
    name = type(channel).__name__.lower()
    target = run.path / "emails" / name
    target.parent.mkdir(exist_ok=True)
    stand_in = keep is None and isinstance(channel, Service) and not audience.addressed
    unknown = {**audience.unknown, **({channel.catalogue: list(writer.products.unknown)} if channel.catalogue else {})}
    summary = Summary(
        target,
        stand_in=stand_in,
        unknown=unknown,
        suppressing=len(suppression.entries),
        strangers=strangers,
        repeated=audience.repeated,
    )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
        draft = Path(scratch) / name
        draft.mkdir()
        for i, recipients in enumerate(audience.blocks(order.block), start=1):
            letters = writer.write([_stand_in(recipient) for recipient in recipients] if stand_in else recipients)
            place = draft if len(audience) <= order.block else draft / f"{i:05}"
            summary.add(letters, len(channel.write(letters, place)), order.gallery)
            if keep is not None:
                keep += letters
            else:
                for reason, users in channel.left_out(letters).items():
                    summary.left_out[reason] += users
            progress(summary.letters, len(audience))
        gallery.write(summary.shown, summary.letters, run, name, draft / "index.html")
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)
    summary.untracked = _track(run, target)
    return summary, run


def _stand_in(recipient: Recipient) -> Recipient:
    return replace(recipient, email=f"{digest(recipient.user)[:12]}@customer.invalid")


def _track(run: runs.RunFolder, folder: Path) -> str | None:
    """Keep the letters as artifacts of the tracked run, where there is one; gives why they could not be kept.

    By now they are written, and what may go wrong in a store is no reason to lose them.
    """
    tracker, run_id = runs.tracker_of(run.config), run.about.get("id")
    if tracker and run_id:
        try:
            tracker.reopen(str(run_id)).folder(folder, f"emails/{folder.name}")
        except Exception as error:
            return hide(" ".join(str(error).split()))
    return None
