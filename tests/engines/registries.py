"""Image registries for tests, processes of our own on free loopback ports, and images to put there."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from pathlib import Path
from typing import NamedTuple

import bcrypt

from tests.backends.support import read, until


class Login(NamedTuple):
    """Who is let in."""

    username: str
    password: str

    def entry(self) -> dict[str, str]:
        """What credential.json says of it."""
        return self._asdict()


LOGIN = Login("registry-user", "planted-registry-password")
CONFIGURATION = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: {data}}}
http:
  addr: {address}
  secret: of-tests
"""
GUARDED = """\
auth:
  htpasswd: {{realm: tests, path: {passwords}}}
"""


class Registry:
    """One registry; what was pushed to it, and its port, stay when it is stopped and started again.

    Args:
        program: path of Debian's docker-registry.
        folder: for its data and log.
        login: who is let in; None for everybody.
    """

    def __init__(self, program: str, folder: Path, login: Login | None = None) -> None:
        self.program = program
        self.folder = folder
        self.login = login
        self.address = "127.0.0.1:0"
        self._process: subprocess.Popen[bytes] | None = None
        if login:
            hashed = bcrypt.hashpw(login.password.encode(), bcrypt.gensalt(5)).decode()
            (folder / "htpasswd").write_text(f"{login.username}:{hashed}\n", encoding="utf-8")

    def __enter__(self) -> Registry:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it listens; `address` is then its host and port."""
        text = CONFIGURATION.format(data=self.folder / "data", address=self.address)
        if self.login:
            text += GUARDED.format(passwords=self.folder / "htpasswd")
        configuration, log = self.folder / "config.yml", self.folder / "log"
        configuration.write_text(text, encoding="utf-8")
        own = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        argv = [self.program, "serve", str(configuration)]
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=own
            )
        until(lambda: self._listens(log) or self._process_ended())
        assert self._listens(log), read(log)

    def _listens(self, log: Path) -> bool:
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", read(log))
        self.address = found[1] if found else self.address
        return bool(found)

    def _process_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None


class Images:
    """Small images of one test.

    Args:
        folder: for what is in them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ids: list[str] = []

    def make(self) -> str:
        """The name of a new one, unlike all others."""
        name = f"registry-test-{secrets.token_hex(6)}:1"
        (self.folder / "content").write_text(name, encoding="utf-8")
        packed = subprocess.run(["tar", "-c", "-C", self.folder, "content"], capture_output=True, check=True)
        done = subprocess.run(["docker", "import", "-", name], input=packed.stdout, capture_output=True, check=True)
        self.ids.append(done.stdout.decode().strip())
        return name

    def remove(self) -> None:
        """Let the engine forget them, whatever they are called by now."""
        subprocess.run(["docker", "rmi", "--force", *self.ids], capture_output=True, check=False)
