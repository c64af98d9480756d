"""`pytest-madengine database`: what files hold, and what could not be sent before, into MongoDB."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_madengine.errors import FaultsError, MadengineError, UserError
from pytest_madengine.reporting import datafile, mongodb, mongosettings
from pytest_madengine.reporting.mongodb import BATCH, AwayError, Collection, Sent, total
from pytest_madengine.reporting.mongoreporter import Sender, new_fields, refusal, waiting
from pytest_madengine.reporting.mongosettings import Server
from pytest_madengine.reporting.spool import Spool
from pytest_madengine.results import documents
from pytest_madengine.results.documents import Document

DESCRIPTION = """\
Put the rows of a file into MongoDB. A row of a run is found there by its run and model, any other one by its file and
content, so that no run replaces another one's rows and to send a file again changes nothing. The server stands in
MONGO_URI, or MONGO_HOST and MONGO_PORT; MONGO_USER, MONGO_PASSWORD, MONGO_AUTH_SOURCE, MONGO_TIMEOUT_MS, MONGO_TLS and
MONGO_TLS_CA_FILE count too. Exit status 1 says that not every row is there.
"""
MOST_TOLD = 20
"""Refused rows that are told one by one."""


@dataclass(frozen=True)
class Wish:
    """What is to be done with a file.

    Attributes:
        place: the database and the collection.
        unique: fields to find documents by; () for the key that they have anyway.
        batch: documents that are sent at a time.
    """

    file: Path
    place: tuple[str, str]
    unique: tuple[str, ...]
    batch: int
    overwrite: bool
    index: bool
    verbose: bool

    @property
    def where(self) -> str:
        """The place in words."""
        return ".".join(self.place)

    def documents(self) -> Iterator[Document]:
        """What the file holds."""
        found = datafile.documents(self.file)
        return documents.keyed(found, self.unique) if self.unique else found


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("database", help="put results into MongoDB", description=DESCRIPTION)
    parser.set_defaults(run=run)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        *("-f", "--file", "--csv-file"), type=Path, metavar="FILE", help="CSV, JSON or JSON lines, as a run's record"
    )
    what.add_argument(
        "--spooled",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="PROJECT",
        help="send what runs in this project (default: here) could not, and what the server refused then",
    )
    say = parser.add_argument
    say(
        *("--database", "--db", "--database-name"),
        metavar="NAME",
        help=f"default: MONGO_DATABASE, else the URI's, else {mongosettings.DATABASE}",
    )
    say(
        *("-c", "--collection", "--collection-name"),
        metavar="NAME",
        help=f"default: MONGO_COLLECTION, else {mongosettings.COLLECTION}",
    )
    say("-k", "--unique-key", default="", metavar="A,B", help="find documents by these fields, with a unique index")
    say("--batch-size", type=_count, default=BATCH, metavar="N", help=f"documents sent at a time (default: {BATCH})")
    say("--no-upsert", action="store_true", help="add what is new, and leave what is there as it is")
    say("--no-index", action="store_true", help="make no index for --unique-key")
    say("--dry-run", action="store_true", help="say what would be sent, and contact nobody")
    say("-v", "--verbose", action="store_true", help="tell of each batch; with --dry-run of each document")


def run(chosen: argparse.Namespace) -> int:
    """Do what was asked for.

    Raises:
        MadengineError: it cannot be done at all.
    """
    server = mongosettings.of_environment(os.environ)
    mongodb.check(server)
    if chosen.spooled is not None:
        return _send_spooled(server, Spool(chosen.spooled), dry=chosen.dry_run)
    wish = _wish(chosen, server)
    count, distinct = _checked(wish)
    if chosen.dry_run:
        return _tell_dry(wish, server, count, distinct)
    return _send_file(wish, server, count, distinct)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"found {text!r}; valid: a whole number, 1 or more")
    return int(text)


def _wish(chosen: argparse.Namespace, server: Server) -> Wish:
    unique = tuple(each.strip() for each in chosen.unique_key.split(",") if each.strip())
    if chosen.unique_key and not unique:
        raise UserError(f"--unique-key: found {chosen.unique_key!r}; valid: names of fields, with commas between")
    return Wish(
        file=chosen.file,
        place=(chosen.database or server.database, chosen.collection or server.collection),
        unique=unique,
        batch=chosen.batch_size,
        overwrite=not chosen.no_upsert,
        index=bool(unique) and not chosen.no_index,
        verbose=chosen.verbose,
    )


def _checked(wish: Wish) -> tuple[int, int]:
    """How many rows there are, and how many documents they make; whatever is wrong in the file is met before."""
    datafile.check(wish.file)
    if wish.unique and (found := documents.unkeyed(datafile.documents(wish.file), wish.unique)):
        raise FaultsError(found)
    keys = [hash(repr(each.key)) for each in wish.documents()]
    return len(keys), len(set(keys))


def _tell_dry(wish: Wish, server: Server, count: int, distinct: int) -> int:
    for document in wish.documents() if wish.verbose else ():
        _say(f"{document.title}: {_key(document)}")
    _say(f"dry run: {_rows(count)} of {wish.file} would go to {wish.where} of MongoDB at {server.hosts}")
    _tell_equal(wish, count, distinct)
    return 0


def _send_file(wish: Wish, server: Server, count: int, distinct: int) -> int:
    collection = Collection(server, *wish.place)
    parts: list[Sent] = []
    try:
        if wish.index:
            collection.require_unique(wish.unique)
        for part in collection.send(wish.documents(), new_fields(), wish.batch, overwrite=wish.overwrite):
            parts.append(part)
            _tell_part(wish, part, len(parts))
    except AwayError as error:
        there = total(parts).written
        known = f"{there} of {_rows(count)} of {wish.file} are in {wish.where}; to send the file again adds the others"
        raise MadengineError(f"{error}\n{known}") from None
    finally:
        collection.close()
    sent = total(parts)
    _say(f"{wish.file}: {_rows(count)} to {wish.where} of MongoDB at {server.hosts}: {_outcome(sent)}")
    _tell_equal(wish, count, distinct)
    return _told([refusal(document, reason) for document, reason in sent.refused])


def _send_spooled(server: Server, spool: Spool, *, dry: bool) -> int:
    waits = len(list(spool.parcels(refused=True)))
    if dry:
        _say(f"dry run: {waits} of {spool.folder} would go to MongoDB at {server.hosts}")
        return 0
    sender = Sender(server, spool)
    try:
        sender.send_all(refused=True)
    except AwayError as error:
        raise MadengineError(f"{error}\n{waiting(spool.count(), spool)}") from None
    finally:
        sender.close()
    _say(f"{spool.folder}: {sender.sent} sent to MongoDB at {server.hosts}")
    return _told([*sender.refusals, *_unread(spool)])


def _unread(spool: Spool) -> Iterator[str]:
    if left := spool.count():
        yield f"{left} in {spool.folder} cannot be read"


def _tell_part(wish: Wish, part: Sent, number: int) -> None:
    if wish.verbose:
        _say(f"batch {number}: {_outcome(part)}")


def _tell_equal(wish: Wish, count: int, distinct: int) -> None:
    if distinct < count:
        _say(f"{_rows(count)} make {distinct} documents: the others are equal in {', '.join(wish.unique)}")


def _told(lost: Sequence[str]) -> int:
    """Tell what is not there; the exit status."""
    shown = [*lost[:MOST_TOLD], *([f"{len(lost) - MOST_TOLD} more"] if len(lost) > MOST_TOLD else [])]
    for line in shown:
        sys.stderr.write(f"pytest-madengine: {line}\n")
    return int(bool(lost))


def _outcome(sent: Sent) -> str:
    counts = {"new": sent.new, "changed": sent.changed, "there already": sent.same, "refused": len(sent.refused)}
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def _key(document: Document) -> str:
    return ", ".join(f"{name}={value}" for name, value in document.key.items())


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
