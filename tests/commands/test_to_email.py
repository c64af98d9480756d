from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from pytest_madengine.cli import main
from tests.engines.mailservers import LOGIN, MailServer, serving

TO_EMAIL = ("report", "to-email")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a CSV file, and the working directory; nobody is logged in anywhere."""
    for name in ("SMTP_USER", "SMTP_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "perf.csv").write_text("model,status\nllama,SUCCESS\n")
    return tmp_path


@pytest.fixture
def mail_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    """One that wants a login over STARTTLS, and that this machine trusts."""
    with serving(folder, login=True, tls="starttls") as running:
        monkeypatch.setenv("SSL_CERT_FILE", str(running.certificate))
        monkeypatch.setenv("SMTP_USER", LOGIN[0])
        monkeypatch.setenv("SMTP_PASSWORD", LOGIN[1])
        yield running


def test_the_page_lies_in_the_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TO_EMAIL) == 0
    assert "llama" in (folder / "run_results.html").read_text()
    assert capsys.readouterr().out == "written: run_results.html\n"


@pytest.mark.parametrize("flag", ["--directory", "--dir"])
def test_folder_and_page_can_be_named(folder: Path, tmp_path: Path, flag: str) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (folder / "perf.csv").rename(results / "perf.csv")
    assert main([*TO_EMAIL, flag, "results", "-o", "page.html"]) == 0
    assert main([*TO_EMAIL, flag, "results", "--output", str(tmp_path / "elsewhere.html")]) == 0
    assert (results / "page.html").read_text() == (tmp_path / "elsewhere.html").read_text()


def test_a_file_that_cannot_be_read_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "empty.csv").touch()
    assert main(TO_EMAIL) == 0
    assert "empty.csv: an empty file; left out" in capsys.readouterr().err
    assert "empty.csv: an empty file; left out" in (folder / "run_results.html").read_text()


def test_a_folder_without_tables_is_an_error_and_leaves_no_page(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "perf.csv").unlink()
    assert main(TO_EMAIL) == 1
    assert "has no CSV file" in capsys.readouterr().err
    assert not (folder / "run_results.html").exists()


def test_a_page_that_cannot_be_written_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TO_EMAIL, "-o", "missing/page.html"]) == 1
    assert "missing" in capsys.readouterr().err


def test_a_message_as_a_file(folder: Path) -> None:
    assert main([*TO_EMAIL, "--eml", "mail.eml", "--from", "ci@example.com", "--subject", "Nightly"]) == 0
    parsed = message_from_bytes((folder / "mail.eml").read_bytes(), policy=policy.default)
    assert (parsed["From"], parsed["Subject"]) == ("ci@example.com", "Nightly")
    assert [part.get_content_type() for part in parsed.walk()][1:] == ["text/plain", "text/html"]


def send(running: MailServer, *more: str) -> int:
    where = ("--smtp-host", "127.0.0.1", "--smtp-port", str(running.port))
    return main(
        [*TO_EMAIL, "--send", *where, "--from", "ci@example.com", "--to", "a@example.com, b@example.com", *more]
    )


def test_a_message_is_sent(folder: Path, mail_server: MailServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert send(mail_server, "--to", "c@example.com") == 0
    assert mail_server.recipients == [["a@example.com", "b@example.com", "c@example.com"]]
    assert (mail_server.encrypted, mail_server.users) == ([True], [LOGIN[0]])
    assert "sent: a@example.com, b@example.com, c@example.com" in capsys.readouterr().out
    assert not list(folder.glob("*.eml"))


def test_a_login_that_fails_is_an_error_that_shows_no_password(
    folder: Path, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "not-the-password")
    assert send(mail_server) == 1
    said = capsys.readouterr()
    assert "535" in said.err
    assert "not-the-password" not in said.out + said.err
    assert mail_server.messages == []


def test_a_secret_of_the_environment_stands_on_no_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2-hunter2")
    (folder / "env.csv").write_text("name,value\nHF_TOKEN,hunter2-hunter2\n")
    assert main([*TO_EMAIL, "--eml", "mail.eml"]) == 0
    assert b"hunter2" not in (folder / "run_results.html").read_bytes() + (folder / "mail.eml").read_bytes()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--send"], ["--smtp-host is missing", "--from is missing", "--to is missing"]),
        (["--smtp-host", "mail"], ["--smtp-host: belongs to --send"]),
        (["--smtp-tls", "none"], ["--smtp-tls: belongs to --send"]),
        (["--to", "a@b,nobody", "--from", "x"], ["--from: found 'x'", "--to: found 'nobody'"]),
        (["--send", "--smtp-host", "m", "--smtp-port", "70000", "--to", "a"], ["--smtp-port", "--from", "--to: found"]),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], given: list[str], words: list[str]
) -> None:
    assert main([*TO_EMAIL, *given]) == 1
    said = capsys.readouterr().err
    assert [each for each in words if each not in said] == []
    assert not (folder / "run_results.html").exists()
