"""What people name: a project, a run, a record, a perf.csv."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_madengine.engine.rundir import RECORD, TOP
from pytest_madengine.errors import Fault, FaultsError

VALID = "a folder where pytest ran models, one of its runs, a results.jsonl, or a perf.csv"
STORE = "store.db"


@dataclass(frozen=True)
class Place:
    """Where results lie.

    Attributes:
        name: as the user gave it.
        top: the `.madengine` folder of a project; None where only one file is meant.
        file: that file; None for a whole project.
    """

    name: str
    top: Path | None = None
    file: Path | None = None

    @property
    def store(self) -> Path | None:
        """The database's file; None where it is made in memory."""
        return self.top / STORE if self.top else None

    @property
    def is_perf_csv(self) -> bool:
        """Whether it is a perf.csv, and no record."""
        return self.file is not None and self.file.suffix == ".csv"

    def records(self) -> Iterator[Path]:
        """The records, the oldest run first."""
        if self.top:
            yield from sorted(self.top.glob(f"runs/2*/{RECORD}"))
        elif self.file and not self.is_perf_csv:
            yield self.file


def place(path: Path) -> Place:
    """The place of that path.

    Raises:
        FaultsError: there is none.
    """
    if path.is_file():
        return Place(str(path), file=path)
    if (path / RECORD).is_file():
        return Place(str(path), file=path / RECORD)
    top = path if path.name == TOP else path / TOP
    if (top / "runs").is_dir():
        return Place(str(path), top=top)
    found = f"it has no {TOP}/runs" if path.is_dir() else "it does not exist"
    raise FaultsError([Fault(str(path), found, VALID)])


def tagged(top: Path | None, name: str) -> str:
    """The run that a tag of the project names; '' where there is no such tag."""
    file = top / "tags" / name if top and "/" not in name else None
    return file.read_text(encoding="utf-8").strip() if file and file.is_file() else ""
