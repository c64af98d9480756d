"""The CSV files of a folder as a page that mail programs show, and as a message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid, parseaddr

from pytest_madengine import assets
from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.reporting.csvtables import Found

SUBJECT = "Results of AI models"


@dataclass(frozen=True)
class Envelope:
    """Who writes to whom.

    Attributes:
        sender: an address, also with a name before it: `CI <ci@example.com>`; '' of a draft.
        recipients: addresses.
        subject: one line.
    """

    sender: str = ""
    recipients: tuple[str, ...] = ()
    subject: str = SUBJECT

    def __post_init__(self) -> None:
        """Refuse what would make another header of a message.

        Raises:
            FaultsError: an address is none, or the subject has several lines.
        """
        given = [("--from", self.sender)] if self.sender else []
        given += [("--to", each) for each in self.recipients]
        faults = [Fault(where, f"found {text!r}", "name@example.com") for where, text in given if not _is_address(text)]
        if not self.subject.isprintable():
            faults.append(Fault("--subject", f"found {self.subject!r}", "one line of text"))
        if faults:
            raise FaultsError(faults)


def page(found: Found, title: str = SUBJECT) -> str:
    """The HTML: styles stand in the elements, nothing is loaded, nothing runs, every cell is text."""
    return assets.render("mail/tables.html.j2", title=title, lines=found.lines, tables=found.tables)


def message(found: Found, envelope: Envelope, now: datetime | None = None) -> EmailMessage:
    """A message with the summary as text, and as HTML with the tables below it.

    Args:
        found: what the folder holds.
        envelope: who writes to whom.
        now: the date that it bears; this moment where None.
    """
    made = EmailMessage(policy=SMTP)
    made["Subject"] = envelope.subject
    made["Date"] = format_datetime(now or datetime.now(timezone.utc))
    made["Message-ID"] = make_msgid(domain=parseaddr(envelope.sender)[1].rpartition("@")[2] or "localhost")
    if envelope.sender:
        made["From"] = envelope.sender
    else:
        made["X-Unsent"] = "1"  # mail programs open it as a draft
    if envelope.recipients:
        made["To"] = ", ".join(envelope.recipients)
    made.set_content(_text(envelope.subject, found.lines))
    made.add_alternative(page(found, envelope.subject), subtype="html")
    return made


def _text(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "", *(f"- {line}" for line in lines), "", "The tables stand in the HTML part.", ""])


def _is_address(text: str) -> bool:
    name, _, domain = parseaddr(text)[1].rpartition("@")
    return text.isprintable() and bool(name and domain) and not any(character.isspace() for character in name + domain)
