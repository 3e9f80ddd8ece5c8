"""Letters as `.eml` files (RFC 5322): any mail client opens them, any mail server takes them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from pathlib import Path

from recsys.component import component
from recsys.delivery.channel import Channel, file_name
from recsys.delivery.letter import Email, Letter
from recsys.delivery.recipients import is_address, one_line
from recsys.digest import digest

LONGEST_SUBJECT, LONGEST_NAME = 200, 100
"""Characters; mail clients show less."""


class _Smtp(EmailPolicy):
    """What SMTP wants, with links whole: the standard library would encode long ones, and no client decodes a link."""

    def fold_binary(self, name: str, value: str) -> bytes:
        if name == "List-Unsubscribe":
            return f"{name}: {value}{self.linesep}".encode("ascii")
        return super().fold_binary(name, value)


SMTP = _Smtp(linesep="\r\n")


@component
class Eml(Channel):
    """Writes one message a letter: text and HTML as alternatives, a link and a one-click header to unsubscribe (RFC 8058).

    A recipient without an address gets a message without `To`: to look at, not to send.
    """

    def write(self, letters: Sequence[Letter], folder: Path) -> list[Path]:
        """See `Channel.write`: `<user>.eml` for every letter that recommends something to a customer who may be written to."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for letter in letters:
            if letter.email is not None and not self.is_suppressed(letter.recipient):
                paths.append(folder / f"{file_name(letter.recipient.user)}.eml")
                paths[-1].write_bytes(self.message(letter, letter.email).as_bytes())
        return paths

    def message(self, letter: Letter, email: Email) -> EmailMessage:
        """The message: lines end as SMTP wants, headers are ASCII, no line is longer than 998 bytes."""
        message = EmailMessage(policy=SMTP)
        recipient = letter.recipient
        message["From"] = _mailbox(self.sender, self.sender_name)
        if self.reply_to:
            message["Reply-To"] = _mailbox(self.reply_to)
        if recipient.email and is_address(recipient.email.strip()):
            message["To"] = _mailbox(recipient.email.strip(), recipient.first_name or "")
        message["Subject"] = one_line(email.subject, LONGEST_SUBJECT)
        message["Date"] = _time(letter.generated_at)
        identity = digest(letter.generated_at, recipient.user)
        message["Message-ID"] = f"<{identity}@{self.sender.partition('@')[2]}>"
        message["List-Unsubscribe"] = f"<{self.unsubscribe(recipient)}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message.set_content(email.text, cte="quoted-printable")
        message.add_alternative(email.html, subtype="html", cte="quoted-printable")
        message.set_boundary(f"=_{identity}")
        return message


def _mailbox(address: str, name: str = "") -> Address:
    return Address(one_line(name, LONGEST_NAME), addr_spec=address)


def _time(iso: str) -> datetime:
    time = datetime.fromisoformat(iso)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
