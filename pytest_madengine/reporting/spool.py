"""Results on disk that wait to be sent; a file for each, and none is ever half written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytest_madengine.results.documents import Document

FOLDER = Path(".madengine", "spool")
"""Below the folder where pytest is started."""
WAITING, REFUSED = ".json", ".refused"


class Parcel(NamedTuple):
    """What one file holds.

    Attributes:
        path: of the file.
        place: the database and the collection that it is meant for.
        documents: of one Result.
    """

    path: Path
    place: tuple[str, str]
    documents: tuple[Document, ...]


class Spool:
    """A folder that several processes may use at once: to send a file twice changes nothing.

    Args:
        project: where pytest is started.
    """

    def __init__(self, project: Path) -> None:
        self.folder = project / FOLDER

    def put(self, name: str, place: tuple[str, str], documents: Sequence[Document]) -> None:
        """Have it on disk when this returns.

        Args:
            name: the same for what replaces each other.
            place: the database and the collection.
            documents: what to send.

        Raises:
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{hashlib.sha256(f'{place}{name}'.encode(errors='replace')).hexdigest()[:32]}{WAITING}"
        _write(path, {"place": place, "documents": documents})

    def parcels(self, *, refused: bool = False) -> Iterator[Parcel]:
        """What waits, oldest first; what somebody sends meanwhile, or nobody can read, is left out.

        Args:
            refused: whether to try those again that were refused before.
        """
        found = [path for path in self._paths() if refused or path.suffix == WAITING]
        yield from filter(None, map(_read, found))

    def count(self) -> int:
        """How many wait."""
        return sum(path.suffix == WAITING for path in self._paths())

    def sent(self, parcel: Parcel) -> None:
        """Forget it."""
        parcel.path.unlink(missing_ok=True)

    def refused(self, parcel: Parcel) -> None:
        """Keep it, but let it wait no more."""
        if parcel.path.exists():
            parcel.path.replace(parcel.path.with_suffix(REFUSED))

    def _paths(self) -> list[Path]:
        paths = [path for path in self.folder.glob("*") if path.suffix in (WAITING, REFUSED)]
        return sorted(paths, key=lambda path: (_age(path), path.name))


def _age(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _write(path: Path, data: Any) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with new.open("w", encoding="utf-8") as file:
            json.dump(data, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _read(path: Path) -> Parcel | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        database, collection = data["place"]
        documents = tuple(Document(*each) for each in data["documents"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Parcel(path, (database, collection), documents)
