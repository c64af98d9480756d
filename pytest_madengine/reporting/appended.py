"""Files that only ever grow, by whole lines, and that several processes may append to."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path) -> Iterator[IO[bytes]]:
    """The file open for reading and writing, this process alone, and on disk at the end."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
        file.flush()
        os.fsync(file.fileno())


def sizes_of(*paths: Path) -> dict[str, int]:
    """The bytes of each file, by path."""
    return {str(path): path.stat().st_size if path.exists() else 0 for path in paths}


def behind(file: IO[bytes], position: int) -> bytes:
    """What stands behind a position."""
    file.seek(max(0, position))
    return file.read()


def append(file: IO[bytes], head: bytes, lines: Sequence[bytes]) -> None:
    """Write lines at the end, which is mended where the last line has none; `head` comes before them."""
    file.seek(0, os.SEEK_END)
    mend = b"" if ends_line(file) else b"\n"
    file.write(b"".join([mend, head, *lines]))


def ends_line(file: IO[bytes]) -> bool:
    """Whether the file, at whose end this is, has nothing but whole lines."""
    if not file.tell():
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
