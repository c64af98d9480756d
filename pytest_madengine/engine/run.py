"""Runs one job on a backend, from submission to outcome, and leaves nothing behind."""

from __future__ import annotations

import time
from dataclasses import replace

from pytest_madengine.backends.base import Backend, Handle, Outcome, State
from pytest_madengine.engine.rundir import RunDirectory
from pytest_madengine.errors import InfrastructureError
from pytest_madengine.jobs.job import Job

LONGEST_WAIT = 15.0


class InterruptedRunError(BaseException):
    """Ctrl-C or a signal ended a run; carries what the run had left. Like KeyboardInterrupt no `Exception`."""

    def __init__(self, outcome: Outcome, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.outcome = outcome
        self.cause = cause


def run(job: Job, backend: Backend, directory: RunDirectory) -> Outcome:
    """Submit, wait, collect; a time limit or an interruption cancels.

    Raises:
        InfrastructureError: the backend failed.
        InterruptedRunError: an interruption came; the job is over and collected.
    """
    handle = backend.submit(backend.plan(job))
    try:
        directory.note(handle)
        state = _await_end(job, backend, handle)
    except BaseException as error:
        outcome = _cancelled(backend, handle, directory, error)
        if isinstance(error, Exception):
            raise
        raise InterruptedRunError(outcome, error) from error
    if state is State.TIMED_OUT:
        backend.cancel([handle])
    outcome = backend.collect(handle)
    directory.forget(handle)
    return outcome if state is State.EXITED else replace(outcome, state=state)


def _cancelled(backend: Backend, handle: Handle, directory: RunDirectory, error: BaseException) -> Outcome:
    """What a job left that `error` ended; `error` itself where the backend fails: the session's end tries again."""
    try:
        backend.cancel([handle])
        outcome = backend.collect(handle)
    except InfrastructureError:
        raise error from None
    directory.forget(handle)
    return replace(outcome, state=State.CANCELLED)


def cancel_leftovers(backends: dict[str, Backend], directory: RunDirectory) -> list[Handle]:
    """Cancel what a process of this session left in flight when it died.

    Raises:
        InfrastructureError: some could not be cancelled; the others are.
    """
    left = directory.in_flight()
    problems = []
    for handle in left:
        backend = backends[handle.backend]
        try:
            backend.cancel([handle])
            backend.collect(handle)
        except InfrastructureError as error:
            problems.append(f"{handle.token} may still run: {error}")
        else:
            directory.forget(handle)
    if problems:
        raise InfrastructureError("\n".join(problems))
    return left


def _await_end(job: Job, backend: Backend, handle: Handle) -> State:
    """Ask until the job is over; TIMED_OUT when its limit comes first."""
    deadline = None if job.limit is None else time.monotonic() + job.limit
    pause = 0.2
    while not (state := backend.states([handle])[handle]).over:
        left = LONGEST_WAIT if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return State.TIMED_OUT
        backend.wait([handle], min(pause, left))
        pause = min(pause * 1.5, LONGEST_WAIT)
    return state
