"""What only the host backend has: plain processes beside everybody else's."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from pytest_madengine.backends.base import State
from pytest_madengine.backends.processes import GONE
from pytest_madengine.errors import InfrastructureError
from tests.backends.contract import KILL_THE_JOB, WAIT_FOR_GO
from tests.backends.support import HOST, Bench, Place, Submitter, text, until, write


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


def test_a_job_whose_script_is_over_is_found_without_a_process(bench: Bench) -> None:
    job = bench.job(f"setsid sleep {bench.nap} &\n{WAIT_FOR_GO}exit 3\n")
    submitted = bench.submit(job)
    until(bench.sleeping)
    bench.go(submitted)
    bench.await_end(submitted)
    handle = bench.find(job)
    assert handle == replace(submitted, token=f"{GONE}/{job.id}")
    later = bench.fresh_backend()
    assert later.collect(handle).exit_code == 3
    assert bench.sleeping() == []


def test_a_killed_script_that_is_found_is_lost(bench: Bench) -> None:
    job = bench.job(KILL_THE_JOB)
    bench.finish(bench.submit(job))
    handle = bench.find(job)
    assert handle
    assert bench.state(handle) is State.LOST


def test_a_jobs_script_is_found_through_a_link(bench: Bench) -> None:
    job = bench.job(WAIT_FOR_GO)
    handle = bench.submit(job)
    link = bench.folder / "link"
    link.symlink_to(job.directory)
    assert bench.fresh_backend().find({job.id: link}) == {job.id: replace(handle, directory=str(link))}


def test_a_shell_that_runs_another_script_is_not_the_job(bench: Bench) -> None:
    other = write(bench.folder / "other/run.sh", f"sleep {bench.nap}\n")
    job = bench.job(f'setsid bash "{other}" &\n{WAIT_FOR_GO}')
    handle = bench.submit(job)
    until(bench.sleeping)
    assert bench.find(job) == handle


def test_the_end_of_a_strange_process_is_seen_where_the_system_does_not_announce_it(
    bench: Bench, submitter: Submitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    handle = submitter.submit(WAIT_FOR_GO)
    assert bench.state(handle) is State.RUNNING
    bench.woken.clear()
    bench.go(handle)
    assert bench.woken.wait(5)
    bench.await_end(handle)


def test_a_folder_that_is_not_there_yet_is_made(bench: Bench) -> None:
    job = bench.job("exit 3\n")
    job.directory.rmdir()
    assert bench.finish(bench.submit(job)).exit_code == 3


def test_standard_input_is_empty(bench: Bench) -> None:
    assert text(bench.run("cat; echo end\n")).splitlines()[1:] == ["end"]


def test_it_runs_in_a_session_of_its_own(bench: Bench) -> None:
    session = text(bench.run("ps -o sid= -p $$\n")).splitlines()[1]
    assert int(session) != os.getsid(0)
