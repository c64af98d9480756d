"""Collects every result of a session, once, and feeds the reporters; lives in the controller alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest

from pytest_madengine.engine import journal
from pytest_madengine.engine.board import Course
from pytest_madengine.engine.journal import Journal
from pytest_madengine.errors import MadengineError
from pytest_madengine.fixtures import PROPERTY
from pytest_madengine.reporting.base import Appending, Finishing, Reporter
from pytest_madengine.results.result import Result


class Recorder:
    """What was recorded, and what could not be written.

    Attributes:
        results: by id, those of an earlier session of this run included.
        problems: what to tell at the end.
    """

    def __init__(self, reporters: Sequence[Reporter], records: Journal, past: Mapping[str, Course]) -> None:
        self._reporters = reporters
        self._journal = records
        self._past = past
        self.results: dict[str, Result] = {}
        self.problems: list[str] = []

    def record(self, result: Result) -> None:
        """Feed the reporters; a result that was recorded before is not recorded again."""
        if result.id in self.results:
            return
        self.results[result.id] = result
        past = self._past.get(result.id)
        if past and past.recorded:
            return
        sizes = past.marks if past else None
        if sizes is None:
            self._journal.write({"kind": journal.RECORDING, "job": result.id, "marks": self._sizes()})
        for reporter in self._reporters:
            self._write(reporter, result, sizes)
        self._journal.write({"kind": journal.RECORDED, "job": result.id}, sync=False)

    def finish(self) -> None:
        """There are no further results."""
        for reporter in self._reporters:
            if isinstance(reporter, Finishing):
                self._do(reporter, reporter.finish, "its files")

    def _sizes(self) -> dict[str, int]:
        return {
            path: size
            for reporter in self._reporters
            if isinstance(reporter, Appending)
            for path, size in reporter.sizes().items()
        }

    def _write(self, reporter: Reporter, result: Result, sizes: Mapping[str, int] | None) -> None:
        if sizes is not None and isinstance(reporter, Appending):
            write = functools.partial(reporter.write_missing, result, sizes)
        else:
            write = functools.partial(reporter.write, result)
        self._do(reporter, write, f"a row for {result.nodeid}")

    def _do(self, reporter: Reporter, act: Callable[[], None], what: str) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001  # a site's reporter must not cost the others their rows
            self.problems.append(f"{reporter.name} could not write {what}: {_words(error)}")

    def record_report(self, report: pytest.TestReport) -> None:
        """The result that a report carries, if any."""
        for text in carried(report):
            self.record(Result.from_json(text))


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, OSError | ValueError | MadengineError) else repr(error)


def carried(report: pytest.TestReport) -> Iterable[str]:
    """The JSON texts of results on a report."""
    return [str(value) for name, value in report.user_properties if name == PROPERTY]


def attach(report: pytest.TestReport, result: Result) -> None:
    """Let a report carry a result to the controller."""
    report.user_properties.append((PROPERTY, result.to_json()))
