from __future__ import annotations

import smtplib
from email.message import EmailMessage
from pathlib import Path

import pytest

from pytest_madengine.errors import FaultsError, InfrastructureError
from pytest_madengine.reporting import smtp
from pytest_madengine.reporting.smtp import Server, send
from pytest_madengine.secrets import Secret
from tests.engines.mailservers import LOGIN, MailServer, serving


def message(*recipients: str) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "ci@example.com", ", ".join(recipients or ["a@example.com"]), "Größe"
    made.set_content("text")
    return made


def server(of: MailServer, monkeypatch: pytest.MonkeyPatch, *, tls: str = "none", login: bool = False) -> Server:
    """What to tell the client of it; the machine trusts its authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(of.certificate))
    user, password = LOGIN if login else ("", "")
    return Server("127.0.0.1", of.port, tls, user, Secret(password))


def test_a_message_goes_to_every_recipient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as running:
        send(message("a@example.com", "b@example.com"), server(running, monkeypatch))
    assert running.recipients == [["a@example.com", "b@example.com"]]
    assert running.messages[0]["Subject"] == "Größe"
    assert running.encrypted == [False]


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_login_goes_over_a_protected_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: str) -> None:
    with serving(tmp_path, login=True, tls=tls) as running:
        send(message(), server(running, monkeypatch, tls=tls, login=True))
    assert [str(each) for each in running.users] == [LOGIN[0]]


def test_a_wrong_password_is_told_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path, login=True, tls="starttls") as running:
        wrong = Server("127.0.0.1", running.port, "starttls", "ci", Secret("not-the-password"))
        monkeypatch.setenv("SSL_CERT_FILE", str(running.certificate))
        with pytest.raises(InfrastructureError, match=r"^mail server 127.0.0.1:\d+: 535 ") as caught:
            send(message(), wrong)
    assert "not-the-password" not in str(caught.value) + repr(wrong)


def test_a_server_that_does_not_protect_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as running, pytest.raises(InfrastructureError, match="STARTTLS"):
        send(message(), server(running, monkeypatch, tls="starttls"))
    assert running.messages == []


@pytest.mark.parametrize("tls", ["starttls", "tls"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of the server
def test_a_server_that_nobody_vouches_for_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    serves = serving(tmp_path, tls=tls, certified=False)
    with serves as running, pytest.raises(InfrastructureError, match="CERTIFICATE_VERIFY_FAILED"):
        send(message(), server(running, monkeypatch, tls=tls))
    assert running.messages == []


def test_recipients_that_are_not_taken_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as running:
        running.refused = ("b@example.com", "c@example.com")
        with pytest.raises(InfrastructureError, match=r"sent, but not to b@example.com \(no such user\)$"):
            send(message("a@example.com", "b@example.com"), server(running, monkeypatch))
        with pytest.raises(InfrastructureError, match=r"no recipient was taken: c@example.com: no such user$"):
            send(message("c@example.com"), server(running, monkeypatch))
    assert len(running.messages) == 1


def test_a_server_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as running:
        gone = server(running, monkeypatch)
    with pytest.raises(InfrastructureError, match=rf"^mail server 127.0.0.1:{gone.port}: .*refused"):
        send(message(), gone)


@pytest.mark.parametrize(("tls", "port"), [("starttls", 587), ("tls", 465), ("none", 25)])
def test_the_usual_port_follows_from_the_protection(tls: str, port: int) -> None:
    assert Server("mail.example.com", tls=tls).address == f"mail.example.com:{port}"
    assert smtplib.SMTP_SSL.default_port == smtp.PORTS["tls"]


def test_all_that_is_wrong_with_a_server_is_told_at_once() -> None:
    with pytest.raises(FaultsError) as caught:
        Server("", 70_000, "none", "", Secret("hunter2-hunter2"))
    assert [fault.where for fault in caught.value.faults] == [
        "--smtp-host",
        "--smtp-port",
        "SMTP_USER, SMTP_PASSWORD",
        "--smtp-tls",
    ]
    assert "hunter2" not in str(caught.value)
