"""Follows log files as they grow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_madengine.reporting.status import plain
from pytest_madengine.secrets import Masker

MOST = 1 << 20
"""Bytes of one file that are read at a time."""


@dataclass
class _Followed:
    title: str
    position: int = 0
    rest: bytes = b""
    over: bool = False


class Follower:
    """The lines that files gain, each with whose they are."""

    def __init__(self) -> None:
        self._files: dict[Path, _Followed] = {}

    def follow(self, title: str, log: Path) -> None:
        """Take up a file, which need not exist yet; one that is followed already keeps its title."""
        self._files.setdefault(log, _Followed(title))

    def finish(self, log: Path) -> None:
        """A file gains no more: show what is left of it, and let it go."""
        if log in self._files:
            self._files[log].over = True

    def lines(self, masker: Masker) -> Iterator[str]:
        """What has come since this was last asked, line by line, printable and masked."""
        for log, followed in list(self._files.items()):
            while new := _read(log, followed.position):
                followed.position += len(new)
                *whole, followed.rest = (followed.rest + new).split(b"\n")
                yield from (_line(followed.title, line, masker) for line in whole)
            if followed.over:
                del self._files[log]
                yield from [_line(followed.title, followed.rest, masker)] if followed.rest else []


def _line(title: str, line: bytes, masker: Masker) -> str:
    return f"{title} | {plain(masker(line.decode(errors='replace')))}"


def _read(log: Path, position: int) -> bytes:
    try:
        with log.open("rb") as file:
            file.seek(position)
            return file.read(MOST)
    except OSError:
        return b""
