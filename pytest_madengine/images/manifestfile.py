"""Build manifests as files, and where in a JSON file each key stands."""

from __future__ import annotations

import bisect
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pytest_madengine.errors import Fault, FaultsError, UserError
from pytest_madengine.images.manifest import Entry, Manifest, parsed
from pytest_madengine.validation import Path as KeyPath
from pytest_madengine.validation import dotted

BLANK = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()
MODE = 0o644
"""Of a new file, less what the umask takes."""
FAILED = ("summary", "failed_builds")
DEPLOYMENT = "deployment_config"


class ManifestFile(NamedTuple):
    """A manifest that was read, with the 1-based line of each entry by its key."""

    manifest: Manifest
    lines: dict[str, int]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The models that have an image, then those that have none."""
        return self.manifest.entries

    @property
    def context(self) -> dict[str, Any]:
        """One layer of configuration."""
        return self.manifest.context

    @property
    def secrets_required(self) -> tuple[str, ...]:
        """Variables that a run must be given."""
        return self.manifest.secrets_required

    @property
    def credentials_required(self) -> tuple[str, ...]:
        """Entries of credential.json that a run must be given."""
        return self.manifest.credentials_required


class Places:
    """Where in a JSON text each key stands; called with a key path it says so.

    Args:
        path: the file, as messages name it.
        text: what it holds: valid JSON.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._known: dict[int, dict[str | int, tuple[int, int]]] = {}

    def __call__(self, key: KeyPath) -> str:
        """`file.json:12: a.b[3]`."""
        name = dotted(key)
        return f"{self._path}:{self.line(key)}{name and f': {name}'}"

    def line(self, key: KeyPath) -> int:
        """The 1-based line of the key, or of the deepest part of its path that exists."""
        at = inner = self._skip(0)
        for part in key:
            if part not in self._members(inner):
                break
            at, inner = self._members(inner)[part]
        return bisect.bisect_left(self._breaks, at) + 1

    def holds(self, key: KeyPath) -> bool:
        """Whether the whole path exists."""
        at = self._skip(0)
        for part in key:
            if part not in self._members(at):
                return False
            at = self._members(at)[part][1]
        return True

    def _members(self, at: int) -> dict[str | int, tuple[int, int]]:
        """Of each member of the object or list at `at`: where it begins, and where its value does."""
        if at not in self._known:
            self._known[at] = dict(self._scanned(at)) if self._text[at] in "{[" else {}
        return self._known[at]

    def _scanned(self, at: int) -> Iterator[tuple[str | int, tuple[int, int]]]:
        keyed, number = self._text[at] == "{", 0
        at = self._skip(at + 1)
        while self._text[at] not in "}]":
            key, start = number, at
            if keyed:
                key, end = DECODER.raw_decode(self._text, at)
                at = self._skip(self._skip(end) + 1)
            yield key, (start, at)
            at = self._skip(DECODER.raw_decode(self._text, at)[1])
            at, number = self._skip(at + 1) if self._text[at] == "," else at, number + 1

    def _skip(self, at: int) -> int:
        match = BLANK.match(self._text, at)
        return match.end() if match else at


class _TwiceError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(repr(next(key for key in keys if keys.count(key) > 1)))
    return value


def loaded(path: Path) -> tuple[Any, Places]:
    """What a JSON file holds, and where in it each key stands.

    Raises:
        FaultsError: it cannot be read, is not JSON, or has a key twice in one object.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=_once), Places(path, text)
    except (OSError, UnicodeDecodeError) as error:
        fault = Fault(str(path), f"cannot be read: {error}")
    except json.JSONDecodeError as error:
        fault = Fault(f"{path}:{error.lineno}:{error.colno}", f"not JSON: {error.msg}")
    except _TwiceError as error:
        fault = Fault(str(path), f"the key {error} stands twice in one object", "each key once")
    except (ValueError, RecursionError) as error:
        fault = Fault(str(path), f"not JSON that can be read: {error}")
    raise FaultsError([fault])


def read(path: Path) -> ManifestFile:
    """The manifest that a file holds, with the lines of its entries.

    Raises:
        FaultsError: the file cannot be read, or all that is wrong in it.
    """
    data, places = loaded(path)
    manifest = parsed(data, places)
    failed = [entry.key for entry in manifest.entries if entry.image is None]
    lines = {entry.key: places.line(("built_models", entry.key)) for entry in manifest.entries if entry.image}
    lines.update((key, places.line((*FAILED, at))) for at, key in enumerate(failed))
    return ManifestFile(manifest, lines)


def context_places(path: Path) -> Callable[[KeyPath], str]:
    """Where the keys of a manifest's context stand in its file, for messages about a context that it is part of."""
    _, places = loaded(path)

    def where(key: KeyPath) -> str:
        target = [(DEPLOYMENT, "target")] if key[:1] == ("deploy",) else []
        candidates = [(DEPLOYMENT, *key), ("context", *key), *target]
        return places(next(filter(places.holds, candidates), candidates[0]))

    return where


def previous(path: Path) -> dict[str, Any]:
    """What stands in the file before it is written again; {} where that is no JSON object."""
    try:
        data, _ = loaded(path)
    except FaultsError:
        return {}
    return data if isinstance(data, dict) else {}


def check(option: str, path: Path) -> None:
    """Refuse a place where `write` could not write.

    Args:
        option: the one that names it.
        path: the file.

    Raises:
        UserError: it is a folder, its folder is missing, or this user may not write there.
    """
    folder = Path(os.path.realpath(path)).parent
    if path.is_dir() or not folder.is_dir():
        reason = "a folder" if path.is_dir() else "no such folder"
    elif not os.access(folder, os.W_OK):
        reason = "this user may not"
    else:
        return
    raise UserError(f"{option}: {path} cannot be written: {reason}; valid: a file in a folder of yours")


def write(path: Path, content: Mapping[str, Any]) -> bool:
    """Replace the file at once and whole, unless it holds the same already.

    Returns:
        Whether it was written.

    Raises:
        UserError: it cannot be written.
    """
    place = Path(os.path.realpath(path))  # a link stays one
    data = f"{json.dumps(content, indent=2, allow_nan=False)}\n".encode()
    try:
        if place.is_file() and place.read_bytes() == data:
            return False
        _replace(place, data)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path} cannot be written: {reason}; valid: a file in a folder of yours") from None
    return True


def summary(path: Path, content: Mapping[str, Any]) -> bool:
    """Like `write`, of the manifest's summary alone."""
    return write(path, content["summary"])


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}-{uuid.uuid4().hex[:12]}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
