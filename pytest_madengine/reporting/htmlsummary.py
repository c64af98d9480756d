"""What stands on an HTML report before any script runs: counts, what needs attention, and a plain table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_madengine.reporting import htmldata
from pytest_madengine.results import tries
from pytest_madengine.results.comparison import Judgement
from pytest_madengine.results.perf import FAILURE, SKIPPED, SUCCESS
from pytest_madengine.results.result import Result
from pytest_madengine.results.tries import Tried

MOST_PROBLEMS, MOST_ROWS, LONGEST = 30, 300, 400
KINDS = ("failure", "regression", "none")
"""Of problems, the worst first."""
WIDTH = 1000
"""Of the bar, in units of its own."""


@dataclass(frozen=True)
class Tile:
    """A number of the summary; `kind` is its colour."""

    label: str
    number: int
    kind: str
    words: str = ""


@dataclass(frozen=True)
class Segment:
    """A part of the bar."""

    kind: str
    start: float
    width: float


@dataclass(frozen=True)
class Problem:
    """An item to be looked at; `line` is its first one's number in the page's table."""

    line: int
    title: str
    kind: str
    label: str
    words: str


@dataclass(frozen=True)
class Summary:
    """All that the page's template shows.

    Attributes:
        said: the counts in words.
        problems: the first of them, and `more` the number of those left out.
        rows: model, status, performance, unit and verdict, the problems first, and `more_rows` likewise.
    """

    said: str
    tiles: Sequence[Tile]
    bar: Sequence[Segment]
    problems: Sequence[Problem]
    more: int
    rows: Sequence[Sequence[str]]
    more_rows: int


def summary(results: Iterable[Result]) -> Summary:
    """What a run came to."""
    items = tries.by_item(results)
    found = tries.counts(items)
    problems = sorted(_problems(items), key=lambda each: KINDS.index(each.kind))
    rows = [row for item in sorted(items, key=_calm) for row in _rows(item)]
    return Summary(
        said=tries.said(items),
        tiles=list(_tiles(items, found)),
        bar=list(_bar(found)),
        problems=problems[:MOST_PROBLEMS],
        more=max(0, len(problems) - MOST_PROBLEMS),
        rows=rows[:MOST_ROWS],
        more_rows=max(0, len(rows) - MOST_ROWS),
    )


def _tiles(items: Sequence[Tried], found: tries.Counts) -> Iterator[Tile]:
    rows = sum(len(each.result.rows) for each in items)
    yield Tile("models", len(items), "all", f"{rows} rows" if rows != len(items) else "")
    yield Tile("passed", found.statuses[SUCCESS], "success")
    classes = ", ".join(f"{count} {name}" for name, count in found.failures.items() if count)
    yield Tile("failed", found.statuses[FAILURE], "failure", classes)
    yield Tile("skipped", found.statuses[SKIPPED], "skipped")
    if any(found.verdicts.values()):
        for label, judgement in (
            ("regressions", Judgement.REGRESSION),
            ("improvements", Judgement.IMPROVEMENT),
            ("without verdict", Judgement.NONE),
        ):
            yield Tile(label, found.verdicts[judgement.value], judgement.name.lower())


def _bar(found: tries.Counts) -> Iterator[Segment]:
    total, start = sum(found.statuses.values()) or 1, 0.0
    for status, number in found.statuses.items():
        if number:
            width = number / total * WIDTH
            yield Segment(status.lower(), round(start, 2), round(width, 2))
            start += width


def _problems(items: Sequence[Tried]) -> Iterator[Problem]:
    line = 0
    for item in items:
        if htmldata.is_problem(item):
            label, words = htmldata.problem(item)
            worst = htmldata.worst_of(item.bad)
            kind = worst.judgement.name.lower() if worst and not item.result.failed else "failure"
            yield Problem(line, item.result.title, kind, label, words[:LONGEST])
        line += len(item.result.rows)


def _calm(item: Tried) -> int:
    return not htmldata.is_problem(item)


def _rows(item: Tried) -> Iterator[Sequence[str]]:
    result = item.result
    for row in result.rows:
        get = row.columns.get
        compared = Counter(each.judgement.value for each in result.comparisons if each.metric.row == get("model"))
        verdicts = ", ".join(f"{number} {name}" if number > 1 else name for name, number in compared.items())
        name = htmldata.name_of(result, row)
        yield name, get("status") or result.status, get("performance", ""), get("metric", ""), verdicts


def facts(run: dict[str, Any], results: Sequence[Result]) -> dict[str, str]:
    """What is known of a run, with what its results tell: hosts, launchers, versions; empty ones are left out."""
    versions = {f"{name} {value}": None for each in results for name, value in each.versions.items()}
    hosts = dict.fromkeys(host for each in results for host in each.hosts or _machines(each) if host)
    architectures = dict.fromkeys(_column(results, "gpu_architecture"))
    found = {
        **run,
        "hosts": _few(list(hosts)),
        "architectures": _few(list(architectures)),
        "versions": _few(sorted(versions)),
    }
    return {name: value for name, value in found.items() if value}


def _machines(result: Result) -> Iterable[str]:
    return _column([result], "machine_name")


def _column(results: Iterable[Result], name: str) -> Iterator[str]:
    return (text for each in results for row in each.rows if (text := row.columns.get(name)))


def _few(names: Sequence[str]) -> str:
    most = 8
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
