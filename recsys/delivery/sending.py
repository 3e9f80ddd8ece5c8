"""Sending letters through a mail service, so that a crash at any moment and a rerun mail nobody twice and forget nobody.

Each batch is claimed in the ledger before its request leaves and marked as sent when the service has taken it. A batch that was
claimed and not marked (the process died, the connection broke, the service failed) is settled before anything else: the
service's own log says whether it was taken. What the log does not tell is left to a person, never sent again on a guess.
"""

import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recsys.delivery.channel import Channel
from recsys.delivery.ledger import Claim, Ledger, letter_key
from recsys.delivery.letter import Letter
from recsys.delivery.recipients import Posted, few
from recsys.delivery.service import Http, Mailing, NotTaken, Service, Uncertain
from recsys.errors import ConfigError

RESERVED = (".example", ".test", ".invalid", ".localhost", "@example.com", "@example.org", "@example.net")
"""Ends of addresses that belong to nobody (RFC 2606)."""


@dataclass
class Outcome:
    """What became of a mailing's letters. `left_out` holds users by the reason, `refused` the reason by user."""

    sent: int = 0
    sent_before: int = 0
    waiting: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    uncertain: list[Claim] = field(default_factory=list)
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every letter is sent, refused or left out."""
        return not (self.waiting or self.uncertain or self.stopped)

    def lines(self, ledger: Path) -> list[str]:
        """What happened, for people, with what to do next."""
        lines = [f"{self.sent:,} letters sent, {self.sent_before:,} had been sent before"]
        lines += [f"  {len(users):,} left out: {reason} ({few(users)})" for reason, users in self.left_out.items()]
        lines += [f"  refused: customer {user}: {why}" for user, why in self.refused.items()]
        for claim in self.uncertain:
            lines += [
                f"  UNCERTAIN whether sent: {len(claim.users):,} letters of batch {claim.batch} ({few(claim.users)})",
                f"    see the service's own log, then: python scripts/ledger.py {ledger} --batch {claim.batch} --taken yes|no",
            ]
        if self.stopped:
            lines.append(f"Stopped: {self.stopped}")
        if self.waiting:
            lines.append(f"{self.waiting:,} letters are still to be sent: run the same command again")
        return lines


def send(
    channel: Channel,
    letters: Sequence[Letter],
    mailing: str,
    ledger: Path,
    tell: Callable[[str], None] = print,
    environment: Mapping[str, str] = os.environ,
) -> Outcome:
    """Send the letters that the ledger does not know as sent under the name `mailing`; progress goes to `tell`.

    The same name means the same mailing: whoever got its letter never gets it again, whatever the letter says now, and through
    whatever service. Raises `ConfigError` before anything is sent when the channel cannot send, a setting is still a
    placeholder, the key is missing or not accepted, or another process has the ledger.
    """
    service, key = check(channel, environment)
    http = Http(
        service.address(key),
        service.authorization(key),
        frozenset({key}),
        service.requests_per_second,
        service.attempts,
        service.timeout,
    )
    selection = service.select(letters)
    outcome, keys = Outcome(left_out=selection.left_out), {}
    for one in selection.posted:
        if one.address.lower().endswith(".invalid"):
            outcome.left_out["a stand-in for an address"].append(one.letter.recipient.user)
        else:
            keys[letter_key(mailing, one.address)] = one
    with Ledger(ledger) as book:
        before = book.states(mailing)
        under_way = Mailing(mailing, http, book, tell)
        try:
            service.prepare(under_way)
            for claim in book.claims(mailing):
                _settle(service, under_way, claim.batch)
            known = book.states(mailing)
            todo = [one for key, one in keys.items() if key not in known]
            done = 0
            for posted in service.batches(todo):
                _hand_over(service, under_way, posted)
                done += len(posted)
                tell(f"{done:,} of {len(todo):,} letters handed over")
            service.finish(under_way)
        except (NotTaken, Uncertain) as error:
            outcome.stopped = str(error)
        after = book.states(mailing)
        outcome.sent_before = sum(state == "sent" for state in before.values())
        outcome.sent = sum(state == "sent" for state in after.values()) - outcome.sent_before
        outcome.waiting = len(keys.keys() - after.keys())
        outcome.refused = book.refused(mailing)
        outcome.uncertain = book.claims(mailing)
    return outcome


def check(channel: Channel, environment: Mapping[str, str] = os.environ) -> tuple[Service, str]:
    """The service that the channel is, and its key. Raises `ConfigError` where it cannot send, without asking the service."""
    if not isinstance(channel, Service):
        name = type(channel).__name__
        raise ConfigError(f"delivery: {name} only writes files; send with delivery=mailchimp or delivery=sendgrid")
    if channel.sender.lower().endswith(RESERVED):
        raise ConfigError(f"delivery.sender: wanted your own address, found the placeholder {channel.sender}")
    channel.check()
    key = environment.get(channel.key_variable, "").strip()
    if not key:
        raise ConfigError(f"{channel.key_variable}: sending wants your key in this environment variable, found none")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{channel.key_variable}: wanted a key in one word of ASCII, found something else")
    channel.address(key)
    return channel, key


def _hand_over(service: Service, mailing: Mailing, posted: Sequence[Posted]) -> None:
    """Hand a batch over, without those that the service will never take.

    Raises `NotTaken` when the service does not take it, `Uncertain` when nobody can say whether it did.
    """
    book = mailing.ledger
    for _ in range(service.attempts):
        batch = uuid.uuid4().hex
        keys = [letter_key(mailing.name, one.address) for one in posted]
        book.claim(mailing.name, batch, [(key, one.letter.recipient.user) for key, one in zip(keys, posted, strict=True)])
        try:
            book.sent(batch, service.hand_over(mailing, batch, posted))
            return
        except (NotTaken, ConfigError) as error:
            faults = error.letters if isinstance(error, NotTaken) else {}
            for place, why in faults.items():
                book.refuse(keys[place], why)
            book.release(batch)
            if not faults:
                raise
            posted = [one for place, one in enumerate(posted) if place not in faults]
        except Uncertain as error:
            mailing.tell(f"{error}: asking the service whether it took the batch")
            taken = _settle(service, mailing, batch)
            if taken is None:
                raise
            if taken:
                return
        if not posted:
            return
    raise NotTaken(f"the service failed on a batch {service.attempts} times")


def _settle(service: Service, mailing: Mailing, batch: str) -> bool | None:
    """Ask the service whether it took a batch, until it knows it or `settle_after` has passed; None when it does not say."""
    book = mailing.ledger
    while True:
        left = book.left_at(batch) + service.settle_after - time.time()
        taken = service.taken(mailing, batch)
        if taken:
            book.sent(batch, "in the service's log")
        elif taken is False and left > 0:
            mailing.tell(f"The service's log does not know batch {batch} yet; waiting {left:.0f} s more")
            mailing.http.sleep(min(left, 30.0))
            continue
        elif taken is False:
            book.release(batch)
        return taken
