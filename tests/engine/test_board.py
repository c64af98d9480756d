from __future__ import annotations

from typing import Any

from pytest_madengine.backends.base import Handle
from pytest_madengine.engine import journal
from pytest_madengine.engine.board import Board, Course, Phase

HANDLE = Handle("host", "1/x", "/jobs/a")
SUBMITTING: dict[str, Any] = {"item": "f::a", "job": "j1", "number": 1, "backend": "host", "directory": "/jobs/a"}


def record(kind: str, time: float = 0.0, **more: Any) -> journal.Record:
    return {"kind": kind, "time": time, **more}


def phase(word: str, time: float = 0.0, **more: Any) -> journal.Record:
    return record(journal.PHASE, time, item="f::a", phase=word, **more)


def test_models_wait_until_something_is_done_for_them() -> None:
    board = Board.of([record(journal.RUN, 5.0, items=["f::a", "f::b"], target="host")])
    assert [(entry.item, entry.phase, entry.since) for entry in board.items.values()] == [
        ("f::a", Phase.QUEUED, 5.0),
        ("f::b", Phase.QUEUED, 5.0),
    ]
    assert board.run["target"] == "host"


def test_a_phase_begins_when_it_changes_and_not_with_its_detail() -> None:
    board = Board.of([phase("pending", 1.0), phase("pending", 2.0, detail="Resources"), phase("running", 3.0)][:2])
    entry = board.items["f::a"]
    assert (entry.phase, entry.since, entry.detail) == (Phase.PENDING, 1.0, "Resources")
    board.apply(phase("running", 3.0))
    assert (entry.phase, entry.since, entry.detail) == (Phase.RUNNING, 3.0, "")


def test_a_job_is_in_flight_from_before_its_submission_until_it_is_over() -> None:
    board = Board.of([record(journal.SUBMITTING, **SUBMITTING)])
    assert board.in_flight() == [Course("j1", "f::a", 1, "host", "/jobs/a")]
    board.apply(record(journal.SUBMITTED, job="j1", handle=HANDLE.to_json()))
    board.apply(phase("running", 7.0, job="j1"))
    board.apply(phase("running", 9.0, job="j1"))
    (course,) = board.in_flight()
    assert (course.handle, course.began) == (HANDLE, 7.0)
    board.apply(record(journal.ENDED, job="j1", state="exited"))
    assert board.in_flight() == []
    assert board.items["f::a"].directory == "/jobs/a"


def test_a_result_ends_a_model_with_or_without_a_job() -> None:
    known: dict[str, Any] = {"item": "f::a", "job": "j1", "number": 1, "directory": "/jobs/a"}
    board = Board.of([record(journal.RESULT, 4.0, **known, status="FAILURE", reason="no image")])
    entry = board.items["f::a"]
    assert (entry.phase, entry.status, entry.detail) == (Phase.DONE, "FAILURE", "no image")
    course = board.jobs["j1"]
    assert (course.judged, course.over, course.recorded, course.marks) == (True, True, False, None)
    board.apply(record(journal.RECORDING, job="j1", marks={"perf.csv": 10}))
    board.apply(record(journal.RECORDED, job="j1"))
    assert (course.recorded, course.marks) == (True, {"perf.csv": 10})


def test_the_last_job_of_a_model_is_given_out_once() -> None:
    again = {**SUBMITTING, "job": "j2", "number": 2}
    board = Board.of([record(journal.SUBMITTING, **each) for each in (SUBMITTING, again, SUBMITTING)])
    taken = board.take("f::a")
    assert taken
    assert taken.id == "j2"
    assert board.take("f::a") is None
    assert set(board.jobs) == {"j1", "j2"}


def test_records_of_unknown_kinds_and_jobs_are_passed_over() -> None:
    board = Board.of(
        [record("invented"), record(journal.RECORDED, job="?"), record(journal.RECORDING, job="?", marks={})]
    )
    assert board.jobs == {}


def test_a_run_that_ended_says_when() -> None:
    board = Board.of([record(journal.RUN, 1.0, items=[]), record(journal.END, 8.0)])
    assert board.run["ended"] == 8.0
