from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from pytest_madengine.engine import journal
from pytest_madengine.engine.board import Board
from pytest_madengine.engine.journal import Journal
from pytest_madengine.errors import InfrastructureError, UserError
from pytest_madengine.reporting.base import Reporter
from pytest_madengine.reporting.outbox import Outbox
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


class Elsewhere(Memory):
    """A remote reporter that takes no result before it is let."""

    name = "elsewhere"
    remote = True

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.let = threading.Event()
        self.error = error
        self.threads: set[int] = set()

    def write(self, result: Result) -> None:
        self.let.wait(60)
        self.threads.add(threading.get_ident())
        if self.error:
            raise self.error
        super().write(result)


class Postal(Elsewhere):
    """One that has on disk what it has not sent."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Result] = []

    def keep(self, result: Result) -> None:
        self.kept.append(result)

    def waiting(self) -> str:
        left = len(self.kept) - len(self.written)
        return f"{left} wait" if left else ""


def test_a_remote_reporter_holds_up_nobody(records: Journal) -> None:
    remote, memory = Elsewhere(), Memory()
    recorder = Recorder([remote, memory], records, {})
    for name in "ab":
        recorder.record(result(name))
    assert (memory.written, remote.written) == ([result("a"), result("b")], [])
    remote.let.set()
    recorder.finish()
    assert remote.written == memory.written
    assert threading.get_ident() not in remote.threads
    assert (recorder.problems, recorder.warnings) == ([], [])


@pytest.mark.parametrize(
    ("error", "warns"),
    [(OSError("no route"), True), (InfrastructureError("no route"), True), (UserError("no route"), False)],
)
def test_a_remote_reporter_that_fails_is_told_of_at_the_end(records: Journal, error: Exception, *, warns: bool) -> None:
    remote, memory = Elsewhere(error), Memory()
    remote.let.set()
    recorder = Recorder([remote, memory], records, {})
    recorder.record(result())
    recorder.finish()
    told = "elsewhere could not write a row for models.json::m: no route"
    assert (recorder.problems, recorder.warnings) == (([], [told]) if warns else ([told], []))
    assert memory.written == [result()]


def test_a_remote_reporter_that_hangs_is_given_up_and_only_it(records: Journal) -> None:
    hanging, other = Elsewhere(), Elsewhere()
    other.let.set()
    recorder = Recorder([hanging, other], records, {}, patience=0.1)
    recorder.record(result())
    begun = time.monotonic()
    recorder.finish()
    recorder.conclude(0)
    assert time.monotonic() - begun < 30
    assert recorder.warnings == ["elsewhere was given up with 1 left to do (--madengine-reporting-timeout=0.1)"]
    assert other.written == [result()]
    hanging.let.set()


def test_what_is_kept_is_no_loss_and_said_at_the_end(records: Journal) -> None:
    postal = Postal()
    recorder = Recorder([postal], records, {}, patience=0.1)
    recorder.record(result("a"))
    recorder.record(result("b"))
    assert postal.kept == [result("a"), result("b")]
    recorder.finish()
    recorder.conclude(0)
    assert recorder.problems == []
    given_up, waits = recorder.warnings
    assert "was given up" in given_up
    assert waits == "2 wait"
    postal.let.set()


def test_remote_reporters_finish_and_conclude_too(records: Journal) -> None:
    class Telling(Elsewhere):
        told: str = ""

        def finish(self) -> None:
            self.told += "finished"

        def conclude(self, results: Sequence[Result], exit_status: int, /) -> None:
            self.told += f", {len(results)} results, exit status {exit_status}"

    remote = Telling()
    remote.let.set()
    recorder = Recorder([remote], records, {})
    recorder.record(result())
    recorder.finish()
    recorder.conclude(1)
    assert remote.told == "finished, 1 results, exit status 1"


def test_who_interrupts_the_waiting_waits_no_longer(records: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Elsewhere()
    recorder = Recorder([remote], records, {}, patience=60)
    recorder.record(result())
    wait, calls = Outbox.wait, []

    def interrupted(outbox: Outbox, until: float) -> int:
        calls.append(until)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return wait(outbox, until)

    monkeypatch.setattr(Outbox, "wait", interrupted)
    begun = time.monotonic()
    recorder.finish()
    assert time.monotonic() - begun < 30
    assert "was given up" in recorder.warnings[0]
    remote.let.set()
