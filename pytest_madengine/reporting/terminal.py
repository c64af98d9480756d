"""The table that closes the terminal output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_madengine.reporting.status import aligned
from pytest_madengine.results.result import Result

HEADINGS = ("model", "status", "performance", "metric", "duration")
RIGHT_ALIGNED = {2, 4}
FEW = 5
"""Models that are named beside what is said of all of them."""


def table(results: Iterable[Result]) -> list[tuple[str, bool]]:
    """Lines to print, each with whether it tells of a success."""
    rows = [(row, result.succeeded) for result in results for row in _rows(result)]
    lines = aligned([HEADINGS, *(cells for cells, _ in rows)], RIGHT_ALIGNED)
    return list(zip(lines, [True, *(good for _, good in rows)], strict=True))


def notes(results: Iterable[Result]) -> list[str]:
    """A line for each note, with the models that it is of."""
    models: dict[str, list[str]] = {}
    for result in results:
        for note in result.notes:
            models.setdefault(note, []).append(result.title)
    return [f"{_few(names)}: {note}" for note, names in models.items()]


def _few(names: Sequence[str]) -> str:
    more = len(names) - FEW
    return ", ".join(names[:FEW]) + (f" and {more} more" if more > 0 else "")


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
