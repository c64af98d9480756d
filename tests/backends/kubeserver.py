"""A small server that speaks as a cluster's API does, as far as a test says."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_madengine.backends.kubeapi import Api, Place

CONFIG = """\
apiVersion: v1
kind: Config
current-context: one
contexts: [{name: one, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "%s"}}]
users: [{name: u, user: {token: %s}}]
"""


@dataclass(frozen=True)
class Request:
    """What was asked: `list`, `watch` or `log`, and the token of who asked."""

    verb: str
    token: str


@dataclass(frozen=True)
class Answer:
    """What is said to that.

    Attributes:
        status: of HTTP.
        lines: of JSON.
        text: in place of them.
        cut: whether the connection breaks in the middle of the next line.
        until: what is waited for before the end.
    """

    status: int
    lines: Sequence[Any] = ()
    text: bytes = b""
    cut: bool = False
    until: threading.Event | None = None


@dataclass
class Server:
    """The server, and what it was asked.

    Attributes:
        answer: says what to answer.
        config: the client's file that names it.
    """

    answer: Callable[[Request], Answer]
    config: Path
    url: str = ""
    asked: list[Request] = field(default_factory=list)

    def know(self, token: str) -> None:
        """Write a client's file with this token."""
        self.config.write_text(CONFIG % (self.url, token), encoding="utf-8")

    def api(self) -> Api:
        """A client."""
        return Api(Place(str(self.config), ""))

    def count(self, verb: str) -> int:
        """How often that was asked."""
        return sum(each.verb == verb for each in self.asked)


@contextmanager
def serving(folder: Path, answer: Callable[[Request], Answer]) -> Iterator[Server]:
    """Have such a server on this machine's loopback."""
    server = Server(answer, folder / "config")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            request = Request(_verb(self.path), token)
            server.asked.append(request)
            _say(self, server.answer(request))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the library's
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        server.url = f"http://127.0.0.1:{listening.server_port}"
        server.know("old")
        yield server
        listening.shutdown()


def _verb(path: str) -> str:
    return "log" if "/log?" in path else "watch" if "watch=" in path else "list"


def _say(handler: http.server.BaseHTTPRequestHandler, answer: Answer) -> None:
    body = answer.text or b"".join(json.dumps(line).encode() + b"\n" for line in answer.lines)
    handler.send_response(answer.status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    if body:
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
    if answer.until:
        handler.wfile.flush()
        answer.until.wait(60)
    handler.wfile.write(b'40\r\n{"type": "AD' if answer.cut else b"0\r\n\r\n")
    handler.close_connection = True


def listing(*names: str, version: int = 1) -> Answer:
    """A list of pods of these names."""
    items = [pod(name) for name in names]
    return Answer(200, [{"metadata": {"resourceVersion": str(version)}, "items": items}])


def pod(name: str, version: int = 1) -> dict[str, Any]:
    """A pod."""
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}}
