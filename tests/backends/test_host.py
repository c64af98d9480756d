"""What only the host backend has: plain processes beside everybody else's."""

from __future__ import annotations

import os

import pytest

from pytest_madengine.backends.base import State
from pytest_madengine.errors import InfrastructureError
from tests.backends.contract import KILL_THE_JOB
from tests.backends.support import HOST, Bench, Place, Submitter, text, until


@pytest.fixture
def place() -> Place:
    return HOST


def test_the_users_environment_is_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_USER", "yes")
    assert text(bench.run('echo "$OF_THE_USER"\n')).splitlines()[1:] == ["yes"]


def test_an_environment_that_no_system_takes_is_an_infrastructure_error(bench: Bench) -> None:
    with pytest.raises(InfrastructureError, match="bash: Argument list too long"):
        bench.submit(bench.job("true\n", env_vars={"HUGE": "x" * 3_000_000}))


def test_a_killed_script_is_lost_and_says_why(bench: Bench) -> None:
    handle = bench.submit(bench.job(KILL_THE_JOB))
    until(lambda: bench.state(handle).over)
    outcome = bench.collect(handle)
    assert (outcome.state, outcome.exit_code) == (State.LOST, -9)
    assert outcome.note == "its script was killed by signal 9"


def test_a_killed_script_of_another_process_is_lost(bench: Bench, submitter: Submitter) -> None:
    handle = submitter.submit(KILL_THE_JOB)
    until(lambda: bench.state(handle) is State.LOST)
    outcome = bench.collect(handle)
    assert (outcome.state, outcome.exit_code) == (State.LOST, None)
    assert bench.held() == []


def test_standard_input_is_empty(bench: Bench) -> None:
    assert text(bench.run("cat; echo end\n")).splitlines()[1:] == ["end"]


def test_it_runs_in_a_session_of_its_own(bench: Bench) -> None:
    session = text(bench.run("ps -o sid= -p $$\n")).splitlines()[1]
    assert int(session) != os.getsid(0)
