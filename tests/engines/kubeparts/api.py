"""The cluster's API, asked over one connection for each thread, and copies of what it knows that stay up to date."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

Object = dict[str, Any]
Key = tuple[str, str]
PATIENCE = 30.0
MERGE = "application/merge-patch+json"


class RefusedError(Exception):
    """The API said no.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status


TROUBLE = (OSError, http.client.HTTPException, RefusedError, ValueError)
"""What an API says, or does not say, that is restarted meanwhile."""


class Api:
    """Asks as the cluster's administrator.

    Args:
        folder: the cluster's `etc`.
    """

    def __init__(self, folder: Path) -> None:
        self.address = urlsplit((folder / "server").read_text(encoding="utf-8").strip())
        self._tls = ssl.create_default_context(cafile=folder / "ca.crt")
        self._tls.load_cert_chain(folder / "admin.crt", folder / "admin.key")
        self._own = threading.local()

    def connect(self, timeout: float | None = PATIENCE) -> http.client.HTTPSConnection:
        """A new connection."""
        host, port = self.address.hostname or "", self.address.port
        return http.client.HTTPSConnection(host, port, context=self._tls, timeout=timeout)

    def ask(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> Object:
        """What it answers; RefusedError for anything but success."""
        status, text = self._exchange(method, path, json.dumps(body) if body else None, {"Content-Type": kind})
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise RefusedError(status, text)
        return cast(Object, json.loads(text)) if text.startswith("{") else {}

    def _exchange(self, *request: Any) -> tuple[int, str]:
        connection = self._connection()
        kept = connection.sock is not None  # and perhaps to an API that is no more
        try:
            return _once(connection, *request)
        except TROUBLE as error:
            connection.close()  # opens again when asked next
            if not kept or isinstance(error, TimeoutError):
                raise
        return _once(connection, *request)

    def _connection(self) -> http.client.HTTPSConnection:
        if not hasattr(self._own, "connection"):
            self._own.connection = self.connect()
        return cast(http.client.HTTPSConnection, self._own.connection)

    def close(self) -> None:
        """Close this thread's connection; it opens again when needed."""
        self._connection().close()

    def until_ready(self) -> None:
        """Return as soon as the API serves."""
        while True:
            try:
                self.ask("GET", "/readyz")
            except TROUBLE:  # noqa: PERF203  # it tries again
                time.sleep(0.1)
            else:
                return

    def provide(self, path: str, *wanted: Object) -> None:
        """Have these objects, instead of others of their names."""
        for each in wanted:
            self.remove(f"{path}/{each['metadata']['name']}")
            self.ask("POST", path, each)

    def remove(self, path: str, **options: Any) -> None:
        """Delete an object that may not exist."""
        try:
            self.ask("DELETE", path, options)
        except RefusedError as error:
            if error.status != http.HTTPStatus.NOT_FOUND:
                raise

    def watch(self, path: str, version: str) -> Iterator[Object]:
        """What changes after that version, until the API ends it."""
        connection = self.connect(timeout=None)
        try:
            connection.request("GET", f"{path}?watch=1&resourceVersion={version}")
            for line in connection.getresponse():
                yield json.loads(line)
        finally:
            connection.close()


class Mirror:
    """All objects of one kind, kept up to date by a thread.

    Args:
        api: where they are.
        path: of the kind, `/api/v1/pods`.
        tell: called for each object that is new or changed, in the thread; what it raises of TROUBLE is logged, and
            it is told of all objects again.
        forget: called for each that is deleted.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        tell: Callable[[Object], None] = lambda _: None,
        forget: Callable[[Object], None] = lambda _: None,
    ) -> None:
        self.objects: dict[Key, Object] = {}
        self._api, self._path, self._tell, self._forget = api, path, tell, forget
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._follow()
            except TROUBLE as error:  # noqa: PERF203  # it tries again
                logging.warning("%s: %r", self._path, error)
                time.sleep(0.2)

    def _follow(self) -> None:
        listed = self._api.ask("GET", self._path)
        self.objects = {key(each): each for each in listed["items"]}
        for each in listed["items"]:
            self._tell(each)
        for event in self._api.watch(self._path, listed["metadata"]["resourceVersion"]):
            if event["type"] == "ERROR":
                return
            self._note(event["type"], event["object"])

    def _note(self, what: str, about: Object) -> None:
        if what == "DELETED":
            self.objects.pop(key(about), None)
            self._forget(about)
        else:
            self.objects[key(about)] = about
            self._tell(about)


def _once(connection: http.client.HTTPConnection, *request: Any) -> tuple[int, str]:
    connection.request(*request)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def key(each: Object) -> Key:
    """An object's namespace, empty where it has none, and name."""
    return each["metadata"].get("namespace", ""), each["metadata"]["name"]


def now() -> str:
    """The time as Kubernetes writes it."""
    return dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
