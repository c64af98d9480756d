"""The record of a run: every Result whole, one line of JSON each, from which all other files can be made again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

from pytest_madengine.reporting.appended import append, behind, locked, sizes_of
from pytest_madengine.results.result import Result

FORMAT = 1
"""Stands in each line; a change that an earlier version could not read would raise it."""


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


class RunRecord:
    """`results.jsonl` in the run's directory: all attempts, in the order in which they were recorded."""

    name = "results.jsonl"

    def __init__(self, path: Path, now: Callable[[], str] = _now) -> None:
        self._path = path
        self._now = now

    def write(self, result: Result) -> None:
        """Append the result."""
        self.write_missing(result, {})

    def sizes(self) -> Mapping[str, int]:
        """See `Appending`."""
        return sizes_of(self._path)

    def write_missing(self, result: Result, sizes: Mapping[str, int]) -> None:
        """See `Appending`."""
        with locked(self._path) as file:
            there = behind(file, sizes[str(self._path)]) if str(self._path) in sizes else b""
            whole, _, cut = there.rpartition(b"\n")
            if any(_is_of(result.id, line) for line in whole.splitlines()):
                return
            if cut:
                file.truncate(sizes[str(self._path)] + len(there) - len(cut))
            append(file, b"", [line(result, self._now())])


def line(result: Result, recorded: str) -> bytes:
    """A line of a record.

    Args:
        result: what it holds.
        recorded: when, ISO 8601 in UTC; by this, runs that took turns at one perf.csv are told apart.
    """
    head = json.dumps({"format": FORMAT, "recorded": recorded})
    return f"{head[:-1]}, {result.to_json()[1:]}\n".encode()


def _is_of(identity: str, text: bytes) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("id") == identity
