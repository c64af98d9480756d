"""The table that closes the terminal output."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_madengine.results.result import Result

HEADINGS = ("model", "status", "performance", "metric", "duration")
RIGHT_ALIGNED = {2, 4}


def table(results: Iterable[Result]) -> list[tuple[str, bool]]:
    """Lines to print, each with whether it tells of a success."""
    rows = [(row, result.succeeded) for result in results for row in _rows(result)]
    widths = [max(len(cells[i]) for cells in (HEADINGS, *(row for row, _ in rows))) for i in range(len(HEADINGS))]
    return [(_line(HEADINGS, widths), True), *((_line(row, widths), good) for row, good in rows)]


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


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    padded = (
        cell.rjust(width) if index in RIGHT_ALIGNED else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(padded).rstrip()
