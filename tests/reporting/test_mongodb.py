from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.errors import UserError
from pytest_madengine.reporting.mongodb import AwayError, Collection, Sent, check, total
from pytest_madengine.reporting.mongosettings import of_environment
from pytest_madengine.results.documents import Document
from tests.engines.mongo import PASSWORD, USER, Database, MongoServer, free_port, silent

NOW = {"created_date": "2026-01-02 03:04:05"}
SOON = {"MONGO_HOST": "127.0.0.1", "MONGO_TIMEOUT_MS": "200"}


def document(name: str, **content: Any) -> Document:
    return Document({"_id": name}, {"model": name, **content}, f"row {name}")


def collection(environ: Mapping[str, str], name: str = "results") -> Any:
    server = of_environment(environ)
    return closing(Collection(server, server.database, name))


def send(target: Collection, *documents: Document, **more: Any) -> Sent:
    return total(target.send(documents, NOW, **more))


@pytest.fixture
def target(mongo: Database) -> Iterator[Collection]:
    with collection({"MONGO_URI": mongo.uri}) as opened:
        yield opened


def counts(sent: Sent) -> tuple[int, int, int, int]:
    return sent.new, sent.changed, sent.same, len(sent.refused)


@pytest.mark.requires_mongo
def test_documents_are_there_once_however_often_they_are_sent(mongo: Database, target: Collection) -> None:
    documents = [document(name, performance=1.5, configs={"a": [1, None]}) for name in "abc"]
    assert counts(send(target, *documents)) == (3, 0, 0, 0)
    before = mongo.documents()
    assert counts(total(target.send(documents, {"created_date": "later"}))) == (0, 0, 3, 0)
    assert mongo.documents() == before
    assert before[0] == {"_id": "a", "model": "a", "performance": 1.5, "configs": {"a": [1, None]}, **NOW}


@pytest.mark.requires_mongo
def test_what_has_changed_is_changed_and_what_others_added_stays(mongo: Database, target: Collection) -> None:
    send(target, document("a", performance=1), document("b"))
    mongo.collection().update_one({"_id": "a"}, {"$set": {"seen_by": "ann"}})
    assert counts(send(target, document("a", performance=2), document("b"), document("c"))) == (1, 1, 1, 0)
    assert mongo.documents()[0] == {"_id": "a", "model": "a", "performance": 2, "seen_by": "ann", **NOW}


@pytest.mark.requires_mongo
def test_what_is_there_is_left_as_it_is_if_wanted(mongo: Database, target: Collection) -> None:
    send(target, document("a", performance=1))
    sent = send(target, document("a", performance=2), document("b"), overwrite=False)
    assert counts(sent) == (1, 0, 1, 0)
    assert [each.get("performance") for each in mongo.documents()] == [1, None]


@pytest.mark.requires_mongo
def test_batches_are_told_one_by_one(target: Collection) -> None:
    parts = target.send([document(str(number)) for number in range(25)], NOW, 10)
    assert [counts(each) for each in parts] == [(10, 0, 0, 0), (10, 0, 0, 0), (5, 0, 0, 0)]


@pytest.mark.requires_mongo
def test_one_that_the_server_refuses_costs_no_other(mongo: Database, target: Collection) -> None:
    mongo.collection().create_index("serial", unique=True, sparse=True)
    sent = send(target, document("a", serial=1), document("b", serial=1), document("c", serial=2))
    assert counts(sent) == (2, 0, 0, 1)
    ((refused, reason),) = sent.refused
    assert (refused.title, "duplicate key" in reason) == ("row b", True)
    assert [each["_id"] for each in mongo.documents()] == ["a", "c"]


@pytest.mark.requires_mongo
def test_one_that_no_server_can_be_sent_costs_no_other(mongo: Database, target: Collection) -> None:
    documents = [document(str(number)) for number in range(6)]
    documents[3] = document("3", log="x" * (17 << 20))
    sent = send(target, *documents)
    assert counts(sent) == (5, 0, 0, 1)
    assert [(each.title, bool(reason)) for each, reason in sent.refused] == [("row 3", True)]
    assert len(mongo.documents()) == 5


@pytest.mark.requires_mongo
def test_other_fields_may_be_the_key_with_a_unique_index(mongo: Database, target: Collection) -> None:
    rows = [Document({"model": name}, {"model": name, "value": number}, name) for number, name in enumerate("aab")]
    target.require_unique(["model"])
    assert counts(send(target, *rows)) == (2, 1, 0, 0)
    assert sorted((each["model"], each["value"]) for each in mongo.documents()) == [("a", 1), ("b", 2)]
    indexes = [(list(each["key"]), each.get("unique", False)) for each in mongo.collection().list_indexes()]
    assert indexes[1:] == [(["model"], True)]


@pytest.mark.requires_mongo
def test_no_index_is_made_unless_it_is_asked_for(mongo: Database, target: Collection) -> None:
    send(target, document("a"))
    assert [list(each["key"]) for each in mongo.collection().list_indexes()] == [["_id"]]


@pytest.mark.requires_mongo
def test_what_is_equal_already_can_be_no_unique_key(mongo: Database, target: Collection) -> None:
    send(target, document("a", date=1), document("b", date=1))
    with pytest.raises(UserError, match=r"holds documents that are equal in date.*--no-index"):
        target.require_unique(["date"])


@pytest.fixture
def private(mongo_program: str, tmp_path: Path) -> Iterator[MongoServer]:
    with MongoServer(mongo_program, tmp_path, login=True, tls=True) as server:
        yield server


@pytest.mark.requires_mongo
def test_logins_full_of_odd_characters_and_tls(private: MongoServer) -> None:
    with collection(private.environ) as opened:
        assert counts(send(opened, document("a"))) == (1, 0, 0, 0)
    with private.client() as client:
        assert client.madengine.results.count_documents({}) == 1
    _wrong_logins(private.environ)
    _wrong_tls(private.environ)


def _wrong_logins(environ: dict[str, str]) -> None:
    for wrong in ({"MONGO_PASSWORD": f"{PASSWORD}x"}, {"MONGO_AUTH_SOURCE": "elsewhere"}):
        words = _refusal({**environ, **wrong})
        assert f"does not let user {USER!r} in (authentication database" in words
        assert PASSWORD not in words
    nobody = {name: value for name, value in environ.items() if name not in ("MONGO_USER", "MONGO_PASSWORD")}
    assert _refusal(nobody)


def _wrong_tls(environ: dict[str, str]) -> None:
    untrusted = {name: value for name, value in environ.items() if name != "MONGO_TLS_CA_FILE"}
    with collection({**untrusted, "MONGO_TLS": "true"}) as opened, pytest.raises(AwayError, match="certificate"):
        send(opened, document("a"))


def _refusal(environ: dict[str, str]) -> str:
    with collection(environ) as opened, pytest.raises(UserError) as caught:
        send(opened, document("a"))
    return str(caught.value)


@pytest.mark.requires_mongo
def test_a_server_that_is_killed_has_what_it_said_it_had(mongo_program: str, tmp_path: Path) -> None:
    documents = [document(f"{number:04d}") for number in range(300)]
    with MongoServer(mongo_program, tmp_path) as server:
        environ = {**server.environ, "MONGO_TIMEOUT_MS": "300"}
        with collection(environ) as opened:
            parts = opened.send(documents, NOW, 100)
            assert counts(next(parts)) == (100, 0, 0, 0)
            server.kill()
            with pytest.raises(AwayError, match=rf"MongoDB at 127.0.0.1:{server.port}: no answer within 0.3 s"):
                next(parts)
        server.start()
        with server.client() as client:
            there = {each["_id"] for each in client.madengine.results.find()}
        assert there >= {each.key["_id"] for each in documents[:100]}
        with collection(server.environ) as opened:
            sent = send(opened, *documents)
        assert (sent.new, sent.new + sent.same) == (300 - len(there), 300)


def test_nobody_at_all_is_said_within_the_time_limit() -> None:
    begun = time.monotonic()
    with (
        collection({**SOON, "MONGO_PORT": str(free_port())}) as opened,
        pytest.raises(AwayError, match=r"no answer within 0.2 s, or it went away: .*Connection refused"),
    ):
        send(opened, document("a"))
    assert time.monotonic() - begun < 30


def test_somebody_who_never_answers_is_not_waited_for_longer() -> None:
    begun = time.monotonic()
    with (
        silent() as port,
        collection({**SOON, "MONGO_PORT": str(port)}) as opened,
        pytest.raises(AwayError, match=r"no answer within 0.2 s"),
    ):
        send(opened, document("a"))
    assert time.monotonic() - begun < 30


@contextmanager
def refused(uri: str) -> Iterator[None]:
    with pytest.raises(UserError, match="MongoDB's URI cannot be read: ") as caught:
        yield
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://ann:hunter22/x@h/db",
        "mongodb://ann:hunter22%zz@h/",
        "mongodb://ann:hunter22@h:x/",
        "mongodb://h/?no=1",
    ],
)
def test_a_uri_that_cannot_be_read_is_met_early_and_not_shown(uri: str) -> None:
    with refused(uri):
        check(of_environment({"MONGO_URI": uri}))


def test_checking_asks_no_name_server() -> None:
    check(of_environment({"MONGO_URI": "mongodb+srv://cluster.invalid/db"}))
