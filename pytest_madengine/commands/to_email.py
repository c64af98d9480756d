"""`pytest-madengine report to-email`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_madengine import files
from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.reporting import csvtables, mail, smtp
from pytest_madengine.reporting.csvtables import Found
from pytest_madengine.reporting.mail import Envelope
from pytest_madengine.reporting.smtp import Server
from pytest_madengine.secrets import Masker, Secret, is_secret

USER, PASSWORD = "SMTP_USER", "SMTP_PASSWORD"
OF_SENDING = ("smtp_host", "smtp_port", "smtp_tls")
TLS = "starttls"


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "to-email",
        help="make one page of a folder's CSV files for mail programs, and send it if asked to",
        description="Make one HTML page of a folder's CSV files that mail programs show; with --eml also a message, "
        f"with --send also hand it to a mail server. A login is read from {USER} and {PASSWORD}.",
    )
    parser.set_defaults(run=_run)
    say = parser.add_argument
    say("--directory", "--dir", type=Path, default=Path(), metavar="DIR", help="the folder (default: this one)")
    say(
        *("-o", "--output"),
        type=Path,
        default=Path("run_results.html"),
        metavar="FILE",
        help="the page, in that folder unless the path is absolute (default: run_results.html)",
    )
    say("--eml", type=Path, metavar="FILE", help="write a message too: text, and HTML with the tables")
    say("--subject", default=mail.SUBJECT, metavar="TEXT", help=f"of the message (default: {mail.SUBJECT})")
    say("--from", dest="sender", default="", metavar="ADDRESS", help="of the message")
    say("--to", action="append", default=[], metavar="ADDRESS", help="of the message; several with commas, or repeated")
    say("--send", action="store_true", help="hand the message to a mail server")
    say("--smtp-host", metavar="HOST", help="the mail server")
    say("--smtp-port", type=int, metavar="PORT", help="its port (default: what is usual for --smtp-tls)")
    say("--smtp-tls", choices=tuple(smtp.PORTS), help=f"how the connection is protected (default: {TLS})")


def _run(chosen: argparse.Namespace) -> int:
    """Write and send what is asked for; nothing is written where something of it cannot be."""
    envelope, server = _checked(chosen, os.environ)
    mask = Masker(value for name, value in os.environ.items() if is_secret(name))
    found = csvtables.read(chosen.directory, mask)
    for each in found.unreadable:
        sys.stderr.write(f"pytest-madengine: {chosen.directory / each}; left out\n")
    output = chosen.directory / chosen.output
    files.replace_target(output, mail.page(found, envelope.subject))
    _say(f"written: {output}")
    _message(chosen, found, envelope, server)
    return 0


def _message(chosen: argparse.Namespace, found: Found, envelope: Envelope, server: Server | None) -> None:
    """Make the message where somebody wants it."""
    if not (chosen.eml or server):
        return
    made = mail.message(found, envelope)
    if chosen.eml:
        chosen.eml.write_bytes(made.as_bytes())
        _say(f"written: {chosen.eml}")
    if server:
        smtp.send(made, server)
        _say(f"sent: {', '.join(envelope.recipients)}")


def _checked(chosen: argparse.Namespace, environ: Mapping[str, str]) -> tuple[Envelope, Server | None]:
    """Who writes to whom by which server, or all that is wrong with it at once."""
    faults = list(_missing(chosen))
    envelope = server = None
    try:
        recipients = tuple(each.strip() for given in chosen.to for each in given.split(",") if each.strip())
        envelope = Envelope(chosen.sender, recipients, chosen.subject)
    except FaultsError as error:
        faults += error.faults
    try:
        server = _server(chosen, environ) if chosen.send and chosen.smtp_host else None
    except FaultsError as error:
        faults += error.faults
    if faults or envelope is None:
        raise FaultsError(faults)
    return envelope, server


def _missing(chosen: argparse.Namespace) -> Iterator[Fault]:
    needed = {"--smtp-host": chosen.smtp_host, "--from": chosen.sender, "--to": chosen.to}
    for name in (name for name, value in needed.items() if chosen.send and not value):
        yield Fault("--send", f"{name} is missing", "it must be given")
    for name in (name for name in OF_SENDING if not chosen.send and getattr(chosen, name) is not None):
        yield Fault(f"--{name.replace('_', '-')}", "belongs to --send, which is not given")


def _server(chosen: argparse.Namespace, environ: Mapping[str, str]) -> Server:
    password = Secret(environ.get(PASSWORD, ""))
    return Server(chosen.smtp_host, chosen.smtp_port or 0, chosen.smtp_tls or TLS, environ.get(USER, ""), password)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
