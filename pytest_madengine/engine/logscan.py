"""Reads a run's log once, in constant memory, whatever its size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_madengine.backends.base import Outcome
from pytest_madengine.results.errorscan import Rules
from pytest_madengine.results.performance import NEEDLES, Finder
from pytest_madengine.secrets import Masker

BLOCK = 1 << 22
LINE_ENDS = re.compile(r"[\r\n]+")
SHOWN = 300
TAIL_LINES = 20
TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class Scan:
    """What a log says: the performance finder after its pass, and the first error line."""

    finder: Finder
    error: str = ""


def scan(outcome: Outcome, rules: Rules) -> Scan:
    """Look for performance and errors in the part of the log that the model itself wrote.

    What pre and post scripts, git or the data printed cannot pass for the model's result or failure.
    """
    finder, error = Finder(), ""
    needles = (*NEEDLES, *rules.needles())
    phase = outcome.phase("model")
    if phase is None:
        return Scan(finder)
    for block in _blocks(outcome.log, phase.log_from, phase.log_to):
        if not any(needle in block for needle in needles):
            continue
        for line in LINE_ENDS.split(block.decode(errors="replace")):
            finder.feed(line)
            if not error and (pattern := rules.error_in(line)):
                error = f"{line.strip()[:SHOWN]!r} (pattern {pattern!r})"
    return Scan(finder, error)


def mask(log: Path, masker: Masker) -> None:
    """Replace secret values in a finished log, if it holds any."""
    if not masker.values or not any(masker.found_in(block) for block in _blocks(log, 0, -1)):
        return
    clean = log.with_suffix(".masked")
    with clean.open("wb") as file:
        for block in _blocks(log, 0, -1):
            file.write(masker.mask_bytes(block))
    clean.replace(log)


def tail(log: Path) -> tuple[str, ...]:
    """The last lines of a log that are not blank."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ()
    lines = [line.rstrip()[-SHOWN:] for line in LINE_ENDS.split(text) if line.strip()]
    return tuple(lines[-TAIL_LINES:])


def _blocks(log: Path, start: int, end: int) -> Iterator[bytes]:
    """The bytes from `start` to `end` (-1: the file's end) in blocks that end at line ends.

    A line longer than a block is cut: no line that says something is that long.
    """
    left = (end if end >= 0 else log.stat().st_size) - start
    rest = b""
    with log.open("rb") as file:
        file.seek(start)
        while left > 0 and (read := file.read(min(BLOCK, left))):
            left -= len(read)
            cut = max(read.rfind(b"\n"), read.rfind(b"\r")) + 1
            if cut:
                yield rest + read[:cut]
                rest = read[cut:]
            elif len(rest) + len(read) <= BLOCK:
                rest += read
            else:
                yield rest
                rest = read
    yield rest
