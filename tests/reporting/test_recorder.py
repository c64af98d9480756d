from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pytest_madengine.engine import journal
from pytest_madengine.engine.board import Board
from pytest_madengine.engine.journal import Journal
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


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path)
    yield opened
    opened.close()


def test_every_reporter_gets_every_result_in_order(records: Journal) -> None:
    reporters: list[Reporter] = [Memory(), Memory()]
    recorder = Recorder(reporters, records, {})
    for name in "ab":
        recorder.record(result(name))
    for each in reporters:
        assert isinstance(each, Memory)
        assert each.written == [result("a"), result("b")]
    assert list(recorder.results) == ["id-a", "id-b"]


def test_a_result_that_comes_twice_is_recorded_once(records: Journal) -> None:
    memory = Memory()
    recorder = Recorder([memory], records, {})
    for _ in range(2):
        recorder.record(result())
    assert memory.written == [result()]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), UserError("lacks n_gpus"), ValueError("x")])
def test_a_reporter_that_fails_is_told_of_and_stops_no_other(records: Journal, error: Exception) -> None:
    memory = Memory()
    recorder = Recorder([Broken(error), memory], records, {})
    recorder.record(result())
    assert memory.written == [result()]
    assert recorder.problems == [f"full.csv could not write a row for models.json::m: {error}"]
    assert "id-m" in recorder.results


def test_a_result_travels_on_a_report(records: Journal) -> None:
    carrier = report()
    attach(carrier, result())
    memory = Memory()
    Recorder([memory], records, {}).record_report(carrier)
    assert memory.written == [result()]


def test_other_properties_of_a_report_are_no_results() -> None:
    assert list(carried(report(performance="5", metric="x"))) == []


class Growing(Memory):
    """A reporter with a file of which it knows how far it was written."""

    def sizes(self) -> dict[str, int]:
        return {"growing": len(self.written)}

    def write_missing(self, result: Result, sizes: Mapping[str, int]) -> None:
        self.written = self.written[: sizes["growing"]]
        self.written.append(result)


def test_a_resumed_run_writes_nothing_twice(tmp_path: Path, records: Journal) -> None:
    growing = Growing()
    Recorder([growing], records, {}).record(result("a"))
    board = Board.of([*_course("a"), *journal.read(tmp_path)])
    again = Recorder([growing], records, board.jobs)
    again.record(result("a"))
    assert growing.written == [result("a")]
    assert list(again.results) == ["id-a"]


def test_a_row_that_a_crash_interrupted_is_completed(tmp_path: Path, records: Journal) -> None:
    growing, other = Growing(), Memory()
    growing.written = [result("a")]
    marks = {"kind": journal.RECORDING, "job": "id-b", "marks": {"growing": 1}}
    records.write(marks)
    growing.written.append(result("b"))
    board = Board.of([*_course("b"), *journal.read(tmp_path)])
    Recorder([growing, other], records, board.jobs).record(result("b"))
    assert growing.written == [result("a"), result("b")]
    assert other.written == [result("b")]
    assert Board.of([*_course("b"), *journal.read(tmp_path)]).jobs["id-b"].recorded


def _course(name: str) -> list[journal.Record]:
    known = {"item": f"models.json::{name}", "job": f"id-{name}", "number": 1, "directory": "x", "status": SUCCESS}
    return [{"time": 0.0, "kind": journal.RESULT, **known}]


def test_what_a_reporter_has_left_to_do_is_done_at_the_end(records: Journal) -> None:
    class Lazy(Memory):
        def finish(self) -> None:
            raise OSError("no space")

    recorder = Recorder([Lazy()], records, {})
    recorder.record(result())
    assert recorder.problems == []
    recorder.finish()
    assert recorder.problems == ["memory could not write its files: no space"]
