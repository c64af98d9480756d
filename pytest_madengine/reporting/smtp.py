"""Hands messages to a mail server; the only module that knows SMTP."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage

from pytest_madengine.errors import Fault, FaultsError, InfrastructureError
from pytest_madengine.secrets import Masker, Secret

TIMEOUT = 30.0
"""Seconds for each answer."""
PORTS = {"starttls": 587, "tls": 465, "none": 25}
"""The usual port by the protection of the connection."""
LAST_PORT = 65_535
NO_PASSWORD = Secret()


@dataclass(frozen=True)
class Server:
    """A mail server.

    Attributes:
        host: its name.
        port: 0 for the usual one.
        tls: `starttls`, `tls` or `none`.
        user: '' where it wants no login.
        password: belongs to the user.
    """

    host: str
    port: int = 0
    tls: str = "starttls"
    user: str = ""
    password: Secret = NO_PASSWORD

    def __post_init__(self) -> None:
        """Refuse a server that cannot be reached, or not safely.

        Raises:
            FaultsError: all that is wrong.
        """
        if faults := list(self._faults()):
            raise FaultsError(faults)

    def _faults(self) -> Iterator[Fault]:
        if not self.host:
            yield Fault("--smtp-host", "is empty", "the name of a mail server")
        if not 0 <= self.port <= LAST_PORT:
            yield Fault("--smtp-port", f"found {self.port}", f"1 to {LAST_PORT}")
        if bool(self.user) != bool(self.password):
            yield Fault("SMTP_USER, SMTP_PASSWORD", "one of them is missing in the environment", "both, or neither")
        if self.password and self.tls == "none":
            yield Fault("--smtp-tls", "'none' would send SMTP_PASSWORD for everybody to read", "starttls, tls")

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port or PORTS[self.tls]}"


def send(message: EmailMessage, server: Server) -> None:
    """Hand the message over; when this returns, the server has taken it for every recipient.

    Raises:
        InfrastructureError: it has not, or not for all.
    """
    try:
        with _connected(server) as connection:
            refused = connection.send_message(message)
    except (smtplib.SMTPException, OSError) as error:
        raise InfrastructureError(_told(server, _words(error))) from None
    if refused:
        reasons = ", ".join(f"{who} ({_decoded(answer[1])})" for who, answer in refused.items())
        raise InfrastructureError(_told(server, f"sent, but not to {reasons}"))


@contextmanager
def _connected(server: Server) -> Iterator[smtplib.SMTP]:
    """A connection whose server has shown its certificate, and knows the user."""
    port, context = server.port or PORTS[server.tls], ssl.create_default_context()
    if server.tls == "tls":
        opened: smtplib.SMTP = smtplib.SMTP_SSL(server.host, port, timeout=TIMEOUT, context=context)
    else:
        opened = smtplib.SMTP(server.host, port, timeout=TIMEOUT)
    with opened as connection:
        if server.tls == "starttls":
            connection.starttls(context=context)
        if server.user:
            connection.login(server.user, server.password)
        yield connection


def _told(server: Server, text: str) -> str:
    return Masker([server.password])(f"mail server {server.address}: {text}")


def _words(error: Exception) -> str:
    """What a server answered, or what went wrong on the way to it."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        answers = (f"{who}: {_decoded(answer[1])}" for who, answer in error.recipients.items())
        return f"no recipient was taken: {', '.join(answers)}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{error.smtp_code} {_decoded(error.smtp_error)}"
    return str(error)


def _decoded(answer: bytes | str) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer
