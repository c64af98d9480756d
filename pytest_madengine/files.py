"""Files that are written whole: who reads one meanwhile sees the old one or the new one."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Write a file at once, in UTF-8; what no UTF-8 can hold is written as an escape.

    Raises:
        OSError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(text.encode(errors="backslashreplace"))
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def put(path: Path, text: str) -> None:
    """Write a file at once that has one writer at a time, in UTF-8; what a dead one left half done is written over."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def replace_target(path: Path, text: str) -> None:
    """Like `replace`, of a file that a user named: a link stays a link."""
    replace(Path(os.path.realpath(path)), text)
