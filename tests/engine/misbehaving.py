"""A backend that does, job by job, what no backend should do."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.backends import facts
from pytest_madengine.backends.base import Handle, Outcome, Plan, State, Status
from pytest_madengine.errors import InfrastructureError, RefusedError
from pytest_madengine.jobs.job import Job

FINE = "fine"
MODEL_FAULTS = {"fails": 7}
"""What is a failure of the model, not of the backend: exit codes."""
FAULTS = (
    "plan raises",
    "submit raises",
    "submit raises what nobody expects",
    "is refused",
    "is refused once it waits",
    "submit ends the test",
    "no handle",
    "handle is garbage",
    "is dropped",
    "status is garbage",
    "state is garbage",
    "is lost",
    "is preempted again and again",
    "never ends",
    "cannot be cancelled",
    "collect raises",
    "outcome is garbage",
    "outcome has no log",
    "outcome has a wrong log",
    "ends without exit code",
    "exit code is garbage",
    "repeats its end",
    "loses a rank",
    "gives no performance",
)
"""What a backend can do to one job."""
DISASTERS = ("states raise", "states are garbage", "states stall", "submit stalls")
"""What a backend can do to all of them."""
HARMLESS = {"repeats its end"}


class Misbehaving:
    """Every job ends at once, unless its fault is another.

    Attributes:
        disaster: what befalls all jobs; '' for nothing.
        ran: how often each job was submitted, by the name of its model.
    """

    name = "fake"
    deployment = "fake"
    containers = False
    remote = False

    def __init__(self, fault_of: Callable[[Job], str], disaster: str = "", at_once: int = 4) -> None:
        self.at_once = at_once
        self.disaster = disaster
        self.ran: Counter[str] = Counter()
        self.released = threading.Event()
        self._fault_of = fault_of
        self._jobs: dict[Handle, Job] = {}
        self._wake: Callable[[], object] = self.released.is_set

    def fault(self, handle: Handle) -> str:
        return self._fault_of(self._jobs[handle])

    def plan(self, job: Job) -> Plan:
        if self._fault_of(job) == "plan raises":
            raise KeyError("plan")
        return Plan(job, job.id)

    def submit(self, plan: Plan) -> Handle:
        self._stall("submit stalls")
        fault = self._fault_of(plan.job)
        if fault == "submit raises":
            raise InfrastructureError("no room")
        if fault == "is refused":
            raise RefusedError("no such partition")
        if fault == "submit raises what nobody expects":
            raise ZeroDivisionError
        if fault == "submit ends the test":
            pytest.fail("no quota")
        self.ran[plan.job.name] += 1
        if fault == "handle is garbage":
            return Handle(self.name, plan.job.id, plan.job.directory)  # type: ignore[arg-type]
        handle = Handle(self.name, plan.job.id, str(plan.job.directory))
        self._jobs[handle] = plan.job
        garbage: Any = None
        return handle if fault != "no handle" else garbage

    def find(self, folders: Mapping[str, Path]) -> Mapping[str, Handle]:
        return {handle.token: handle for handle in self._jobs if handle.token in folders}

    def states(self, handles: Sequence[Handle]) -> Mapping[Handle, Status]:
        self._stall("states stall")
        garbage: Any = {"states are garbage": 42}.get(self.disaster)
        if self.disaster == "states raise":
            raise InfrastructureError("no route to host")
        return garbage or {handle: self._status(handle) for handle in handles if self.fault(handle) != "is dropped"}

    def _stall(self, disaster: str) -> None:
        if self.disaster == disaster:
            self.released.wait()

    def _status(self, handle: Handle) -> Status:
        garbage: dict[str, Any] = {"status is garbage": "RUNNING", "state is garbage": Status("done")}  # type: ignore[arg-type]
        states = {
            "is lost": State.LOST,
            "is refused once it waits": State.LOST,
            "never ends": State.RUNNING,
            "cannot be cancelled": State.RUNNING,
            "is preempted again and again": State.LOST,
        }
        fault = self.fault(handle)
        status: Status = garbage.get(fault) or Status(states.get(fault, State.EXITED))
        return status

    def watch(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def collect(self, handle: Handle) -> Outcome:
        fault = self.fault(handle)
        if fault == "collect raises":
            raise OSError("stale file handle")
        folder = Path(handle.directory)
        text = b"nothing\n" if fault == "gives no performance" else b"performance: 1 x\n"
        (folder / facts.LOG).write_bytes(text)
        if fault == "outcome has no log":
            (folder / facts.LOG).unlink()
        garbage: dict[str, Any] = {"ends without exit code": None, "exit code is garbage": "zero"}
        code = garbage.get(fault, MODEL_FAULTS.get(fault, 0))
        (folder / "phases").write_text(f"model 1 2 {code if isinstance(code, int) else 0} 0 {len(text)}\n")
        outcome: Any = facts.outcome(folder, State.EXITED, exit_code=code, node="node1", duration=1.0)
        if fault == "outcome has a wrong log":
            outcome = Outcome(State.EXITED, 0, folder)
        if fault == "is refused once it waits":
            outcome = replace(outcome, refused=True)
        garbled: Any = "fine"
        return outcome if fault != "outcome is garbage" else garbled  # type: ignore[no-any-return]

    def cancel(self, handles: Iterable[Handle], *, hard: bool = False) -> None:
        del hard
        if any(self.fault(handle) == "cannot be cancelled" for handle in handles):
            raise InfrastructureError("permission denied")
