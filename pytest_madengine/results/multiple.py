"""Reads the CSV of a model that reports several results."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_madengine.results.performance import finite

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
        header, *cells = [[cell.strip() for cell in row] for row in reader if any(cell.strip() for cell in row)]
    except ValueError:
        return Table(problem=f"{name} is empty")
    except csv.Error as error:
        return Table(problem=f"{name} is not a CSV file: {error}")
    missing = [column for column in REQUIRED if column not in header]
    if missing:
        return Table(problem=f"{name} lacks the column {', '.join(missing)}; it has {', '.join(header)}")
    if not cells:
        return Table(problem=f"{name} has a header and no rows")
    uneven = [number for number, row in enumerate(cells, 2) if len(row) > len(header)]
    if uneven:
        return Table(problem=f"{name}: row {uneven[0]} has more cells than the header")
    return Table(tuple({**dict.fromkeys(header, ""), **dict(zip(header, row, strict=False))} for row in cells))
