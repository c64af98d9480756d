"""Runs from submission to outcome, on every local backend; whatever ends them, nothing is left."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_madengine.backends.base import Outcome, State
from pytest_madengine.engine import journal, leftovers
from pytest_madengine.engine.board import Board, Course
from pytest_madengine.engine.fleet import Fleet
from pytest_madengine.engine.journal import Journal
from pytest_madengine.engine.lane import Flight, Pace
from pytest_madengine.errors import InfrastructureError
from pytest_madengine.jobs.job import Job
from tests.backends.support import DOCKER, EACH, Bench, MortalEngine, Place, Submitter, text, until


@pytest.fixture(params=EACH)
def place(request: pytest.FixtureRequest) -> Place:
    place: Place = request.param
    return place


class Pier:
    """A fleet with the bench's backend."""

    def __init__(self, bench: Bench, pace: Pace) -> None:
        self.bench = bench
        self.records = Journal(bench.directory.path)
        self.fleet = Fleet(self.records, 10, pace)

    def flight(self, job: Job) -> Flight:
        return Flight(f"models.json::{job.name}", 1, job, self.bench.backend)

    def fly(self, job: Job) -> Outcome:
        flight = self.flight(job)
        self.fleet.add(flight)
        self.fleet.wait([flight])
        assert flight.outcome, flight.error
        return flight.outcome

    def left(self) -> list[Course]:
        return Board.of(journal.read(self.bench.directory.path)).in_flight()

    def nothing_is_left(self) -> bool:
        return not (self.bench.sleeping() or self.bench.held() or self.left())

    def close(self) -> None:
        self.fleet.leave()
        self.records.close()


@pytest.fixture
def pier(bench: Bench) -> Iterator[Pier]:
    pier = Pier(bench, Pace())
    yield pier
    pier.close()


class TestLimits:
    def test_a_run_over_its_limit_is_ended_and_keeps_what_it_wrote(self, bench: Bench, pier: Pier) -> None:
        job = bench.job(f"echo 1 > a.csv; echo so far; sleep {bench.nap} & sleep {bench.nap}\n", limit=0.5)
        started = time.monotonic()
        outcome = pier.fly(job)
        assert time.monotonic() - started < 10
        assert (outcome.state, outcome.exit_code, set(outcome.artifacts)) == (State.TIMED_OUT, 143, {"a.csv"})
        assert "so far" in text(outcome)
        assert pier.nothing_is_left()

    def test_a_limit_that_is_long_enough_and_none_at_all(self, bench: Bench, pier: Pier) -> None:
        for limit in (60, 0):
            outcome = pier.fly(bench.job("exit 3\n", limit=limit))
            assert (outcome.state, outcome.exit_code) == (State.EXITED, 3)
        assert pier.nothing_is_left()

    def test_the_end_is_seen_at_once(self, bench: Bench, pier: Pier) -> None:
        outcome = pier.fly(bench.job("sleep 1.5; date +%s.%N\n"))
        assert time.time() - float(text(outcome).splitlines()[-1]) < 1


class TestInterruptions:
    SLEEPING = "echo 1 > a.csv; echo so far; sleep {0} & sleep {0}\n"

    def test_the_first_cancels_and_tells_what_was_left(self, bench: Bench, pier: Pier) -> None:
        flight = pier.flight(bench.job(self.SLEEPING.format(bench.nap)))
        pier.fleet.add(flight)
        until(lambda: len(bench.sleeping()) == 2)
        pier.fleet.end([flight])
        assert flight.outcome
        outcome = flight.outcome
        assert (outcome.state, outcome.exit_code, set(outcome.artifacts)) == (State.CANCELLED, 143, {"a.csv"})
        assert "so far" in text(outcome)
        assert pier.nothing_is_left()

    def test_the_second_leaves_no_grace(self, bench: Bench, pier: Pier) -> None:
        script = f"trap '' TERM; echo deaf; until [ -e $MADENGINE_JOB/never ]; do sleep {bench.nap} & wait; done\n"
        flight = pier.flight(bench.job(script))
        pier.fleet.add(flight)
        until(lambda: flight.handle and bench.says(flight.handle, "deaf") and bench.sleeping())
        interrupter = threading.Thread(target=_interrupt_when, args=(lambda: flight.cancelled,))
        interrupter.start()
        started = time.monotonic()
        pier.fleet.end([flight])
        interrupter.join()
        assert time.monotonic() - started < 20
        assert flight.outcome
        assert pier.nothing_is_left()


def _interrupt_when(happened: Callable[[], object]) -> None:
    until(happened)
    os.kill(os.getpid(), signal.SIGINT)


class TestLeftovers:
    def test_what_a_killed_process_left_is_ended(self, bench: Bench, pier: Pier, submitter: Submitter) -> None:
        handle = submitter.submit(f"sleep {bench.nap} & sleep {bench.nap}\n")
        until(lambda: len(bench.sleeping()) == 2)
        submitter.kill()
        course = Course("id", "item", 1, bench.backend.name, handle.directory, handle)
        leftovers.cancel([course], {bench.backend.name: bench.backend}, pier.records)
        assert pier.nothing_is_left()
        assert not (Path(handle.directory) / "workspace").exists()

    def test_a_job_whose_submission_was_never_answered_is_found_and_ended(self, bench: Bench, pier: Pier) -> None:
        job = bench.job(f"sleep {bench.nap}\n")
        bench.submit(job)
        until(bench.sleeping)
        course = Course(job.id, "item", 1, bench.backend.name, str(job.directory))
        leftovers.cancel([course], {bench.backend.name: bench.fresh_backend()}, pier.records)
        assert pier.nothing_is_left()

    def test_a_job_that_was_never_submitted_is_no_trouble(self, bench: Bench, pier: Pier) -> None:
        job = bench.job("true\n")
        course = Course(job.id, "item", 1, bench.backend.name, str(job.directory))
        leftovers.cancel([course], {bench.backend.name: bench.backend}, pier.records)
        assert pier.nothing_is_left()


@pytest.mark.requires_docker
@pytest.mark.parametrize("place", [DOCKER], indirect=True, ids=["docker"])
class TestAnEngineThatDies:
    def test_for_good_fails_the_run_and_the_job_is_ended_when_it_is_back(
        self, bench: Bench, mortal_engine: MortalEngine
    ) -> None:
        pier = Pier(bench, Pace(patience=0.5))
        flight = pier.flight(bench.job(f"sleep {bench.nap}\n"))
        pier.fleet.add(flight)
        until(lambda: bench.sleeping() and flight.seen)
        mortal_engine.kill()
        pier.fleet.wait([flight])
        assert flight.outcome is None
        assert flight.error.startswith("docker out of reach for 0.5 s: docker ps")
        end = functools.partial(leftovers.cancel, pier.left(), {"docker": bench.backend}, pier.records)
        with pytest.raises(InfrastructureError, match="may still run: docker"):
            end()
        assert len(bench.sleeping()) == 1
        mortal_engine.start()
        end()
        assert pier.nothing_is_left()
        pier.close()

    def test_for_a_moment_costs_nothing(self, bench: Bench, pier: Pier, mortal_engine: MortalEngine) -> None:
        wait = 'until [ -e "$MADENGINE_JOB/go" ]; do sleep 0.02; done\n'
        flight = pier.flight(bench.job(f"echo so far\n{wait}exit 3\n"))
        pier.fleet.add(flight)
        until(lambda: flight.seen and flight.handle and bench.says(flight.handle, "so far"))
        mortal_engine.kill()
        (flight.job.directory / "go").touch()
        assert not flight.over.wait(1)
        mortal_engine.start()
        pier.fleet.wait([flight])
        assert flight.outcome
        assert flight.outcome.exit_code == 3
