"""Servers of MongoDB's protocol for tests, processes of our own on free loopback ports."""

from __future__ import annotations

import secrets
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme

from tests.backends.support import read, until

if TYPE_CHECKING:
    from pymongo import MongoClient

USER = "tester: a/b@c"
PASSWORD = "planted p:w/d@100%+ä"  # noqa: S105  # of a server of this test alone
"""A login full of characters that mean something in a URI."""


class MongoServer:
    """One server; its data and its port stay when it is killed and started again.

    Args:
        program: path of secantusd-py.
        folder: for its data and log.
        login: whether it lets nobody in but USER.
        tls: whether it speaks TLS alone, by a certificate of `ca_file`.
    """

    def __init__(self, program: str, folder: Path, *, login: bool = False, tls: bool = False) -> None:
        self.program = program
        self.folder = folder
        self.login = login
        self.tls = tls
        self.port = free_port()
        self.ca_file = folder / "ca.pem"
        self._process: subprocess.Popen[bytes] | None = None
        if tls:
            self._certify()

    def __enter__(self) -> MongoServer:
        if self.login:
            self._run([])
            with self.client(plain=True) as client:
                client.admin.command("createUser", USER, pwd=PASSWORD, roles=["readWriteAnyDatabase"])
            self.stop()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def environ(self) -> dict[str, str]:
        """The variables by which it is found."""
        found = {"MONGO_HOST": "127.0.0.1", "MONGO_PORT": str(self.port), "MONGO_TIMEOUT_MS": "3000"}
        found |= {"MONGO_USER": USER, "MONGO_PASSWORD": PASSWORD} if self.login else {}
        return found | ({"MONGO_TLS_CA_FILE": str(self.ca_file)} if self.tls else {})

    def start(self) -> None:
        """Start it and wait until it listens."""
        secure = ["--tls-cert-file", str(self.folder / "server.pem"), "--tls-key-file", str(self.folder / "server.pem")]
        self._run([*(["--auth"] if self.login else []), *(secure if self.tls else [])])

    def _run(self, options: list[str]) -> None:
        argv = [self.program, "--host", "127.0.0.1", "--port", str(self.port), "--cache-size", "128M"]
        argv += ["--config", str(self.folder / "empty.toml"), "--storage-path", str(self.folder / "data")]
        (self.folder / "empty.toml").touch()
        log = self.folder / "log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [*argv, *options, "--log-level", "WARNING"], stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        process = self._process
        until(lambda: listens(self.port) or process.poll() is not None)
        assert process.poll() is None, read(log)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None

    @contextmanager
    def client(self, *, plain: bool = False) -> Iterator[MongoClient[Any]]:
        """Somebody who may look at it; `plain` before it asks for anything."""
        from pymongo import MongoClient

        login: Mapping[str, Any] = {"username": USER, "password": PASSWORD} if self.login and not plain else {}
        secure: Mapping[str, Any] = {"tls": True, "tlsCAFile": str(self.ca_file)} if self.tls and not plain else {}
        with MongoClient("127.0.0.1", self.port, directConnection=True, **login, **secure) as client:
            yield client

    def _certify(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
            str(self.folder / "server.pem")
        )


class Database:
    """An empty database of some server, which is dropped after the test.

    Attributes:
        uri: of the server and the database.
    """

    def __init__(self, uri: str) -> None:
        from pymongo import MongoClient

        self.name = f"madengine-test-{secrets.token_hex(6)}"
        before, _, options = uri.partition("?")
        self.uri = f"{before.rstrip('/')}/{self.name}?{options}"
        self._client: MongoClient[Any] = MongoClient(uri)

    def documents(self, collection: str = "results") -> list[dict[str, Any]]:
        """What is in a collection, by `_id`."""
        return sorted(self.collection(collection).find(), key=lambda each: str(each["_id"]))

    def collection(self, name: str = "results") -> Any:
        """A collection, to be looked into by other ways than ours."""
        return self._client[self.name][name]

    def close(self) -> None:
        """Leave nothing of it."""
        self._client.drop_database(self.name)
        self._client.close()


@contextmanager
def silent() -> Iterator[int]:
    """The port of somebody who lets others connect and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def free_port() -> int:
    """One that nobody listens to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    return port


def listens(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
