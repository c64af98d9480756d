"""A run as Markdown, for a comment on a pull request.

Whatever a model, a log or a user wrote stands in code spans and code blocks, where it is neither markup nor mentions
anybody.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from pytest_madengine import files
from pytest_madengine.reporting.base import AtTheEnd
from pytest_madengine.results import tries
from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.result import Result, Row
from pytest_madengine.results.tries import Tried
from pytest_madengine.secrets import NO_SECRETS, Masker

LONGEST = 60_000
"""Characters; GitHub takes 65,536 in a comment."""
HEADINGS = ("model", "status", "performance", "metric", "change", "verdict", "duration")
MOST_ROWS, MOST_DETAILS = 200, 20
LONGEST_CELL, LONGEST_REASON, LONGEST_LINE = 120, 2_000, 300
LAST_LINES = 20
ROOM = 100
"""Characters for saying what was left out."""
BACKTICKS = re.compile("`+")
BREAKING = re.compile(r"[`|\\]")
"""What ends a code span, or a cell of a table."""
MARKUP = re.compile(r"[^\w .,;=/()+%-]|_", re.ASCII)
"""What may be markup where there is no code span."""


class Markdown(AtTheEnd):
    """The file of `--madengine-markdown`, written when the run ends."""

    name = "--madengine-markdown"

    def __init__(self, path: Path, run: str, mask: Masker = NO_SECRETS) -> None:
        self._path = path
        self._run = run
        self._mask = mask

    def conclude(self, results: Sequence[Result], _: int, /) -> None:
        """See `Concluding`."""
        self._put(self._mask(summary(results, self._run)))

    def _put(self, text: str) -> None:
        files.replace_target(self._path, text)


def summary(results: Iterable[Result], run: str) -> str:
    """The run in at most `LONGEST` characters: what it came to, a table, and what is to be looked at.

    Args:
        results: all of the run.
        run: its id.
    """
    items = sorted(tries.by_item(results), key=_urgency)
    head = f"### Models: {tries.said(items)}\n\nRun {code(run)}\n\n"
    table = _within(_table(items), LONGEST // 2)
    odd = [each for each in items if each.result.failed or each.bad]
    return head + table + _fitting(odd, LONGEST - len(head) - len(table) - ROOM)


def code(text: str) -> str:
    """The text as code on one line, whatever it holds; also in a cell of a table."""
    line = " ".join(text.split())[:LONGEST_CELL]
    if not line:
        return ""
    return f"<code>{MARKUP.sub(_entity, line)}</code>" if BREAKING.search(line) else f"`{line}`"


def _entity(found: re.Match[str]) -> str:
    return f"&#{ord(found.group())};"


def _urgency(item: Tried) -> int:
    if item.result.failed:
        return 0
    return 1 if item.bad else 2


def _table(items: Sequence[Tried]) -> Iterator[str]:
    number = sum(len(item.result.rows) for item in items)
    rows = (cells for item in items for cells in _rows(item))
    yield _line(HEADINGS)
    yield _line(["---"] * len(HEADINGS))
    yield from map(_line, islice(rows, MOST_ROWS))
    if number > MOST_ROWS:
        yield f"\n{number - MOST_ROWS} more rows\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _rows(item: Tried) -> Iterator[Sequence[str]]:
    result = item.result
    for row in result.rows:
        compared = _comparison(result, row)
        name = row.columns.get("model", "") if len(result.rows) > 1 else result.title
        yield (
            code(name),
            row.columns.get("status", result.status),
            code(row.columns.get("performance", "")),
            code(row.columns.get("metric", "")),
            tries.change(compared.change) if compared else "",
            _verdict(compared),
            f"{result.duration:.1f} s{_tried(item)}",
        )


def _tried(item: Tried) -> str:
    return f", attempt {len(item.earlier) + 1}" if item.earlier else ""


def _comparison(result: Result, row: Row) -> Comparison | None:
    """Of the row's performance."""
    found = (each for each in result.comparisons if each.metric.name == "performance")
    return next((each for each in found if each.metric.row == row.columns.get("model", "")), None)


def _verdict(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    loud = comparison.judgement in (Judgement.REGRESSION, Judgement.NONE)
    return f"**{comparison.judgement.value}**" if loud else comparison.judgement.value


def _details(item: Tried) -> str:
    """What happened to one model, folded."""
    result = item.result
    name = html.escape(" ".join(result.title.split())[:LONGEST_CELL])
    kind = f"{result.status.lower()}{f', {result.failure.value}' if result.failure.value else ''}"
    parts = [f"<details><summary><code>{name}</code>: {kind}</summary>\n", *map(_regression, item.bad)]
    parts += [block(result.reason[:LONGEST_REASON])] if result.reason else []
    parts += [block("\n".join(line[:LONGEST_LINE] for line in result.tail[-LAST_LINES:]))] if result.tail else []
    return "\n".join([*parts, "</details>\n\n"])


def _regression(comparison: Comparison) -> str:
    metric = comparison.metric
    change = tries.change(comparison.change)
    said = ", ".join(filter(None, [comparison.judgement.value, change]))
    reason = f": {code(comparison.reason)}" if comparison.reason else ""
    return f"- {code(f'{metric.row} {metric.name}')} {said}{reason}\n"


def block(text: str) -> str:
    """The text as a code block, whatever it holds."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{text}\n{fence}\n"


def _longest_run(text: str) -> int:
    return max(map(len, BACKTICKS.findall(text)), default=0)


def _within(lines: Iterable[str], most: int) -> str:
    """As many lines as fit."""
    kept: list[str] = []
    for line in lines:
        most -= len(line)
        if most < 0:
            return "".join([*kept, "\nmore rows were left out\n\n"])
        kept.append(line)
    return "".join([*kept, "\n"])


def _fitting(items: Sequence[Tried], room: int) -> str:
    """The details of as many of them as fit, and how many do not."""
    kept: list[str] = []
    for details in map(_details, items[:MOST_DETAILS]):
        room -= len(details)
        if room < 0:
            break
        kept.append(details)
    left = len(items) - len(kept)
    return "".join([*kept, *([f"{left} more of them are not shown\n"] if left else [])])
