"""Reads the CSV of a model that reports several results."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_madengine.results.performance import finite

CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
REQUIRED = ("model", "performance", "metric")


@dataclass(frozen=True)
class Table:
    """The rows of a results CSV, or why they cannot be used."""

    rows: tuple[dict[str, str], ...] = ()
    problem: str = ""

    def bad_rows(self) -> list[str]:
        """The rows whose performance is no finite number, by name."""
        return [row["model"] for row in self.rows if not finite(row["performance"])]


def read(lines: Iterable[str], name: str) -> Table:
    """The table in a results CSV; header names and values are stripped, wholly empty rows dropped."""
    reader = csv.reader(lines, skipinitialspace=True)
    try:
        header, *cells = [row for row in ([_plain(cell) for cell in cells] for cells in reader) if any(row)]
    except ValueError:
        return Table(problem=f"{name} is empty")
    except csv.Error as error:
        return Table(problem=f"{name} is not a CSV file: {error}")
    if problem := _problem(header, cells):
        return Table(problem=f"{name}{problem}")
    return Table(tuple({**dict.fromkeys(header, ""), **dict(zip(header, row, strict=False))} for row in cells))


def _plain(cell: str) -> str:
    """The cell without what would break a line of perf.csv or of a terminal."""
    return CONTROL.sub(" ", cell).strip()


def _problem(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    missing = [column for column in REQUIRED if column not in header]
    if missing:
        return f" lacks the column {', '.join(missing)}; it has {', '.join(header)}"
    twice = [column for column in REQUIRED if header.count(column) > 1]
    if twice:
        return f" has the column {', '.join(twice)} twice"
    uneven = [number for number, row in enumerate(rows, 2) if any(row[len(header) :])]
    if uneven:
        return f": row {uneven[0]} has more cells than the header"
    return "" if rows else " has a header and no rows"
