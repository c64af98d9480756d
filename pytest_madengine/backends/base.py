"""The contract between the engine and the places where jobs run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pytest_madengine.jobs.job import Job


class State(str, Enum):
    """Where a job stands; the outside world's words become these in each backend's table."""

    PENDING = "pending"
    RUNNING = "running"
    EXITED = "exited"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (State.PENDING, State.RUNNING)


@dataclass(frozen=True)
class Status:
    """What a backend says of a job.

    Attributes:
        state: where it stands.
        reason: the scheduler's words for that, such as why the job waits; '' where it has none.
    """

    state: State
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """What will be submitted, as a value that can be printed and compared.

    Attributes:
        job: what it was made from.
        request: the argument list, script text or manifest that `submit` hands over.
        secrets: values that go with the request in a way that shows them to nobody.
    """

    job: Job
    request: Any
    secrets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Handle:
    """A submitted job as plain data: another process can pick it up.

    Attributes:
        backend: which backend knows it.
        token: what that backend calls it: a container id, a process id, a job number.
        directory: the job's folder.
    """

    backend: str
    token: str
    directory: str

    def to_json(self) -> dict[str, str]:
        """Plain data that `Handle(**data)` takes back."""
        return {"backend": self.backend, "token": self.token, "directory": self.directory}


@dataclass(frozen=True)
class Phase:
    """One step of the job's script: when it ran (epoch seconds), how it ended, its part of the log in bytes."""

    name: str
    started: float
    ended: float
    code: int
    log_from: int
    log_to: int


@dataclass(frozen=True)
class Outcome:
    """What happened.

    Attributes:
        state: how the job ended.
        exit_code: of the job's script; None where it never gave one.
        log: the run's log.
        artifacts: files that the run left, by name.
        phases: steps in the order they began; one that never ended has code -1.
        node: host name of the (first) node.
        git_commit: of the cloned repository.
        note: what the backend has to say, such as an out-of-memory kill.
        duration: seconds from start to end.
        ranks: exit code of each node's rank where a job has several; None for one that never finished.
        suspects: nodes that may be to blame where the job was lost; of one that ended, `node` is.
        refused: whether the backend will never run the job, as it stands.
        machine: what was found out on the (first) node: vendor, gpus, architecture, product, toolkit, driver.
        folders: the folder of each rank, with its own log, phases and artifacts, where a job has several.
    """

    state: State
    exit_code: int | None
    log: Path
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    phases: tuple[Phase, ...] = ()
    node: str = ""
    git_commit: str = ""
    note: str = ""
    duration: float = 0.0
    ranks: Mapping[int, int | None] = field(default_factory=dict)
    folders: Mapping[int, Path] = field(default_factory=dict)
    suspects: tuple[str, ...] = ()
    machine: Mapping[str, str] = field(default_factory=dict)
    refused: bool = False

    def phase(self, name: str) -> Phase | None:
        """The step of that name."""
        return next((phase for phase in self.phases if phase.name == name), None)


class Backend(Protocol):
    """A place where jobs run. Every question is asked for many jobs at once, by one thread.

    Attributes:
        name: what `--target` takes.
        deployment: perf.csv's word for it.
        containers: whether jobs need an image.
        at_once: how many jobs to have in flight unless the user says otherwise.
        remote: whether jobs run on other machines than this one, which have the project's files.
    """

    name: str
    deployment: str
    containers: bool
    at_once: int
    remote: bool

    def plan(self, job: Job) -> Plan:
        """What `submit` would hand over; touches nothing."""
        ...

    def submit(self, plan: Plan) -> Handle:
        """Hand the job over under its id; a job of that id which is there already is not handed over again.

        Raises:
            InfrastructureError: the backend refused it or cannot be reached.
        """
        ...

    def find(self, folders: Mapping[str, Path]) -> Mapping[str, Handle]:
        """Those of the jobs (id: folder) that were handed over, by whatever process; the others never were.

        Raises:
            InfrastructureError: the backend cannot be reached.
        """
        ...

    def states(self, handles: Sequence[Handle]) -> Mapping[Handle, Status]:
        """Where each job stands, by one question for all of them.

        Raises:
            InfrastructureError: the backend cannot be reached.
        """
        ...

    def watch(self, wake: Callable[[], None]) -> None:
        """Call `wake`, from any thread, at the moment one of the jobs ends; a backend that is not told does nothing."""
        ...

    def collect(self, handle: Handle) -> Outcome:
        """What a job that is over left; frees what the backend held for it."""
        ...

    def cancel(self, handles: Iterable[Handle], *, hard: bool = False) -> None:
        """End these jobs and everything they started; returns when they are over.

        Args:
            handles: some may be over already.
            hard: without a grace period in which they could tidy up.
        """
        ...


@runtime_checkable
class Versioned(Protocol):
    """A backend that knows which version of it runs the jobs."""

    def versions(self) -> Mapping[str, str]:
        """Versions by name: `{"docker": "27.1.1"}`; asked once in a session, when the first job has ended.

        Raises:
            InfrastructureError: the backend cannot be reached.
        """
        ...
