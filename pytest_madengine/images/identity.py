"""The content that an image is made from, as one hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

OURS = (
    *(".madengine", ".pytest_cache", "perf.csv", "perf_super.csv", "perf_super.json"),
    *("perf_entry.csv", "perf_entry.json", "perf_entry_super.csv", "perf_entry_super.json"),
)
"""What this plugin and pytest write into a project: never part of a build's content, nor of its context."""


def content_hash(
    dockerfile: Path, contexts: Iterable[Path], arguments: Mapping[str, str], bases: Mapping[str, str]
) -> str:
    """64 hexadecimal digits that change when, and only when, a build's input changes.

    Args:
        dockerfile: its text counts.
        contexts: the build context and further ones, whose files count: path, executable bit and content,
            `.dockerignore` respected.
        arguments: build arguments and secrets.
        bases: digest of each external image, by name.
    """
    digest = hashlib.sha256()
    for pairs in (arguments, bases):
        _add(digest, str(len(pairs)).encode())
        for label, value in sorted(pairs.items()):
            _add(digest, os.fsencode(label), os.fsencode(value))
    _add(digest, b"Dockerfile", dockerfile.read_bytes())
    for at, context in enumerate(contexts):
        _add(digest, b"context")
        for path in files(context, dockerfile if at == 0 else None):
            _add_file(digest, context, path)
    return digest.hexdigest()


def files(context: Path, dockerfile: Path | None) -> list[str]:
    """The files and folders of a context, relative to it, as its `.dockerignore` leaves them.

    A `<Dockerfile>.dockerignore` goes first; contexts beside the main one have no Dockerfile.
    """
    from docker.utils.build import exclude_paths

    patterns = ignored(context, dockerfile)
    return sorted(path for path in exclude_paths(str(context), patterns) if path not in ("", "."))


def ignored(context: Path, dockerfile: Path | None) -> list[str]:
    """The patterns of a context's `.dockerignore` with those of our own files behind them."""
    return [*_ignored(context, dockerfile), *OURS]


def _ignored(context: Path, dockerfile: Path | None) -> list[str]:
    own = [dockerfile.with_name(f"{dockerfile.name}.dockerignore")] if dockerfile else []
    for place in (*own, context / ".dockerignore"):
        if place.is_file():
            lines = place.read_text(encoding="utf-8").splitlines()
            return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return []


def _add_file(digest: hashlib._Hash, context: Path, name: str) -> None:
    path = context / name
    if path.is_symlink():
        _add(digest, b"link", os.fsencode(name), os.fsencode(os.readlink(path)))  # noqa: PTH115  # the path as it is
    elif path.is_file():
        mode = b"program" if os.access(path, os.X_OK) else b"file"
        _add(digest, mode, os.fsencode(name), _file_hash(path))
    elif path.is_dir():
        _add(digest, b"folder", os.fsencode(name))


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
