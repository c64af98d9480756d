"""Reads the CSV files of a folder, whoever wrote them."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.results.perf import FAILURE, SKIPPED, SUCCESS
from pytest_madengine.secrets import NO_SECRETS, Masker

LONGEST_CELL = 2_000
"""Characters that are shown of one cell."""
FEW = 20
"""Models that are named."""


@dataclass(frozen=True)
class Table:
    """One file.

    Attributes:
        name: of the file.
        headings: one for each column; '' where a row is longer than the first line.
        rows: each with one cell for each heading.
    """

    name: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def told(self) -> str:
        """What it holds, in a line: `perf.csv: 3 rows, 1 SUCCESS, 2 FAILURE (llama, bert)`."""
        statuses = Counter(self._column("status"))
        numbers = [f"{statuses[each]} {each}" for each in (SUCCESS, SKIPPED, FAILURE) if statuses[each]]
        rows = "1 row" if len(self.rows) == 1 else f"{len(self.rows)} rows"
        return f"{self.name}: {', '.join([rows, *numbers])}{self._failed()}"

    def _failed(self) -> str:
        """The names of the models that failed, or of some of them."""
        pairs = zip(self._column("model"), self._column("status"), strict=False)
        names = list(dict.fromkeys(name for name, status in pairs if status == FAILURE))
        more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
        return f" ({', '.join(names[:FEW])}{more})" if names else ""

    def _column(self, heading: str) -> list[str]:
        """Its cells; none where there is no such column."""
        if heading not in self.headings:
            return []
        at = self.headings.index(heading)
        return [row[at] for row in self.rows]


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        tables: its CSV files, by name.
        unreadable: those that are none, each with the reason: `x.csv: an empty file`.
    """

    tables: tuple[Table, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """A line for each file."""
        return [*(table.told for table in self.tables), *(f"{each}; left out" for each in self.unreadable)]


def read(folder: Path, mask: Masker = NO_SECRETS) -> Found:
    """All `*.csv` of a folder, sorted by name.

    Args:
        folder: not searched deeper.
        mask: hides secrets in cells.

    Raises:
        FaultsError: it is no folder, or has no CSV file that can be read.
    """
    if not folder.is_dir():
        raise FaultsError([Fault(str(folder), "no such folder", "a folder with CSV files")])
    tried = [_tried(path, mask) for path in sorted(folder.glob("*.csv"))]
    tables = tuple(each for each in tried if isinstance(each, Table))
    unreadable = tuple(each for each in tried if isinstance(each, str))
    if not tables:
        faults = [Fault(str(folder / each.partition(": ")[0]), each.partition(": ")[2]) for each in unreadable]
        raise FaultsError(faults or [Fault(str(folder), "has no CSV file", "a folder with *.csv, such as perf.csv")])
    return Found(tables, unreadable)


def _tried(path: Path, mask: Masker) -> Table | str:
    """The table, or the file's name with why there is none."""
    try:
        return _table(path, mask)
    except (OSError, ValueError, csv.Error) as error:
        return f"{path.name}: {_reason(error)}"


def _table(path: Path, mask: Masker) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as file, long_fields():
        lines = [line for line in csv.reader(file, strict=True) if line]
    if not lines:
        raise ValueError("an empty file")
    width = max(map(len, lines))
    first, *rows = [tuple(_cells(line, width, mask)) for line in lines]
    return Table(path.name, first, tuple(rows))


def _cells(line: Iterable[str], width: int, mask: Masker) -> Iterator[str]:
    cells = [_shown(mask(cell)) for cell in line]
    yield from cells
    yield from [""] * (width - len(cells))


def _shown(cell: str) -> str:
    """The cell without characters that no page may hold, and not longer than a reader wants."""
    clean = "".join(each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in cell)
    return clean if len(clean) <= LONGEST_CELL else f"{clean[:LONGEST_CELL]}…"


@contextmanager
def long_fields() -> Iterator[None]:
    """Let fields be as long as they are: a model's configuration file stands in one."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "no UTF-8 text"
    return str(getattr(error, "strerror", None) or error)
