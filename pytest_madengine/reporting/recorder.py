"""Collects every result of a session, once, and feeds the reporters; lives in the controller alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from pytest_madengine.errors import MadengineError
from pytest_madengine.fixtures import PROPERTY
from pytest_madengine.reporting.base import Reporter
from pytest_madengine.results.result import Result


class Recorder:
    """What was recorded, and what could not be written."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self._reporters = reporters
        self.results: dict[str, Result] = {}
        self.problems: list[str] = []

    def record(self, result: Result) -> None:
        """Feed the reporters; a result that was recorded before is not recorded again."""
        if result.id in self.results:
            return
        self.results[result.id] = result
        for reporter in self._reporters:
            self._write(reporter, result)

    def _write(self, reporter: Reporter, result: Result) -> None:
        try:
            reporter.write(result)
        except Exception as error:  # noqa: BLE001  # a site's reporter must not cost the others their rows
            self.problems.append(f"{reporter.name} has no row for {result.nodeid}: {_words(error)}")

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
