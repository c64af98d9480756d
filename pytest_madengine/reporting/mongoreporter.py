"""Sends each Result to MongoDB while models run; what cannot be sent waits on disk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from pytest_madengine.errors import MadengineError
from pytest_madengine.reporting.mongodb import AwayError, Collection, total
from pytest_madengine.reporting.mongosettings import Server
from pytest_madengine.reporting.spool import Parcel, Spool
from pytest_madengine.results.documents import Document, of_result
from pytest_madengine.results.result import Result
from pytest_madengine.secrets import NO_SECRETS, Masker

PAUSE = 30.0
"""Seconds for which a server that did not answer is left alone, unless the run is over."""
LATER = "the next run with --madengine-mongo, or `pytest-madengine database --spooled`, sends what waits"


def new_fields() -> Mapping[str, Any]:
    """What a document that is new says of when it came."""
    now = datetime.now(timezone.utc)
    return {"_meta_uploaded_at": now, "created_date": f"{now:%Y-%m-%d %H:%M:%S}"}


class MongoReporter:
    """A remote reporter: `keep` puts documents into the spool, `write` sends whatever is there.

    Args:
        server: where Results go, to the database and collection that it names.
        spool: where documents wait.
        run: the run's id.
        mask: hides secrets.
    """

    name = "MongoDB"
    remote = True

    def __init__(self, server: Server, spool: Spool, run: str, mask: Masker = NO_SECRETS) -> None:
        self._place = (server.database, server.collection)
        self._sender = Sender(server, spool)
        self._spool = spool
        self._run = run
        self._mask = mask
        self._not_before = 0.0
        self._trouble = ""
        self._shut_out = ""

    def keep(self, result: Result) -> None:
        """See `Keeping`."""
        self._spool.put(f"{self._run}/{result.id}", self._place, of_result(result, self._run, self._mask))

    def write(self, _: Result, /) -> None:
        """Send what waits, that of earlier runs too, unless the server was away a moment ago."""
        if time.monotonic() >= self._not_before and not self._shut_out:
            self._try()

    def finish(self) -> None:
        """Send what still waits.

        Raises:
            MadengineError: the server does not let this user in, or refused documents.
        """
        if self._spool.count() and not self._shut_out:
            self._try()
        self._sender.close()
        if lost := [*filter(None, [self._shut_out]), *self._sender.refusals]:
            raise MadengineError("\n".join(lost))

    def waiting(self) -> str:
        """See `Keeping`."""
        count = self._spool.count()
        return f"{self._trouble or self.name}: {waiting(count, self._spool)}" if count else ""

    def _try(self) -> None:
        try:
            self._sender.send_all()
            self._trouble = ""
        except AwayError as error:
            self._trouble, self._not_before = str(error), time.monotonic() + PAUSE
            self._sender.close()
        except MadengineError as error:
            self._shut_out = str(error)
            self._sender.close()


class Sender:
    """Sends what is in the spool.

    Args:
        server: where to; it is contacted when there is something to send.
        spool: where documents wait.

    Attributes:
        sent: how many Results were taken.
        refusals: what was not, in words.
    """

    def __init__(self, server: Server, spool: Spool) -> None:
        self.sent = 0
        self.refusals: list[str] = []
        self._server = server
        self._spool = spool
        self._collections: dict[tuple[str, str], Collection] = {}

    def send_all(self, *, refused: bool = False) -> None:
        """Send it, oldest first.

        Args:
            refused: whether to try that again which was refused before.

        Raises:
            AwayError: the server does not answer; what is left waits.
            UserError: the server lets nobody in or write.
        """
        for parcel in self._spool.parcels(refused=refused):
            self._send(parcel)

    def close(self) -> None:
        """Let go of the server."""
        for collection in self._collections.values():
            collection.close()

    def _send(self, parcel: Parcel) -> None:
        if parcel.place not in self._collections:
            self._collections[parcel.place] = Collection(self._server, *parcel.place)
        done = total(self._collections[parcel.place].send(parcel.documents, new_fields()))
        if done.refused:
            self._spool.refused(parcel)
            self.refusals += [refusal(document, reason) for document, reason in done.refused]
        else:
            self._spool.sent(parcel)
            self.sent += 1


def waiting(count: int, spool: Spool) -> str:
    """That so many Results wait, and for what."""
    return f"{count} {'result waits' if count == 1 else 'results wait'} in {spool.folder}: {LATER}"


def refusal(document: Document, reason: str) -> str:
    """A document that the server did not take, in words."""
    return f"{document.title} was refused: {reason}"
