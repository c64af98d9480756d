"""A run from submission to outcome, on every local backend; whatever ends it, nothing is left."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_madengine.backends.base import Backend, State
from pytest_madengine.engine.run import InterruptedRunError, cancel_leftovers, run
from pytest_madengine.errors import InfrastructureError
from tests.backends.support import DOCKER, EACH, PLACES, Bench, MortalEngine, Place, Submitter, text, until


@pytest.fixture(params=EACH)
def place(request: pytest.FixtureRequest) -> Place:
    place: Place = request.param
    return place


def nothing_is_left(bench: Bench) -> bool:
    return not (bench.sleeping() or bench.held() or bench.directory.in_flight())


def backends(bench: Bench) -> dict[str, Backend]:
    return {name: bench.backend if name == bench.place.name else place.backend() for name, place in PLACES.items()}


class TestLimits:
    def test_a_run_over_its_limit_is_ended_and_keeps_what_it_wrote(self, bench: Bench) -> None:
        job = bench.job(f"echo 1 > a.csv; echo so far; sleep {bench.nap} & sleep {bench.nap}\n", limit=0.5)
        started = time.monotonic()
        outcome = run(job, bench.backend, bench.directory)
        assert time.monotonic() - started < 5
        assert (outcome.state, outcome.exit_code, set(outcome.artifacts)) == (State.TIMED_OUT, 143, {"a.csv"})
        assert "so far" in text(outcome)
        assert nothing_is_left(bench)

    def test_a_limit_that_is_long_enough_and_none_at_all(self, bench: Bench) -> None:
        for limit in (60, 0):
            job = bench.job("exit 3\n", limit=limit)
            assert job.limit == (limit or None)
            outcome = run(job, bench.backend, bench.directory)
            assert (outcome.state, outcome.exit_code) == (State.EXITED, 3)
        assert nothing_is_left(bench)

    def test_the_end_is_seen_at_once(self, bench: Bench) -> None:
        outcome = run(bench.job("sleep 1.5; date +%s.%N\n"), bench.backend, bench.directory)
        assert time.time() - float(text(outcome).splitlines()[-1]) < 1


class TestInterruptions:
    def test_an_interruption_cancels_and_tells_what_was_left(self, bench: Bench) -> None:
        job = bench.job(f"echo 1 > a.csv; echo so far; sleep {bench.nap} & sleep {bench.nap}\n")
        interrupter = threading.Thread(target=_interrupt_when, args=(lambda: len(bench.sleeping()) == 2,))
        interrupter.start()
        with pytest.raises(InterruptedRunError) as caught:
            run(job, bench.backend, bench.directory)
        interrupter.join()
        outcome = caught.value.outcome
        assert isinstance(caught.value.cause, KeyboardInterrupt)
        assert (outcome.state, outcome.exit_code, set(outcome.artifacts)) == (State.CANCELLED, 143, {"a.csv"})
        assert "so far" in text(outcome)
        assert nothing_is_left(bench)


def _interrupt_when(happened: Callable[[], object]) -> None:
    until(happened)
    os.kill(os.getpid(), signal.SIGINT)


class TestLeftovers:
    def test_what_a_killed_process_left_is_ended(self, bench: Bench, submitter: Submitter) -> None:
        handle = submitter.submit(f"sleep {bench.nap} & sleep {bench.nap}\n")
        until(lambda: len(bench.sleeping()) == 2)
        submitter.kill()
        assert bench.directory.in_flight() == [handle]
        assert cancel_leftovers(backends(bench), bench.directory) == [handle]
        assert nothing_is_left(bench)
        assert not (Path(handle.directory) / "workspace").exists()

    def test_what_has_ended_meanwhile_is_collected(self, bench: Bench, submitter: Submitter) -> None:
        handle = submitter.submit("exit 3\n")
        submitter.kill()
        until(lambda: bench.state(handle).over)
        assert cancel_leftovers(backends(bench), bench.directory) == [handle]
        assert nothing_is_left(bench)

    def test_without_leftovers_nothing_happens(self, bench: Bench) -> None:
        run(bench.job("true\n"), bench.backend, bench.directory)
        assert cancel_leftovers(backends(bench), bench.directory) == []


@pytest.mark.requires_docker
@pytest.mark.parametrize("place", [DOCKER], indirect=True, ids=["docker"])
class TestAnEngineThatDies:
    def test_it_fails_the_run_and_the_job_is_ended_when_it_is_back(
        self, bench: Bench, mortal_engine: MortalEngine
    ) -> None:
        killer = threading.Thread(target=_kill_when_sleeping, args=(bench, mortal_engine))
        killer.start()
        with pytest.raises(InfrastructureError, match="docker ps"):
            run(bench.job(f"sleep {bench.nap}\n"), bench.backend, bench.directory)
        killer.join()
        assert len(bench.directory.in_flight()) == 1
        with pytest.raises(InfrastructureError, match="may still run: docker"):
            cancel_leftovers(backends(bench), bench.directory)
        assert len(bench.sleeping()) == 1
        mortal_engine.start()
        assert len(cancel_leftovers(backends(bench), bench.directory)) == 1
        assert nothing_is_left(bench)


def _kill_when_sleeping(bench: Bench, mortal_engine: MortalEngine) -> None:
    until(bench.sleeping)
    mortal_engine.kill()
