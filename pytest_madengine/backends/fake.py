"""A backend that pretends: for trying out a conftest, and for tests of the engine with hundreds of jobs.

A pretended job is one small file. Where it stands follows from that file and the clock, so that every process which
uses the same folder sees the same jobs. Jobs that are not pretended run as processes of this host.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pytest_madengine.backends import facts
from pytest_madengine.backends.base import Handle, Outcome, Plan, State, Status
from pytest_madengine.backends.processes import Processes
from pytest_madengine.jobs.job import Job

CANCELLED = "cancelled"
"""The folder that holds an empty file for each pretended job that was cancelled, as old as that."""
TERMINATED = 143
"""The exit code of a job that was cancelled."""
FRESH = 0.2
"""A folder that changed less than so many seconds ago may change once more without looking different."""
GLANCE = 0.25
"""Seconds between two looks for jobs that another process cancelled."""
RUNNING, EXITED = Status(State.RUNNING), Status(State.EXITED)


@dataclass(frozen=True)
class Pretence:
    """How a pretended job goes.

    Attributes:
        seconds: how long it runs.
        exit_code: what it gives.
        output: what its model prints.
        pending: seconds before it begins,
        reason: and why it waits.
        node: where it runs; this host unless said otherwise.
    """

    seconds: float
    exit_code: int = 0
    output: str = "performance: 1 x\n"
    pending: float = 0.0
    reason: str = "Resources"
    node: str = ""


@dataclass(frozen=True)
class _Life:
    """A pretended job; moments are epoch seconds."""

    model: str
    begins: float
    ends: float
    pretence: Pretence
    waiting: Status
    cancelled: bool = False

    @classmethod
    def from_json(cls, text: str) -> _Life:
        data: dict[str, Any] = json.loads(text)
        pretence = Pretence(**data["pretence"])
        begins = data["submitted"] + pretence.pending
        waiting = Status(State.PENDING, pretence.reason)
        return cls(data["model"], begins, begins + pretence.seconds, pretence, waiting)

    def cut(self, moment: float) -> _Life:
        """The same job, cancelled at that moment; nothing changes for one that was over."""
        if moment >= self.ends:
            return self
        return replace(self, begins=min(self.begins, moment), ends=moment, cancelled=True)

    def status(self, now: float) -> Status:
        if now >= self.ends:
            return EXITED
        return RUNNING if now >= self.begins else self.waiting

    @property
    def exit_code(self) -> int:
        return TERMINATED if self.cancelled else self.pretence.exit_code

    @property
    def node(self) -> str:
        return self.pretence.node or platform.node()


class FakeBackend:
    """Pretends those jobs that `pretend` says how to, and runs the others on this host.

    Attributes:
        place: the folder in which the pretended jobs are noted.
        pretend: how a job goes; None for one that is to be run.
    """

    deployment = "fake"
    containers = False
    remote = False

    def __init__(
        self,
        place: Path,
        *,
        name: str = "fake",
        at_once: int = 500,
        pretend: Callable[[Job], Pretence | None] | None = None,
    ) -> None:
        self.name = name
        self.at_once = at_once
        self.place = place
        self.pretend = pretend
        self._processes = Processes(name)
        self._lives: dict[str, _Life] = {}
        self._seen = 0
        self._alarm = _Alarm(self._next_end, self._changes)

    def plan(self, job: Job) -> Plan:
        """The pretence, or else the command and its environment."""
        pretence = self.pretend(job) if self.pretend else None
        return Plan(job, {"pretence": asdict(pretence)}) if pretence else self._processes.plan(job)

    def submit(self, plan: Plan) -> Handle:
        """Note the pretended job down, or start the process."""
        job = plan.job
        if found := self.find({job.id: job.directory}):
            return found[job.id]
        if "pretence" not in plan.request:
            return self._processes.submit(plan)
        facts.write_script(job)
        self._note(job, {"model": job.name, "submitted": time.time(), **plan.request})
        self._load(job.id)
        return Handle(self.name, job.id, str(job.directory))

    def _note(self, job: Job, record: Mapping[str, Any]) -> None:
        """Write a job down, all at once; if another process was faster, its record stands."""
        self.place.mkdir(parents=True, exist_ok=True)
        new = self.place / f"{job.id}.{os.getpid()}-{threading.get_ident()}.new"
        new.write_text(json.dumps(record), encoding="utf-8")
        try:
            self._record(job.id).hardlink_to(new)
        except FileExistsError:
            pass
        finally:
            new.unlink()

    def find(self, folders: Mapping[str, Path]) -> Mapping[str, Handle]:
        """Those that are noted; what else runs or ran left its traces in its folder."""
        pretended = {token for token in folders if token in self._lives or self._record(token).exists()}
        others = {token: folder for token, folder in folders.items() if token not in pretended}
        noted = {token: Handle(self.name, token, str(folders[token])) for token in pretended}
        return noted | dict(self._processes.find(others))

    def states(self, handles: Sequence[Handle]) -> Mapping[Handle, Status]:
        """What the clock says; the files are read once, and again after somebody cancelled a job."""
        changes = self._changes()
        if changes != self._seen or _is_fresh(changes):
            self._seen = changes
            self._load_living()
        now = time.time()
        real = [handle for handle in handles if not _is_pretended(handle)]
        pretended = {handle: self._status(handle, now) for handle in handles if _is_pretended(handle)}
        return pretended | dict(self._processes.states(real))

    def _status(self, handle: Handle, now: float) -> Status:
        life = self._life(handle.token)
        return life.status(now) if life else Status(facts.left(Path(handle.directory)))

    def watch(self, wake: Callable[[], None]) -> None:
        """`wake` is called when a job ends, and when some process cancelled one."""
        self._alarm.call = wake
        self._processes.watch(wake)

    def collect(self, handle: Handle) -> Outcome:
        """What the job left; of a pretended one, what it would have left."""
        if not _is_pretended(handle):
            return self._processes.collect(handle)
        directory = Path(handle.directory)
        life = self._load(handle.token)
        if life and not (directory / facts.EXIT_CODE).exists():
            _leave_traces(directory, life)
        self._forget(handle.token)
        return facts.outcome(
            directory,
            facts.left(directory),
            exit_code=None,
            node=life.node if life else platform.node(),
            duration=life.ends - life.begins if life else 0.0,
        )

    def cancel(self, handles: Iterable[Handle], *, hard: bool = False) -> None:
        """End pretended jobs now, processes as on the host."""
        handles = list(handles)
        for handle in filter(_is_pretended, handles):
            self._cut(handle.token)
        self._processes.cancel([handle for handle in handles if not _is_pretended(handle)], hard=hard)

    def _cut(self, token: str) -> None:
        life = self._life(token)
        if life and not life.status(time.time()).state.over:
            self._cancellation(token).parent.mkdir(exist_ok=True)
            self._cancellation(token).touch(exist_ok=True)
            self._load(token)
            self._alarm.call()

    def _record(self, token: str) -> Path:
        return self.place / f"{token}.json"

    def _cancellation(self, token: str) -> Path:
        return self.place / CANCELLED / token

    def _changes(self) -> int:
        """A number that changes when a job is cancelled, by whatever process."""
        try:
            return (self.place / CANCELLED).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _life(self, token: str) -> _Life | None:
        return self._lives.get(token) or self._load(token)

    def _load(self, token: str) -> _Life | None:
        """Read what is noted of a pretended job; None where nothing is."""
        try:
            life = _Life.from_json(self._record(token).read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._lives.pop(token, None)
            return None
        with suppress(FileNotFoundError):
            life = life.cut(min(self._cancellation(token).stat().st_mtime, time.time()))
        is_new = token not in self._lives
        self._lives[token] = life
        if is_new:
            self._alarm.set(life.ends)
        return life

    def _load_living(self) -> None:
        now = time.time()
        for token in [token for token, life in self._lives.items() if not life.status(now).state.over]:
            self._load(token)

    def _next_end(self, after: float) -> float | None:
        ends = [life.ends for life in list(self._lives.values()) if life.ends > after]
        return min(ends, default=None)

    def _forget(self, token: str) -> None:
        self._lives.pop(token, None)
        self._record(token).unlink(missing_ok=True)
        self._cancellation(token).unlink(missing_ok=True)


class _Alarm:
    """Calls at the end of each job, from one thread that lives as long as there are jobs.

    Attributes:
        call: what it calls, also when what `glance` gives has changed.
    """

    def __init__(self, next_end: Callable[[float], float | None], glance: Callable[[], int]) -> None:
        self.call: Callable[[], None] = lambda: None
        self._next_end = next_end
        self._glance = glance
        self._glanced = glance()
        self._called = 0.0
        self._wanted: float | None = None
        self._changed = threading.Condition()

    def set(self, moment: float) -> None:
        """A job ends at that moment (epoch seconds), too."""
        with self._changed:
            if self._wanted is None:
                threading.Thread(target=self._run, name="madengine-alarm", daemon=True).start()
            elif moment < self._wanted:
                self._changed.notify()
            self._wanted = min(moment, self._wanted or moment)

    def _run(self) -> None:
        while self._sleep():
            self.call()

    def _sleep(self) -> bool:
        """Whether a job has ended or something has changed; false as soon as nothing more can."""
        with self._changed:
            while (moment := self._next_end(self._called)) is not None:
                self._wanted, now = moment, time.time()
                before, self._glanced = self._glanced, self._glance()
                if moment <= now or self._glanced != before:
                    self._called = now
                    return True
                self._changed.wait(min(moment - now, GLANCE))
            self._wanted = None
            return False


def _is_pretended(handle: Handle) -> bool:
    return "/" not in handle.token


def _is_fresh(changes: int) -> bool:
    return time.time_ns() - changes < FRESH * 1e9


def _leave_traces(directory: Path, life: _Life) -> None:
    """The files of a job that went like this, the exit code last."""
    (directory / facts.ARTIFACTS).mkdir(parents=True, exist_ok=True)
    if life.begins < life.ends:
        _leave_log(directory, life)
    new = directory / f"{facts.EXIT_CODE}.new"
    new.write_text(f"{life.exit_code}\n", encoding="utf-8")
    new.replace(directory / facts.EXIT_CODE)


def _leave_log(directory: Path, life: _Life) -> None:
    """What a job's script notes; the model of a cancelled one came to print nothing."""
    header = f"madengine: {life.model} on {life.node}\n".encode()
    output = b"" if life.cancelled else life.pretence.output.encode()
    begins, ends, here, there = f"{life.begins:.6f}", f"{life.ends:.6f}", len(header), len(header) + len(output)
    steps = [
        f"prepare {begins} - - {here} -",
        f"prepare {begins} {begins} 0 {here} {here}",
        f"model {begins} - - {here} -",
        *([] if life.cancelled else [f"model {begins} {ends} {life.exit_code} {here} {there}"]),
    ]
    (directory / facts.STARTED).touch()
    (directory / facts.LOG).write_bytes(header + output)
    (directory / facts.PHASES).write_text("\n".join([*steps, ""]), encoding="utf-8")
