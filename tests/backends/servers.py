"""Git repositories for tests, and small servers that hand them out or keep silent."""

from __future__ import annotations

import base64
import functools
import http.server
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.backends.support import running, write

GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


@dataclass(frozen=True)
class Repository:
    """A repository of one commit."""

    path: Path
    commit: str


def repository(path: Path, content: Mapping[str, str]) -> Repository:
    """Make one, fit for a server that knows nothing of git."""
    for name, text in content.items():
        write(path / name, text)
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"], ["update-server-info"]):
        _git(path, *command)
    return Repository(path, _git(path, "rev-parse", "HEAD"))


def _git(path: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(path), *arguments], env={**os.environ, **GIT}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


class _Private(http.server.SimpleHTTPRequestHandler):
    """Serves files to those who know the password."""

    def __init__(self, wanted: str, *arguments: object, **keywords: object) -> None:
        self.wanted = wanted
        super().__init__(*arguments, **keywords)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.headers.get("Authorization") == self.wanted:
            super().do_GET()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="private"')
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the library's
        pass


@contextmanager
def private(repository: Repository, username: str, password: str) -> Iterator[str]:
    """The url at which the repository can be cloned with this login."""
    token = base64.b64encode(f"{username}:{password}".encode()).decode()
    handler = functools.partial(_Private, f"Basic {token}", directory=str(repository.path / ".git"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def silent() -> Iterator[str]:
    """The url of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def cloning(url: str) -> bool:
    """Whether a process of this machine fetches from there."""
    return any(url in argument for process in running("clone") for argument in process.cmdline())
