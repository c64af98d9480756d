"""Jobs as processes of this host, for every backend that runs them so."""

from __future__ import annotations

import functools
import os
import platform
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from pytest_madengine import command
from pytest_madengine.backends import facts
from pytest_madengine.backends.base import Handle, Outcome, Plan, State, Status
from pytest_madengine.jobs.job import Job

ID_VARIABLE = "MADENGINE_ID"
"""The variable by which everything that a job started is found, whatever session or group it moved to."""
GRACE = 15.0
"""Seconds from TERM to KILL; the job's script itself gives the model 5 s and then tidies up."""
POLL = 0.02
GLANCE = 0.2
"""Seconds between two looks at a process whose end the system does not announce."""
SHELL_AND_SCRIPT = 2
"""Arguments of a job's process."""
GONE = -1
"""The process number of a job whose script is over."""
VISIBLE = {"AMD": "HIP_VISIBLE_DEVICES", "NVIDIA": "CUDA_VISIBLE_DEVICES"}


class Processes:
    """The methods of a backend whose jobs are processes of this host.

    Attributes:
        name: of the backend; its handles carry it.
        script: the file in a job's folder that is run.
    """

    def __init__(self, name: str, script: str = facts.SCRIPT) -> None:
        self.name = name
        self.script = script
        self._codes: dict[Handle, int] = {}
        self._started: dict[Handle, float] = {}
        self._own: dict[str, Handle] = {}
        self._followed: set[Handle] = set()
        self._wake: Callable[[], None] = _nothing

    def watch(self, wake: Callable[[], None]) -> None:
        """`wake` is called when a process ends, whichever session started it."""
        self._wake = wake

    def plan(self, job: Job) -> Plan:
        """The command and its environment (what it adds to the user's own)."""
        visible = ",".join(map(str, job.devices.gpus))
        environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            **({VISIBLE[job.devices.vendor]: visible} if job.devices.gpus else {}),
            **job.env,
            ID_VARIABLE: job.id,
            "MADENGINE_JOB": str(job.directory),
            "MADENGINE_WORKSPACE": str(job.directory / facts.WORKSPACE),
            "MADENGINE_PROJECT": str(job.project),
        }
        argv = ["bash", str(job.directory / self.script)]
        return Plan(job, {"argv": argv, "environment": environment}, job.secrets)

    def submit(self, plan: Plan) -> Handle:
        """Start the process in a session of its own."""
        return facts.once(plan.job, self.find, lambda: self._start(plan))

    def _start(self, plan: Plan) -> Handle:
        facts.write_script(plan.job)
        argv = ["bash", str(plan.job.directory / self.script)]
        process = command.start(argv, env=self._environment(plan), directory=plan.job.directory)
        _await_sight(process.pid, process.poll)
        handle = Handle(self.name, f"{process.pid}/{plan.job.id}", str(plan.job.directory))
        self._started[handle] = time.monotonic()
        self._own[plan.job.id] = handle
        threading.Thread(target=self._reap, args=(handle, process.wait), daemon=True).start()
        return handle

    def _environment(self, plan: Plan) -> dict[str, str]:
        """The whole environment of a job's process."""
        return {**os.environ, **plan.request["environment"], **plan.secrets}

    def _reap(self, handle: Handle, wait: Callable[[], int]) -> None:
        self._codes[handle] = wait()
        self._wake()

    def find(self, folders: Mapping[str, Path]) -> Mapping[str, Handle]:
        """By the scripts that run, else by what they wrote."""
        begun = {token: folder for token, folder in folders.items() if (folder / self.script).exists()}
        own = {token: self._own[token] for token in begun if token in self._own}
        others = {token: folder for token, folder in begun.items() if token not in own}
        traces = {
            token for token, folder in others.items() if facts.began(folder)
        }  # before the look: it may just begin
        running = _running_scripts({folder / self.script: token for token, folder in others.items()})
        return own | {
            token: Handle(self.name, f"{running.get(token, GONE)}/{token}", str(folder))
            for token, folder in others.items()
            if token in running or token in traces
        }

    def states(self, handles: Sequence[Handle]) -> Mapping[Handle, Status]:
        """Running until the process has ended; a process of an earlier session is looked up by its id."""
        return {handle: Status(self._state(handle)) for handle in handles}

    def _state(self, handle: Handle) -> State:
        if handle in self._codes:
            return _ended(handle, self._codes[handle])
        if handle in self._started:
            return State.RUNNING
        if process := _alive(handle):
            self._follow(handle, process)
            return State.RUNNING
        return facts.left(Path(handle.directory))

    def _follow(self, handle: Handle, process: psutil.Process) -> None:
        """Wake at the end of a process that is no child of ours."""
        if handle not in self._followed:
            self._followed.add(handle)
            threading.Thread(target=self._await_stranger, args=(process,), daemon=True).start()

    def _await_stranger(self, process: psutil.Process) -> None:
        _await_end(process)
        self._wake()

    def _running(self, handles: Iterable[Handle]) -> list[Handle]:
        return [handle for handle in handles if self._state(handle) is State.RUNNING]

    def collect(self, handle: Handle) -> Outcome:
        """What the job left; ends whatever it left running."""
        _end([handle])
        started = self._started.pop(handle, None)
        duration = time.monotonic() - started if started is not None else 0.0
        code = self._codes.pop(handle, None)
        self._own.pop(handle.token.partition("/")[2], None)
        self._followed.discard(handle)
        directory = Path(handle.directory)
        state = facts.left(directory) if code is None else _ended(handle, code)
        note = f"its script was killed by signal {-code}" if code is not None and state is State.LOST else ""
        return facts.outcome(directory, state, exit_code=code, node=platform.node(), duration=duration, note=note)

    def cancel(self, handles: Iterable[Handle], *, hard: bool = False) -> None:
        """TERM to the job's script, which ends the model and tidies up; KILL to all that is left."""
        handles = list(handles)
        if not handles:
            return
        scripts = [_alive(handle, own=handle in self._started) for handle in self._running(handles)]
        for process in filter(None, scripts):
            _quietly(process.kill if hard else process.terminate)
        if not hard:
            _await(lambda: not self._running(handles))
        _end(handles, hard=hard)
        _await(lambda: not self._running(handles))


def _nothing() -> None:
    """Nobody wants to be woken."""


def _ended(handle: Handle, code: int) -> State:
    """How a job's script ended: one that a signal killed before it was done is lost."""
    return State.EXITED if code >= 0 else facts.left(Path(handle.directory))


def _running_scripts(files: Mapping[Path, str]) -> dict[str, int]:
    """The process numbers of those jobs whose scripts run.

    A script leads its session; what it started and sent to another one carries its variables but has not its arguments.
    """
    scripts = {os.path.realpath(file): token for file, token in files.items()}
    leaders = [process for process in psutil.process_iter() if _leads(process)] if scripts else []
    found = ((scripts.get(_script(process)), process.pid) for process in leaders)
    return {token: pid for token, pid in found if token}


def _script(process: psutil.Process) -> str:
    """The file that a shell runs; '' for every other process."""
    try:
        arguments = process.cmdline()
    except (psutil.Error, OSError):
        return ""
    return os.path.realpath(arguments[1]) if len(arguments) == SHELL_AND_SCRIPT else ""


def _alive(handle: Handle, *, own: bool = False) -> psutil.Process | None:
    """The job's script, if it still runs; `own` where this process started it, whose environment shows a bit later."""
    pid, _, token = handle.token.partition("/")
    try:
        process = psutil.Process(int(pid))
    except (psutil.Error, ValueError):  # a negative number is none
        return None
    return process if _lives(process) and (own or _carried(process) == token) else None


def _family(handles: Iterable[Handle]) -> list[psutil.Process]:
    """Every process that carries the token of one of these jobs, and those in a session that such a one leads.

    A process that lost its environment, as by setproctitle, is found by its session.
    """
    scripts = {token: int(pid) for pid, _, token in (handle.token.partition("/") for handle in handles)}
    living = [process for process in psutil.process_iter() if _lives(process)]
    carriers = {process.pid for process in living if _carried(process) in scripts}
    strangers = {process.pid for process in living} - carriers
    led = {pid for pid in carriers if _session(pid) == pid} | (set(scripts.values()) - strangers - {GONE})
    return [process for process in living if process.pid in carriers or _session(process.pid) in led]


def _leads(process: psutil.Process) -> bool:
    return _session(process.pid) == process.pid and _lives(process)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _carried(process: psutil.Process) -> str:
    try:
        return process.environ().get(ID_VARIABLE, "")
    except (psutil.Error, OSError):
        return ""


def _end(handles: Sequence[Handle], *, hard: bool = False) -> None:
    """TERM and a second later KILL to the families of these jobs, until nothing new turns up in them."""
    act = psutil.Process.kill if hard else psutil.Process.terminate
    deadline = time.monotonic() + GRACE
    while (family := _family(handles)) and time.monotonic() < deadline:
        for process in family:
            _quietly(functools.partial(act, process))
        _await(functools.partial(_are_dead, family), seconds=1)
        act = psutil.Process.kill


def _await(happened: Callable[[], bool], seconds: float = GRACE, poll: float = POLL) -> None:
    """Return when that is so, or when the time is up."""
    deadline = time.monotonic() + seconds
    while not happened() and time.monotonic() < deadline:
        time.sleep(poll)


def _await_sight(pid: int, ended: Callable[[], int | None]) -> None:
    """Return when others see the arguments of a process, which is a bit later than its start."""
    process = psutil.Process(pid)
    _await(lambda: bool(_script(process)) or ended() is not None, seconds=1, poll=0.001)


def _await_end(process: psutil.Process) -> None:
    """Sleep until a process that is no child of ours has ended, be it reaped or not."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not on this system
        while _lives(process):
            time.sleep(GLANCE)
        return
    ended = select.poll()
    ended.register(descriptor, select.POLLIN)
    ended.poll()
    os.close(descriptor)


def _are_dead(processes: Iterable[psutil.Process]) -> bool:
    return not any(map(_lives, processes))


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _quietly(act: Callable[[], None]) -> None:
    try:
        act()
    except psutil.Error:
        return
