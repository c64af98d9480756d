"""Whatever a backend does, every job lands once, and its fault is told."""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_madengine.backends.base import Handle, Plan, State, Status
from pytest_madengine.engine import journal
from pytest_madengine.engine.board import Board, Phase
from pytest_madengine.engine.fleet import Fleet
from pytest_madengine.engine.journal import Journal
from pytest_madengine.engine.lane import Flight, Pace
from pytest_madengine.jobs.job import Job
from tests.engine.misbehaving import DISASTERS, FAULTS, FINE, HARMLESS, Misbehaving

QUICK = Pace(first=0.01, longest=0.05, gap=0.001, patience=0.05, stall=0.3)
LONG = 30.0
WITH_OUTCOME = {
    FINE,
    *HARMLESS,
    "ends without exit code",
    "exit code is garbage",
    "loses a rank",
    "gives no performance",
    "is lost",
    "is refused once it waits",
    "is preempted again and again",
    "is dropped",
    "status is garbage",
    "state is garbage",
    "never ends",
    "outcome has no log",
    "outcome has a wrong log",
}


class Harbour:
    """A fleet with one misbehaving backend, and what has landed of it."""

    def __init__(self, folder: Path, disaster: str = "", at_once: int = 4, pace: Pace = QUICK) -> None:
        self.folder = folder
        self.backend = Misbehaving(lambda job: job.name, disaster, at_once)
        self.records = Journal(folder)
        self.fleet = Fleet(self.records, at_once, pace)
        self.landed: queue.SimpleQueue[Flight] = queue.SimpleQueue()
        self.fleet.landed = self.landed.put
        self.count = 0

    def flight(self, fault: str, limit: float | None = None) -> Flight:
        self.count += 1
        folder = self.folder / f"job{self.count}"
        folder.mkdir()
        job = Job(f"id{self.count}", "run", fault, "", folder, folder, {}, {}, limit)
        return Flight(f"models.json::{self.count}", 1, job, self.backend)

    def fly(self, faults: Sequence[str], limit: float | None = 0.2) -> list[Flight]:
        flights = [self.flight(fault, limit) for fault in faults]
        for flight in flights:
            self.fleet.add(flight)
        self.wait(flights)
        return flights

    def wait(self, flights: Sequence[Flight]) -> None:
        deadline = time.monotonic() + LONG
        while not all(flight.over.wait(0.05) for flight in flights):
            self.fleet.check()
            assert time.monotonic() < deadline, "not all have landed"

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let the lane see what is added meanwhile all at once."""
        lane = self.fleet._lane(self.flight(FINE))
        with lane._lock:
            flights: list[Flight] = []
            lane.add, add = flights.append, lane.add  # type: ignore[method-assign,assignment]
            yield
            lane.add = add  # type: ignore[method-assign]
            lane._queue.extend(flights[:-1])
        lane.add(flights[-1])

    def close(self) -> None:
        self.backend.released.set()
        self.fleet.leave()
        self.records.close()

    def board(self) -> Board:
        return Board.of(journal.read(self.folder))


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    harbour = Harbour(tmp_path)
    yield harbour
    harbour.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Harbour]]:
    made: list[Harbour] = []

    def harbour(**options: object) -> Harbour:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Harbour(folder, **options))  # type: ignore[arg-type]
        return made[-1]

    yield harbour
    for each in made:
        each.close()


@pytest.mark.parametrize("fault", [FINE, *FAULTS])
def test_a_job_lands_whatever_its_backend_does_to_it(harbour: Harbour, fault: str) -> None:
    flight, other = harbour.fly([fault, FINE])
    assert (flight.outcome is not None) == (fault in WITH_OUTCOME)
    assert bool(flight.error) != (fault in WITH_OUTCOME)
    assert other.outcome
    assert other.outcome.state is State.EXITED


@pytest.mark.parametrize(("fault", "refused"), [("is refused", True), ("submit raises", False)])
def test_a_flight_knows_whether_it_was_refused_for_good(harbour: Harbour, fault: str, *, refused: bool) -> None:
    (flight,) = harbour.fly([fault])
    assert flight.refused is refused


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([FINE, *FAULTS]), max_size=12), st.integers(1, 5))
def test_every_job_lands_once_and_runs_once(make: Callable[..., Harbour], faults: list[str], at_once: int) -> None:
    harbour = make(at_once=at_once)
    flights = harbour.fly(faults)
    landed = [harbour.landed.get(timeout=LONG) for _ in flights]
    assert sorted(map(id, landed)) == sorted(map(id, flights))
    assert harbour.landed.empty()
    assert all(bool(flight.outcome) != bool(flight.error) for flight in flights)
    assert set(harbour.backend.ran.elements()) <= set(faults)
    assert sum(harbour.backend.ran.values()) <= len(faults)


@pytest.mark.parametrize("disaster", DISASTERS)
def test_a_backend_that_answers_nothing_of_use_is_given_up(make: Callable[..., Harbour], disaster: str) -> None:
    harbour = make(disaster=disaster)
    flights = harbour.fly([FINE] * 6, limit=None)
    assert [flight.outcome for flight in flights] == [None] * 6
    words = "has not answered for 0.3 s" if "stall" in disaster else "out of reach for 0.05 s"
    assert all(words in flight.error for flight in flights)
    later = harbour.fly([FINE])[0]
    assert later.error


def test_a_backend_that_is_back_in_time_costs_nothing(make: Callable[..., Harbour]) -> None:
    harbour = make(disaster="states raise", pace=Pace(first=0.01, longest=0.02, patience=LONG))
    flight = harbour.flight(FINE)
    harbour.fleet.add(flight)
    assert not flight.over.wait(0.1)
    harbour.backend.disaster = ""
    harbour.wait([flight])
    assert flight.outcome


def test_no_more_are_in_flight_than_there_are_slots(make: Callable[..., Harbour]) -> None:
    harbour = make(at_once=2)
    flights = [harbour.flight("never ends") for _ in range(5)]
    for flight in flights:
        harbour.fleet.add(flight)
    _until(lambda: sum(harbour.backend.ran.values()) == 2)
    harbour.fleet.cancel(flights[:1])
    harbour.wait(flights[:1])
    _until(lambda: sum(harbour.backend.ran.values()) == 3)
    harbour.fleet.end(flights)
    assert sum(harbour.backend.ran.values()) == 3


def test_what_waits_for_a_slot_is_dropped_when_cancelled(make: Callable[..., Harbour]) -> None:
    harbour = make(at_once=1)
    first, second = harbour.flight("never ends"), harbour.flight(FINE)
    harbour.fleet.add(first)
    harbour.fleet.add(second)
    _until(lambda: first.handle)
    harbour.fleet.end([second])
    assert (second.handle, second.outcome, second.cancelled) == (None, None, True)
    harbour.fleet.end([first])
    assert first.outcome
    assert first.outcome.state is State.CANCELLED


def test_cancelling_in_the_middle_of_a_batch_submits_no_more(harbour: Harbour) -> None:
    flights = [harbour.flight(FINE) for _ in range(4)]
    submit = harbour.backend.submit

    def cancel(plan: Plan) -> Handle:
        harbour.fleet.cancel(flights)
        return submit(plan)

    harbour.backend.submit = cancel  # type: ignore[method-assign]
    with harbour.holding():
        for flight in flights:
            harbour.fleet.add(flight)
    harbour.wait(flights)
    assert harbour.backend.ran == {FINE: 1}
    assert [flight.outcome is not None for flight in flights] == [True, False, False, False]


def test_a_lane_that_breaks_down_lands_all_that_it_carried(harbour: Harbour) -> None:
    flights = [harbour.flight("never ends") for _ in range(2)]
    harbour.records.write = lambda *_, **__: 1 / 0  # type: ignore[method-assign,assignment]
    for flight in flights:
        harbour.fleet.add(flight)
    harbour.wait(flights)
    assert all("cannot be used any more: ZeroDivisionError" in flight.error for flight in flights)


def test_a_job_over_its_limit_is_ended_at_once(harbour: Harbour) -> None:
    started = time.monotonic()
    (flight,) = harbour.fly(["never ends"], limit=0.1)
    assert flight.outcome
    assert flight.outcome.state is State.TIMED_OUT
    assert 0.1 <= time.monotonic() - started < 5


def test_a_job_waits_until_its_time_has_come(harbour: Harbour) -> None:
    flight = harbour.flight(FINE)
    flight.not_before = time.monotonic() + 0.3
    harbour.fleet.add(flight)
    harbour.wait([flight])
    assert time.monotonic() >= flight.not_before


def test_a_job_that_is_left_flies_on_and_another_process_goes_on_with_it(make: Callable[..., Harbour]) -> None:
    harbour = make()
    flight = harbour.flight("never ends")
    harbour.fleet.add(flight)
    _until(lambda: flight.handle)
    harbour.fleet.leave()
    assert not flight.over.is_set()
    (course,) = harbour.board().in_flight()
    assert course.handle == flight.handle
    fleet = Fleet(harbour.records, 1, QUICK)
    again = Flight(flight.item, 1, flight.job, harbour.backend, handle=course.handle)
    fleet.add(again)
    fleet.end([again])
    assert again.outcome
    assert harbour.backend.ran == {"never ends": 1}
    assert harbour.board().in_flight() == []


def test_the_journal_knows_of_a_submission_before_the_backend_does(harbour: Harbour) -> None:
    seen: list[list[str]] = []
    submit = harbour.backend.submit

    def look(plan: Plan) -> Handle:
        seen.append([course.id for course in harbour.board().in_flight()])
        return submit(plan)

    harbour.backend.submit = look  # type: ignore[method-assign]
    harbour.fly([FINE])
    assert seen == [["id1"]]


def test_each_change_of_a_job_is_written_down(harbour: Harbour) -> None:
    (flight,) = harbour.fly([FINE])
    kinds = [(record["kind"], record.get("phase")) for record in journal.read(harbour.folder)]
    assert kinds == [
        (journal.SUBMITTING, None),
        (journal.SUBMITTED, None),
        (journal.PHASE, Phase.PENDING.value),
        (journal.PHASE, Phase.COLLECTING.value),
        (journal.ENDED, None),
    ]
    assert harbour.board().jobs[flight.job.id].over


def test_an_idle_fleet_asks_seldom_and_uses_no_processor(make: Callable[..., Harbour]) -> None:
    harbour = make(pace=Pace(first=0.1))
    asked: list[float] = []
    states = harbour.backend.states

    def count(handles: Sequence[Handle]) -> Mapping[Handle, Status]:
        asked.append(time.monotonic())
        return states(handles)

    harbour.backend.states = count  # type: ignore[method-assign]
    flight = harbour.flight("never ends")
    harbour.fleet.add(flight)
    _until(lambda: len(asked) == 5)
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert pauses[-1] > pauses[0] * 1.5
    harbour.fleet.end([flight])


def _until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)
