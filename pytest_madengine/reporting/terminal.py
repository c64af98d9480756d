"""The table that closes the terminal output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pytest_madengine.reporting.status import aligned
from pytest_madengine.results.comparison import Judgement
from pytest_madengine.results.metric import PERFORMANCE
from pytest_madengine.results.result import Result

HEADINGS = ("model", "status", "performance", "metric", "change", "duration")
CHANGE = HEADINGS.index("change")
RIGHT_ALIGNED = {2, 5}
FEW = 5
"""Models that are named beside what is said of all of them."""


def table(results: Iterable[Result]) -> list[tuple[str, bool]]:
    """Lines to print, each with whether it tells of a success."""
    rows = [(row, result.succeeded) for result in results for row in _rows(result)]
    cells, right = [HEADINGS, *(cells for cells, _ in rows)], RIGHT_ALIGNED
    if not any(row[CHANGE] for row, _ in rows):
        cells, right = [(*row[:CHANGE], *row[CHANGE + 1 :]) for row in cells], {2, CHANGE}
    return list(zip(aligned(cells, right), [True, *(good for _, good in rows)], strict=True))


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
            _name(result, columns),
            columns["status"],
            columns["performance"] or "-",
            columns["metric"] or "-",
            _change(result, columns),
            f"{result.duration:.1f} s",
        )


def _name(result: Result, columns: Mapping[str, str]) -> str:
    """What a row is called: two of one name are of two images."""
    if len(result.rows) == 1:
        return result.title
    alike = [row for row in result.rows if row.columns["model"] == columns["model"]]
    several = len({row.columns["docker_image"] for row in alike}) > 1
    return f"{columns['model']} in {columns['docker_image']}" if several else columns["model"]


def _change(result: Result, columns: Mapping[str, str]) -> str:
    """How far the value is from its reference, and what that amounts to; '' where there is none."""
    text = columns["relative_change"]
    of_row = [each for each in result.comparisons if each.metric.row == columns["model"]]
    compared = [each for each in of_row if each.metric.name == PERFORMANCE]
    if not compared or (not text and compared[-1].change is not None):
        return ""
    verdict = compared[-1].judgement
    words = [f"{100 * float(text):+.1f} %" if text else "", "" if verdict is Judgement.PASS else verdict.value]
    return " ".join(filter(None, words))
