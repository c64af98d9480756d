from __future__ import annotations

import pytest

from pytest_madengine.errors import UserError
from pytest_madengine.reporting.base import Reporter
from pytest_madengine.reporting.recorder import Recorder, attach, carried
from pytest_madengine.results.judge import single
from pytest_madengine.results.perf import SUCCESS
from pytest_madengine.results.result import Result


class Memory:
    """A reporter that keeps what it is given."""

    name = "memory"

    def __init__(self) -> None:
        self.written: list[Result] = []

    def write(self, result: Result) -> None:
        self.written.append(result)


class Broken:
    """A reporter whose place is full."""

    name = "full.csv"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, _: Result, /) -> None:
        raise self.error


def result(name: str = "m") -> Result:
    return Result(f"id-{name}", f"models.json::{name}", name, SUCCESS, single({"model": name}, SUCCESS))


def report(**properties: str) -> pytest.TestReport:
    return pytest.TestReport(
        "models.json::m", ("models.json", 0, "m"), {}, "passed", None, "call", user_properties=list(properties.items())
    )


def test_every_reporter_gets_every_result_in_order() -> None:
    reporters: list[Reporter] = [Memory(), Memory()]
    recorder = Recorder(reporters)
    for name in "ab":
        recorder.record(result(name))
    for each in reporters:
        assert isinstance(each, Memory)
        assert each.written == [result("a"), result("b")]
    assert list(recorder.results) == ["id-a", "id-b"]


def test_a_result_that_comes_twice_is_recorded_once() -> None:
    memory = Memory()
    recorder = Recorder([memory])
    for _ in range(2):
        recorder.record(result())
    assert memory.written == [result()]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), UserError("lacks n_gpus"), ValueError("x")])
def test_a_reporter_that_fails_is_told_of_and_stops_no_other(error: Exception) -> None:
    memory = Memory()
    recorder = Recorder([Broken(error), memory])
    recorder.record(result())
    assert memory.written == [result()]
    assert recorder.problems == [f"full.csv has no row for models.json::m: {error}"]
    assert "id-m" in recorder.results


def test_a_result_travels_on_a_report() -> None:
    carrier = report()
    attach(carrier, result())
    memory = Memory()
    Recorder([memory]).record_report(carrier)
    assert memory.written == [result()]


def test_other_properties_of_a_report_are_no_results() -> None:
    assert list(carried(report(performance="5", metric="x"))) == []
