"""Completes pytest's reports: the Result they carry and the durations they show."""

from __future__ import annotations

import pytest

from pytest_madengine import options
from pytest_madengine.attempt import Attempt
from pytest_madengine.errors import MadengineError
from pytest_madengine.fixtures import ATTEMPT, VARIANT, attempt_of
from pytest_madengine.reporting import junit
from pytest_madengine.reporting.recorder import attach

TOLD = pytest.StashKey[list[junit.Property]]()
"""What an item's reports have said of its model."""


def complete(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Attach the Result where the item's fate is known: on the call's report, or on a setup's that did not pass.

    The test's time becomes the model's own: a setup that passed counts nothing (how long an image took to build
    stands in build_duration), and the call lasts as long as the model's script ran.
    """
    if report.when == "teardown" or options.given(item.config, "setuponly"):
        return
    attempt = _attempt(item)
    if attempt is None:
        return
    if report.when == "setup" and not report.passed:
        _conclude(attempt, call)
    elif attempt.settled:
        report.duration = attempt.duration if report.when == "call" else 0.0
    elif report.when == "call":
        attempt.discard()
    if attempt.result and (report.when == "call" or not report.passed):
        _tell(item, report, junit.properties(attempt.result, attempt.earlier))
        for result in (*attempt.earlier, attempt.result):
            attach(report, result)


def _tell(item: pytest.Item, report: pytest.TestReport, properties: list[junit.Property]) -> None:
    """Put the properties on this report and on those to come; what a rerun says takes the place of what was said."""
    said_before = item.stash.get(TOLD, [])
    item.user_properties[:] = [each for each in item.user_properties if each not in said_before]
    item.user_properties += properties
    item.stash[TOLD] = properties
    report.user_properties += properties


def _attempt(item: pytest.Item) -> Attempt | None:
    """The item's attempt; a model item whose setup failed before it began gets one now."""
    attempt = item.stash.get(ATTEMPT, None)
    if attempt or VARIANT not in item.stash:
        return attempt
    try:
        return attempt_of(item)
    except (MadengineError, OSError):
        return None


def _conclude(attempt: Attempt, call: pytest.CallInfo[None]) -> None:
    if attempt.result is not None or call.excinfo is None:
        return
    if call.excinfo.errisinstance((pytest.skip.Exception, pytest.xfail.Exception)):
        attempt.skipped(str(getattr(call.excinfo.value, "msg", call.excinfo.value)))
    else:
        attempt.failed_by(_original(call.excinfo.value))


def _original(error: BaseException) -> BaseException:
    """Our own error behind pytest's `Failed`, by which fixtures show it without a traceback."""
    return error.__context__ if isinstance(error.__context__, MadengineError) else error
