"""Reads what samplers saw over time: CSV files with a column of seconds or moments and columns of numbers."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from pytest_madengine.reporting.htmldata import number
from pytest_madengine.reporting.htmlstory import Samples
from pytest_madengine.results.result import Result

TIMES = ("seconds", "second", "time", "timestamp", "elapsed", "t", "date", "datetime")
BUDGET, FEWEST, MOST_SERIES = 200_000, 20, 16
"""Numbers that a page holds at most, moments of a file that it shows at least, and columns of one."""
MOST_LINES = 1_000_000
"""Of a file; what comes later is left out."""


def of(results: Iterable[Result]) -> dict[str, Samples]:
    """The samples of every file that a result's usage names and that can be read, thinned out to fit a page."""
    paths = dict.fromkeys(seen.file for each in results for seen in each.usage.values() if seen.file)
    most = max(FEWEST, BUDGET // (4 * len(paths) or 1))
    found = {path: read(Path(path), most) for path in paths}
    return {path: samples for path, samples in found.items() if samples}


def read(path: Path, most: int) -> Samples | None:
    """The samples of one file; None where it is not there or holds none.

    Args:
        path: a CSV file with a header; its first column named like a time, or else its first, is the time: seconds, or
            moments in ISO 8601.
        most: moments to keep.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            table = csv.reader(file)
            header = next(table, [])
            rows = [row for row in itertools.islice(table, MOST_LINES) if len(row) == len(header)]
    except (OSError, csv.Error):
        return None
    return _samples(header, rows, most)


def _samples(header: Sequence[str], rows: Sequence[Sequence[str]], most: int) -> Samples | None:
    names = [name.strip().lower() for name in header]
    place = next((names.index(name) for name in TIMES if name in names), 0)
    timed = [(seconds, row) for row in rows if (seconds := _seconds(row[place])) is not None]
    timed.sort(key=lambda each: each[0])
    kept = _thinned(timed, most)
    series = {
        name.strip(): tuple(number(row[column]) for _, row in kept)
        for column, name in enumerate(header)
        if column != place
    }
    told = {name: values for name, values in series.items() if any(each is not None for each in values)}
    if not told:
        return None
    return Samples(tuple(round(seconds - kept[0][0], 3) for seconds, _ in kept), _first(told))


def _thinned(rows: list[tuple[float, Sequence[str]]], most: int) -> list[tuple[float, Sequence[str]]]:
    """At most so many of them, evenly; the last one stays."""
    step = math.ceil(len(rows) / most) or 1
    return rows[::-step][::-1]


def _first(series: Mapping[str, tuple[float | None, ...]]) -> dict[str, tuple[float | None, ...]]:
    return dict(itertools.islice(series.items(), MOST_SERIES))


def _seconds(text: str) -> float | None:
    seconds = number(text)
    if seconds is not None:
        return seconds
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()
