"""A running session in words: what stands on the board, and what has just changed."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from pytest_madengine.backends.facts import LOG
from pytest_madengine.engine import journal
from pytest_madengine.engine.board import Board, Entry, Phase
from pytest_madengine.engine.logscan import SHOWN
from pytest_madengine.results.perf import FAILURE
from pytest_madengine.results.performance import ANSI
from pytest_madengine.secrets import NO_SECRETS, Masker

HEADINGS = ("model", "phase", "elapsed", "detail")
RIGHT_ALIGNED = {2}
LAST_BYTES = 1 << 12
ESCAPES = re.compile(rf"{ANSI.pattern}|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]")
"""What terminals obey instead of showing it: colours and cursor moves, titles and links, and the short ones."""
OBJECTS = {Phase.BUILDING, Phase.PULLING, Phase.PUSHING}
"""Phases whose detail is what they are about; other details say why."""
LOGGED = {Phase.RUNNING, Phase.COLLECTING}
"""Phases in which the log of the job's folder tells how things stand."""


def title(item: str) -> str:
    """What people call an item: the end of its node id."""
    return item.rpartition("::")[2]


def counts(board: Board) -> str:
    """How many models are in which phase."""
    numbers = Counter(entry.phase for entry in board.items.values())
    failed = len(_failed(board))
    said = [f"{numbers[phase]} {phase.value}" for phase in Phase if numbers[phase]]
    return (", ".join(said) or "0 models") + (f" ({failed} failed)" if failed else "")


def active(board: Board) -> list[Entry]:
    """The models that something is being done for; those that only wait for the scheduler come last."""
    found = [entry for entry in board.items.values() if entry.phase not in (Phase.QUEUED, Phase.DONE)]
    return sorted(found, key=lambda entry: entry.phase is Phase.PENDING)


def cells(entry: Entry, now: float, mask: Masker) -> tuple[str, ...]:
    """A model's line, cell by cell as in `HEADINGS`; each is printable, of one line and masked."""
    detail = plain(f"{entry.detail} {entry.step}")
    if not detail and entry.phase in LOGGED:
        detail = last_line(entry.directory, mask)
    return plain(title(entry.item)), entry.phase.value, elapsed(now - entry.since), detail


def change(record: journal.Record) -> str | None:
    """A line for a record that changes a phase; None where nothing is to be seen, or pytest itself shows it."""
    if record.get("kind") != journal.PHASE or record["phase"] == Phase.DONE.value:
        return None
    detail, phase = plain(record.get("detail", "")), record["phase"]
    if detail and phase not in {each.value for each in OBJECTS}:
        detail = f"({detail})"
    return f"{plain(title(record['item']))}: {phase} {detail}".rstrip()


class Changes:
    """The lines of a journal's records, none twice in a row for an item."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def line(self, record: journal.Record) -> str | None:
        """What `change` says, unless that was the last thing said about this item."""
        line = change(record)
        if line is None or self._last.get(record["item"]) == line:
            return None
        self._last[record["item"]] = line
        return line


def plain(text: str) -> str:
    """The text as one line of printable characters."""
    if text.isprintable():
        return text.strip()
    spaced = "".join(" " if each.isspace() else each for each in ESCAPES.sub("", text))
    return "".join(filter(str.isprintable, spaced)).strip()


def last_line(directory: str, mask: Masker = NO_SECRETS) -> str:
    """The last line of a job's log that is not blank, printable and cut; '' if there is none."""
    end = _end(Path(directory, LOG)) if directory else b""
    pieces = reversed(end.replace(b"\r", b"\n").split(b"\n"))
    return next((line for piece in pieces if (line := plain(mask(piece.decode(errors="replace"))))), "")[:SHOWN]


def _end(log: Path) -> bytes:
    try:
        with log.open("rb", buffering=0) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LAST_BYTES))
            return file.read(LAST_BYTES) or b""
    except OSError:
        return b""


def elapsed(seconds: float) -> str:
    """A duration as people say it; clocks that disagree make none that is negative."""
    minutes, second = divmod(max(0, int(seconds)), 60)
    hour, minute = divmod(minutes, 60)
    if hour:
        return f"{hour} h {minute:02} min"
    return f"{minute} min {second:02} s" if minute else f"{second} s"


def report(board: Board, now: float, mask: Masker = NO_SECRETS) -> list[str]:
    """The whole run for another terminal: what it is, how far it is, what is being done, what failed."""
    rows = [cells(entry, now, mask) for entry in active(board)]
    failed = [f"  {plain(title(entry.item))}: {plain(entry.detail) or 'no reason given'}" for entry in _failed(board)]
    return [
        _head(board.run, now),
        counts(board),
        *(["", *aligned([HEADINGS, *rows], RIGHT_ALIGNED)] if rows else []),
        *(["", "failed:", *failed] if failed else []),
    ]


def _failed(board: Board) -> list[Entry]:
    return [entry for entry in board.items.values() if entry.phase is Phase.DONE and entry.status == FAILURE]


def _head(run: journal.Record, now: float) -> str:
    began = run.get("time")
    named = {"run": run.get("id"), "target": run.get("target"), "started": began and _clock(began)}
    named |= {"host": run.get("host"), "pid": run.get("pid")}
    parts = [plain(f"{name} {value}") for name, value in named.items() if value]
    lasted = f" for {elapsed(now - began)}" if began else ""
    return ", ".join([*parts, "ended" if run.get("ended") else f"running{lasted}"])


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def aligned(rows: Sequence[tuple[str, ...]], right: Container[int] = ()) -> Iterator[str]:
    """Rows as lines of a table; the columns of these numbers are set flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        padded = (cell.rjust(width) if at in right else cell.ljust(width) for at, (cell, width) in enumerate(cells))
        yield "  ".join(padded).rstrip()
