"""A perf.csv, also one of the replaced tool, as a page tells of it: each row is a result of its own, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pytest_madengine.reporting.htmlstory import Past, Point, Thing
from pytest_madengine.results import history
from pytest_madengine.results.perf import FAILURE, SKIPPED, SUCCESS
from pytest_madengine.results.result import Result
from pytest_madengine.store import records

STATUSES = (SUCCESS, FAILURE, SKIPPED)


def read(path: Path) -> list[Result]:
    """A Result for each row, whose `run` is the row's number: the file knows of no runs.

    Raises:
        UserError: it is no such file.
    """
    return [_numbered(result, f"row {number}") for number, result in enumerate(records.of_perf_csv(path), 1)]


def past(results: Sequence[Result]) -> Past:
    """The values of rows that are of the same thing, in their order."""
    found: dict[Thing, list[Point]] = {}
    for result in results:
        for each in history.of_result(result):
            found.setdefault((each.key, each.metric), []).append(Point("", result.run, each.value))
    return Past(found)


def _numbered(result: Result, name: str) -> Result:
    status = result.status.upper()
    return replace(result, nodeid=name, run=name, status=status if status in STATUSES else FAILURE)
