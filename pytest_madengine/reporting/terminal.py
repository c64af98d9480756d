"""The table that closes the terminal output."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_madengine.reporting.status import aligned
from pytest_madengine.results.result import Result

HEADINGS = ("model", "status", "performance", "metric", "duration")
RIGHT_ALIGNED = {2, 4}


def table(results: Iterable[Result]) -> list[tuple[str, bool]]:
    """Lines to print, each with whether it tells of a success."""
    rows = [(row, result.succeeded) for result in results for row in _rows(result)]
    lines = aligned([HEADINGS, *(cells for cells, _ in rows)], RIGHT_ALIGNED)
    return list(zip(lines, [True, *(good for _, good in rows)], strict=True))


def _rows(result: Result) -> Iterable[tuple[str, ...]]:
    for row in result.rows:
        columns = row.columns
        yield (
            columns["model"] if len(result.rows) > 1 else result.title,
            columns["status"],
            columns["performance"] or "-",
            columns["metric"] or "-",
            f"{result.duration:.1f} s",
        )
