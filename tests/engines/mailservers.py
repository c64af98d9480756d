"""A mail server on this machine, which keeps what it takes."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

LOGIN = ("ci", "hunter2-hunter2")


@dataclass
class MailServer:
    """What was sent.

    Attributes:
        port: on 127.0.0.1.
        certificate: a file with the authority that it is certified by.
        refused: recipients that it does not take.
        encrypted: whether each message came so.
        users: who was logged in when each message came.
    """

    port: int = 0
    certificate: Path = Path()
    refused: tuple[str, ...] = ()
    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    users: list[str] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802  # the library calls it so
        self, _server: Any, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Take a recipient, or not."""
        if address in self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802  # the library calls it so
        self, _server: Any, session: Session, envelope: Envelope
    ) -> str:
        """Take a message."""
        content = envelope.content
        assert isinstance(content, bytes)
        self.messages.append(message_from_bytes(content, policy=policy.default))
        self.recipients.append(list(envelope.rcpt_tos))
        self.encrypted.append(session.ssl is not None)
        self.users.append(session.auth_data or "")
        return "250 OK"


class AnyPort(Controller):
    """Listens on a port that is free."""

    def _trigger_server(self) -> None:
        listening: Any = self.server
        self.port = listening.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]  # the library has types in part


@contextmanager
def serving(folder: Path, *, login: bool = False, tls: str = "none", certified: bool = True) -> Iterator[MailServer]:
    """A mail server with a port of its own.

    Args:
        folder: where its authority's certificate is written.
        login: whether it knows `LOGIN`, and with `starttls` takes nothing from others.
        tls: `none`, `starttls` or `tls`.
        certified: whether `certificate` is the authority that really certifies it.
    """
    authority = trustme.CA()
    server = MailServer(certificate=folder / "authority.pem")
    (authority if certified else trustme.CA()).cert_pem.write_to_path(str(server.certificate))
    controller = AnyPort(server, **_settings(authority, login=login, tls=tls))
    controller.start()
    server.port = controller.port
    try:
        yield server
    finally:
        controller.stop()


def _settings(authority: trustme.CA, *, login: bool, tls: str) -> dict[str, Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    given: dict[str, Any] = {"hostname": "127.0.0.1", "port": 0}
    if tls == "starttls":
        given |= {"tls_context": context, "require_starttls": True}
    if tls == "tls":
        given |= {"ssl_context": context, "auth_require_tls": False}
    if login:
        given |= {"authenticator": _authenticate, "auth_required": tls == "starttls"}
    return given


def _authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    assert isinstance(data, LoginPassword)
    user, password = data.login.decode(), data.password.decode()
    known = (user, password) == LOGIN
    return AuthResult(success=known, handled=known, auth_data=user)
