"""The content that an image is made from, as one hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

OURS = (".madengine", "perf.csv*", "perf_entry*", "perf_super*")
"""What this plugin writes into a project: never part of a build's content."""


def content_hash(
    dockerfile: Path, contexts: Iterable[Path], arguments: Mapping[str, str], bases: Mapping[str, str]
) -> str:
    """64 hexadecimal digits that change when, and only when, a build's input changes.

    Args:
        dockerfile: its text counts.
        contexts: folders whose files count: path, executable bit and content, `.dockerignore` respected.
        arguments: build arguments and secrets.
        bases: digest of each external image, by name.
    """
    digest = hashlib.sha256()
    for label, value in (*sorted(arguments.items()), *sorted(bases.items())):
        _add(digest, label.encode(), value.encode())
    _add(digest, b"Dockerfile", dockerfile.read_bytes())
    for context in contexts:
        for path in files(context, dockerfile):
            _add_file(digest, context, path)
    return digest.hexdigest()


def files(context: Path, dockerfile: Path) -> list[str]:
    """The files of a build context, relative to it, as its `.dockerignore` leaves them."""
    from docker.utils.build import exclude_paths

    return sorted(
        path for path in exclude_paths(str(context), [*OURS, *_ignored(context, dockerfile)]) if path not in ("", ".")
    )


def _ignored(context: Path, dockerfile: Path) -> list[str]:
    """The patterns of `<Dockerfile>.dockerignore`, or else of the context's `.dockerignore`."""
    for place in (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), context / ".dockerignore"):
        if place.is_file():
            lines = place.read_text(encoding="utf-8").splitlines()
            return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return []


def _add_file(digest: hashlib._Hash, context: Path, name: str) -> None:
    path = context / name
    if path.is_symlink():
        _add(digest, name.encode(), os.readlink(path).encode())  # noqa: PTH115  # readlink() normalises
    elif path.is_file():
        mode = b"x" if os.access(path, os.X_OK) else b"-"
        _add(digest, name.encode() + mode, _file_hash(path))


def _file_hash(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def _add(digest: hashlib._Hash, *parts: bytes) -> None:
    """Add the parts so that no two different sequences of parts give the same bytes."""
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
