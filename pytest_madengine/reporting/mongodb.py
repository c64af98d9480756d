"""Writes documents to MongoDB; the only module that knows pymongo, which is imported when it is first needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from pytest_madengine.errors import InfrastructureError, UserError
from pytest_madengine.reporting.mongosettings import EXAMPLE, Server
from pytest_madengine.results.documents import ID, Document

if TYPE_CHECKING:
    from pymongo import InsertOne, MongoClient, UpdateOne
    from pymongo.collection import Collection as Remote
    from pymongo.errors import OperationFailure, PyMongoError

BATCH = 1000
LONGEST_SILENCE = 60_000
"""Milliseconds that a server may take over one batch."""
WRONG_LOGIN, FORBIDDEN, EQUAL_KEYS = 18, 13, 11000


class AwayError(InfrastructureError):
    """No server answers, or it went away: what was not sent may be sent later."""


@dataclass(frozen=True)
class Sent:
    """What became of documents.

    Attributes:
        new: how many were not there before.
        changed: how many are there now in place of others.
        same: how many were there already.
        refused: what the server did not take, with its reason.
    """

    new: int = 0
    changed: int = 0
    same: int = 0
    refused: tuple[tuple[Document, str], ...] = ()

    @property
    def written(self) -> int:
        """How many are there now."""
        return self.new + self.changed + self.same


def check(server: Server) -> None:
    """Meet a URI that pymongo cannot read; contacts nobody.

    Raises:
        UserError: it cannot be read; nothing of it is shown.
    """
    from pymongo.errors import PyMongoError
    from pymongo.uri_parser import parse_uri

    if server.uri.startswith("mongodb+srv:"):
        return  # to read it, name servers would have to be asked
    try:
        parse_uri(server.uri, warn=False)
    except (PyMongoError, ValueError) as error:
        raise UserError(f"MongoDB's URI cannot be read: {server.mask(str(error))}; valid: {EXAMPLE}") from None


@dataclass(frozen=True)
class Order:
    """What is asked of the server for one document.

    Attributes:
        inserts: whether it must not be there yet.
        instead: what to ask where it is; None for nothing.
    """

    document: Document
    operation: InsertOne[dict[str, Any]] | UpdateOne
    inserts: bool = False
    instead: Order | None = None


@dataclass(frozen=True)
class Writing:
    """How documents are written.

    Attributes:
        now: further fields, for those that are new.
        overwrite: whether to change what is there.
    """

    now: Mapping[str, Any]
    overwrite: bool

    def order(self, document: Document) -> Order:
        """What to ask first: documents with an `_id` are inserted, which is far cheaper than to look for each."""
        from pymongo import InsertOne

        if document.key.keys() != {ID}:
            return self._upsert(document)
        insert = InsertOne({**self.now, **document.content, **document.key})
        return Order(document, insert, inserts=True, instead=self._upsert(document) if self.overwrite else None)

    def _upsert(self, document: Document) -> Order:
        from pymongo import UpdateOne

        content = {name: value for name, value in document.content.items() if name not in document.key}
        once = {name: value for name, value in self.now.items() if name not in document.content}
        if not (self.overwrite and content):
            return Order(document, UpdateOne(document.key, {"$setOnInsert": {**content, **once}}, upsert=True))
        return Order(document, UpdateOne(document.key, {"$set": content, "$setOnInsert": once}, upsert=True))


class Collection:
    """A collection of a server, which is contacted when something is first asked of it; to be closed.

    Args:
        server: where it is.
        database: its database.
        name: of the collection.
    """

    def __init__(self, server: Server, database: str, name: str) -> None:
        self.place = (database, name)
        self._server = server
        self._client: MongoClient[dict[str, Any]] | None = None

    def close(self) -> None:
        """Let go of the server; asked again, it is contacted again."""
        client, self._client = self._client, None
        if client:
            client.close()

    def require_unique(self, fields: Sequence[str]) -> None:
        """Let the server find documents by these fields, and refuse two that are equal in them.

        Raises:
            AwayError: no server answers.
            UserError: documents that are equal in them are there already, or the server lets nobody.
        """
        from pymongo.errors import OperationFailure

        with self._translated():
            try:
                self._remote().create_index([(name, 1) for name in fields], unique=True)
            except OperationFailure as error:
                if error.code != EQUAL_KEYS:
                    raise
                names = ", ".join(fields)
                raise UserError(
                    f"{'.'.join(self.place)} holds documents that are equal in {names}, so these can be no unique key; "
                    "valid: other fields in --unique-key, or --no-index"
                ) from None

    def send(
        self, documents: Iterable[Document], now: Mapping[str, Any], batch: int = BATCH, *, overwrite: bool = True
    ) -> Iterator[Sent]:
        """Put documents there, or in the place of those with the same key; fields that only these have stay.

        Args:
            documents: what to send; one is refused without harm to the others.
            now: further fields, for those that are new.
            batch: how many are sent at a time.
            overwrite: whether to change what is there.

        Yields:
            what became of each batch, once it is on the server's disk.

        Raises:
            AwayError: the server does not answer any more. Whatever had not been yielded may be there or not: to send
                it again does no harm.
            UserError: the server lets this user in or write nothing.
        """
        left, writing = iter(documents), Writing(now, overwrite)
        while part := list(islice(left, batch)):
            with self._translated():
                sent = self._sent([writing.order(each) for each in part])
            yield sent

    def _sent(self, orders: Sequence[Order]) -> Sent:
        """Send a batch; where it holds something that no server could be sent, find out what, by halves."""
        from bson.errors import InvalidBSON, InvalidDocument
        from pymongo.errors import BulkWriteError, DocumentTooLarge

        if not orders:
            return Sent()
        try:
            done = self._remote().bulk_write([each.operation for each in orders], ordered=False)
        except BulkWriteError as error:
            return self._partly(orders, error.details)
        except (InvalidDocument, InvalidBSON, DocumentTooLarge, OverflowError) as error:
            if len(orders) == 1:
                return Sent(refused=((orders[0].document, str(error)),))
            half = len(orders) // 2
            return _together(self._sent(orders[:half]), self._sent(orders[half:]))
        return _counted(done.bulk_api_result)

    def _partly(self, orders: Sequence[Order], details: Mapping[str, Any]) -> Sent:
        """What became of a batch that was not taken whole; documents that were there before are dealt with now."""
        failed = [(orders[each["index"]], each) for each in details["writeErrors"]]
        if details["writeConcernErrors"] and not failed:
            reason = str(details["writeConcernErrors"][0].get("errmsg", ""))
            return Sent(refused=tuple((each.document, reason) for each in orders))
        met = [order for order, each in failed if order.inserts and _is_there(each)]
        refused = [
            (order.document, str(each.get("errmsg", "")))
            for order, each in failed
            if not (order.inserts and _is_there(each))
        ]
        again = [each.instead for each in met if each.instead]
        known = Sent(same=len(met) - len(again), refused=tuple(refused))
        return _together(_together(_counted(details), known), self._sent(again))

    def _remote(self) -> Remote[dict[str, Any]]:
        if self._client is None:
            self._client = _client(self._server)
        database, name = self.place
        return self._client[database][name]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of pymongo as our own, which show no secret."""
        from pymongo import errors

        try:
            yield
        except errors.OperationFailure as error:
            raise _refusal(error, self._server, self.place) from None
        except (errors.ConfigurationError, errors.InvalidName) as error:
            raise UserError(f"MongoDB at {self._server.hosts}: {self._server.mask(str(error))}") from None
        except errors.PyMongoError as error:
            raise AwayError(f"MongoDB at {self._server.hosts}: {_away(error, self._server)}") from None


def _client(server: Server) -> MongoClient[dict[str, Any]]:
    from pymongo import MongoClient
    from pymongo.driver_info import DriverInfo

    stated = server.uri.partition("?")[2].lower()
    options: dict[str, Any] = {
        "username": server.username or None,
        "password": server.password or None,
        "authSource": server.auth_source or None,
        "tls": server.tls,
        "tlsCAFile": str(server.ca_file) if server.ca_file else None,
        "serverSelectionTimeoutMS": server.timeout,
        "connectTimeoutMS": server.timeout,
        "socketTimeoutMS": max(server.timeout, LONGEST_SILENCE),
        "journal": True,
        "driver": DriverInfo("pytest-madengine"),
    }
    given = {name: value for name, value in options.items() if value is not None and f"{name.lower()}=" not in stated}
    return MongoClient(server.uri, **given)


def _counted(result: Mapping[str, Any]) -> Sent:
    changed = result["nModified"] or 0
    return Sent(result["nInserted"] + result["nUpserted"], changed, result["nMatched"] - changed)


def _is_there(error: Mapping[str, Any]) -> bool:
    """Whether a document was not inserted because one with its `_id` is there, and not for another unique index."""
    return bool(error["code"] == EQUAL_KEYS and error.get("keyPattern", {ID: 1}).keys() == {ID})


def _together(one: Sent, other: Sent) -> Sent:
    return Sent(one.new + other.new, one.changed + other.changed, one.same + other.same, (*one.refused, *other.refused))


def total(parts: Iterable[Sent]) -> Sent:
    """What became of all batches."""
    sent = Sent()
    for part in parts:
        sent = _together(sent, part)
    return sent


def _refusal(error: OperationFailure, server: Server, place: tuple[str, str]) -> UserError:
    where = f"MongoDB at {server.hosts}"
    whose = f"user {server.username!r}" if server.username else "the URI's user"
    source = f" (authentication database {server.auth_source!r})" if server.auth_source else ""
    if error.code == WRONG_LOGIN:
        return UserError(f"{where} does not let {whose} in{source}: wrong user, password or authentication database")
    if error.code == FORBIDDEN:
        who = whose if server.username or "@" in server.uri else "somebody without a login (MONGO_USER)"
        return UserError(f"{where} does not let {who} write to {'.'.join(place)}: {_first(error, server)}")
    return UserError(f"{where} refuses: {_first(error, server)}")


def _first(error: PyMongoError, server: Server) -> str:
    """The words of an error without the reply and the state of all servers that follow."""
    text = str(error).split(", full error:")[0].split(", Timeout:")[0].split(" (configured timeouts:")[0]
    return server.mask(" ".join(text.split()))


def _away(error: PyMongoError, server: Server) -> str:
    return f"no answer within {server.timeout / 1000:g} s, or it went away: {_first(error, server)}"
